"""Flags of single transfers, and rules of path resolution, by the kernel's numbers."""

from enum import IntFlag
from typing import Final

__all__ = ["READ_FLAGS", "WRITE_FLAGS", "RWFlags", "Resolve"]


class RWFlags(IntFlag):
    """
    How one read or write differs from the rest.

    Source: preadv2(2), pwritev2(2).
    """

    HIPRI = 0x01
    """Poll the device for the end; only for files opened with ``direct=True``."""

    DSYNC = 0x02
    """Write through: the data is on the device when the write ends."""

    SYNC = 0x04
    """Like DSYNC, and all that describes the file too."""

    NOWAIT = 0x08
    """`BlockingIOError` instead of waiting for the device or for a lock."""

    APPEND = 0x10
    """Write at the end of the file, wherever the offset says."""

    NOAPPEND = 0x20
    """Write at the offset although the file was opened to append.  Kernel: 6.9."""

    ATOMIC = 0x40
    """All of the write or nothing, even if power fails.  Kernel: 6.11, and few devices."""

    DONTCACHE = 0x80
    """Keep nothing of it in the page cache.  Kernel: 6.14, and few filesystems."""


READ_FLAGS: Final = RWFlags.HIPRI | RWFlags.NOWAIT | RWFlags.DONTCACHE
WRITE_FLAGS: Final = RWFlags(0xFF)


class Resolve(IntFlag):
    """
    What a path that is opened may lead through; an `OSError` says where it may not.

    Source: openat2(2).
    """

    NO_XDEV = 0x01
    """No other filesystem; EXDEV."""

    NO_MAGICLINKS = 0x02
    """None of the links in ``/proc`` that lead to open files; ELOOP."""

    NO_SYMLINKS = 0x04
    """No symbolic link at all; ELOOP."""

    BENEATH = 0x08
    """Nothing outside of the folder, be it by ``..``, by a link, or by a leading slash; EXDEV."""

    IN_ROOT = 0x10
    """As if the folder were the root: ``..`` and leading slashes lead nowhere above it."""

    CACHED = 0x20
    """Only what needs no look at the device; EAGAIN.  Kernel: 5.12."""
