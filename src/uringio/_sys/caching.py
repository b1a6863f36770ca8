"""
Asking the page cache, and sending from it.

Functions of `System`, which binds them; apart from it because they are one idea of their own.
"""

import errno
import os
import signal
from collections.abc import Callable
from struct import Struct
from typing import Final

from .memory import pin

__all__ = ["Syscall", "holds_all", "send_cached"]

Syscall = Callable[..., int]

_NR_CACHESTAT: Final = 451  # the same on every architecture but Alpha
# A cachestat_range, offset and length, and behind it room for the answer, whose first word is how
# many pages are there.
_CACHESTAT: Final = Struct("=QQQ4Q")
_ANSWER_AT: Final = 16
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def holds_all(syscall: Syscall, fd: int, offset: int, len_bytes: int) -> bool:
    """
    Tell whether the page cache holds all of these bytes, read to their end.

    False also where the kernel does not tell: before Linux 6.5, or of a file that is neither the
    caller's nor writable to it.

    Source: cachestat(2), mm/filemap.c.
    """
    room = bytearray(_CACHESTAT.size)
    _CACHESTAT.pack_into(room, 0, offset, len_bytes, 0, 0, 0, 0, 0)
    addr, _, hold = pin(room, writable=True)
    res = syscall(_NR_CACHESTAT, fd, addr, addr + _ANSWER_AT, 0, 0, 0)
    del hold
    if res < 0:
        return False
    pages_count = (offset + len_bytes - 1) // _PAGE_BYTES - offset // _PAGE_BYTES + 1
    if _CACHESTAT.unpack_from(room)[2] < pages_count:
        return False
    try:
        # Pages on their way from the device count, too; the last one comes last.
        return os.preadv(fd, [bytearray(1)], offset + len_bytes - 1, os.RWF_NOWAIT) == 1
    except OSError:
        return False


def send_cached(to_fd: int, from_fd: int, offset: int, len_bytes: int) -> int:
    """
    Attempt sendfile(2) into a socket in whichever mode, without waiting for the peer.

    Where the file is not cached, it waits for the device: see `holds_all`.
    """
    blocked: set[int | signal.Signals] | None = None
    if signal.getsignal(signal.SIGPIPE) is not signal.SIG_IGN:
        # There is no MSG_NOSIGNAL here, and the signal comes with a partial success, too.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        blocks = os.get_blocking(to_fd)
        try:
            if blocks:
                os.set_blocking(to_fd, False)
            return os.sendfile(to_fd, from_fd, offset, len_bytes)
        finally:
            if blocks:
                os.set_blocking(to_fd, True)
    except OSError as error:
        return -(error.errno or errno.EIO)
    finally:
        if blocked is not None and signal.SIGPIPE not in blocked:
            signal.sigtimedwait({signal.SIGPIPE}, 0)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPIPE})
