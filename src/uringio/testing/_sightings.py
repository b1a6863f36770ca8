"""
The states that a test wants to have seen: rare on a real kernel, and where the bugs are.

A sweep that never met them has proved nothing about them, so each is counted (`SimKernel.notes`).
"""

import errno
from collections import deque
from collections.abc import Callable
from typing import Final

from uringio._sys import constants as k

from ._objects import SimFile
from ._requests import Request

__all__ = ["Sightings"]

_MAKES_FD: Final = frozenset({
    k.IORING_OP_ACCEPT, k.IORING_OP_OPENAT, k.IORING_OP_OPENAT2, k.IORING_OP_SOCKET,
})  # fmt: skip
_SENDS: Final = frozenset({k.IORING_OP_SEND, k.IORING_OP_SEND_ZC, k.IORING_OP_SENDMSG})
_RECENT_COUNT: Final = 64


class Sightings:
    """
    What one ring has been seen to do.

    Args:
        note: Counts a state.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._asked: set[int] = set()  # serials of requests that were asked to end
        self._recent: deque[tuple[int, int, int]] = deque(maxlen=_RECENT_COUNT)
        self._starved: set[SimFile] = set()
        self._cut: dict[SimFile, int] = {}  # bytes of a send that were not sent
        self.late_fds: set[int] = set()

    def begins(self, request: Request) -> None:
        """See a request that has been submitted, and its file found."""
        file = request.file
        if file is None:
            return
        if file in self._starved and request.opcode == k.IORING_OP_RECV:
            self._starved.discard(file)
            self._note("armed anew after ENOBUFS")
        elif request.opcode in _SENDS and (rest := self._cut.pop(file, 0)) and rest == request.len:
            self._note("short send resumed")

    def is_asked_to_end(self, request: Request) -> None:
        """See a request that a cancel request means, whether it is found or not."""
        self._asked.add(request.serial)

    def is_missed(self, user_data: int) -> None:
        """See a cancel request that found nothing any more."""
        self._note("cancel lost")
        for number, opcode, result in self._recent:
            if number == user_data and result >= 0:
                self._orphaned(opcode, result)

    def completes(self, request: Request, result: int) -> None:
        """See how a request ends."""
        file = request.file
        if request.serial in self._asked:
            self._asked.discard(request.serial)
            if result >= 0:
                self._orphaned(request.opcode, result)
        self._recent.append((request.user_data, request.opcode, result))
        if file is None:
            return
        if result == -errno.ENOBUFS and request.opcode == k.IORING_OP_RECV:
            self._starved.add(file)
        elif request.opcode in _SENDS and 0 < result < request.len:
            self._cut[file] = request.len - result

    def closes(self, fd: int) -> None:
        """See a descriptor closed."""
        if fd in self.late_fds:
            self.late_fds.discard(fd)
            self._note("late fd closed")

    def _orphaned(self, opcode: int, result: int) -> None:
        self._note("orphaned completion")
        if opcode in _MAKES_FD:
            self.late_fds.add(result)
