#!/usr/bin/env python3
"""
Tell what happens in a folder.

Shows: a multishot read, one request that yields events for as long as they come; a group of
provided buffers, of which the kernel takes one when there is something to put into it.

    python examples/lowlevel/watch.py FOLDER [--events 10]     (Ctrl-C ends it)
"""

import argparse
import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterator

from uringio.errors import UringioError
from uringio.lowlevel import Completion, ProvidedBuffers, Ring, prep_read_multishot

BUFFERS, BUFFER_BYTES = 8, 4096
GROUP = 1

# <sys/inotify.h>; struct inotify_event: wd, mask, cookie, len, and behind it the name.
HEADER = struct.Struct("=iIII")
HAPPENINGS = {
    0x002: "modified",
    0x040: "moved away",
    0x080: "moved here",
    0x100: "created",
    0x200: "deleted",
    0x400: "is gone: the folder itself",
    0x4000: "lost: too much happened at once",
}
IS_FOLDER, ONLY_FOLDERS, GONE = 0x40000000, 0x01000000, 0x400


def main() -> int:
    parser = argparse.ArgumentParser(description="Tell what happens in a folder.")
    parser.add_argument("folder")
    parser.add_argument("--events", type=int, help="end after so many")
    options = parser.parse_args()
    if options.events is not None and options.events < 1:
        parser.error(f"--events is 1 or more, not {options.events}")
    fd = watch(options.folder)
    try:
        with Ring(8) as ring:
            buffers = ring.setup_buf_ring(GROUP, BUFFERS, BUFFER_BYTES)
            print(f"watching {options.folder}", flush=True)
            for number, (mask, name) in enumerate(events(ring, fd, buffers), 1):
                what = " and ".join(word for bit, word in HAPPENINGS.items() if mask & bit)
                if what:
                    print(f"{what} {name}{'/' if mask & IS_FOLDER else ''}".rstrip(), flush=True)
                if number == options.events or mask & GONE:
                    break
    finally:
        os.close(fd)
    return 0


def watch(folder: str) -> int:
    """Return a descriptor that tells of a folder; the standard library has no inotify(7)."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd >= 0:
        mask = sum(HAPPENINGS) & ~0x4000 | ONLY_FOLDERS
        if libc.inotify_add_watch(fd, os.fsencode(folder), mask) >= 0:
            return fd
        number = ctypes.get_errno()
        os.close(fd)
    else:
        number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), folder)


def events(ring: Ring, fd: int, buffers: ProvidedBuffers) -> Iterator[tuple[int, str]]:
    """Yield what inotify tells, as (mask, name)."""
    is_armed = False
    while True:
        if not is_armed:
            prep_read_multishot(ring, fd, 0, 0, GROUP)
        for one in map(Completion._make, ring.wait()):
            is_armed = one.more
            if one.buffer_id is None:
                # ENOBUFS: more came than there are buffers.  They are free again by now, so the
                # read is begun anew, and finds what it had to leave.
                if one.res != -errno.ENOBUFS:
                    raise OSError(-one.res, os.strerror(-one.res), "reading events")
                continue
            told = bytes(buffers.view(one.buffer_id, one.res))
            buffers.put(one.buffer_id)
            at = 0
            while at < len(told):
                _, mask, _, name_bytes = HEADER.unpack_from(told, at)
                at += HEADER.size + name_bytes
                name = told[at - name_bytes : at].rstrip(b"\0")
                yield mask, os.fsdecode(name)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, UringioError) as error:
        sys.exit(f"watch: {error}")
