"""
One line for each response, written by a worker thread.

Serving never waits for the log: lines are kept as tuples, made into text and written a few times a
second, all at once.  Where they cannot be written as fast as they come, they are counted and left
out.
"""

import os
import time
from typing import Final

import attrs

import uringio

__all__ = ["AccessLog", "Answered"]

_FLUSH_SECONDS: Final = 0.25
_LINES_MAX: Final = 50_000
# Targets may be long, and of the peer's choosing.
_CHARS_MAX: Final = 8 * 1024 * 1024
# A pipe takes this much in one piece, so that the lines of several workers do not mix.
_WRITE_BYTES: Final = 4096

_ESCAPES: Final = str.maketrans({'"': "\\x22", "\\": "\\x5c"})


@attrs.frozen
class Answered:
    """
    A request and its response.

    Attributes:
        at: When the response was done, since the epoch. [s]
        peer: Who asked.
        request: The first line of the request, or ``-``.
        status: What was answered; 0 when nothing was.
        sent_bytes: How much of the body was sent. [bytes]
        seconds: From the request's head to the end of the response. [s]
    """

    at: float
    peer: str
    request: str
    status: int
    sent_bytes: int
    seconds: float

    @property
    def text(self) -> str:
        """The line, without its end."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.at))
        return (
            f'{stamp} {self.peer} "{self.request.translate(_ESCAPES)}" {self.status or "-"} '
            f"{self.sent_bytes} {self.seconds * 1000:.1f}ms"
        )


class AccessLog:
    """
    Lines on their way to a descriptor.

    Args:
        fd: Where to; it stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting: list[Answered] = []
        self._waiting_chars = 0
        self._lost_count = 0

    def add(self, answered: Answered) -> None:
        """Have a line written soon."""
        if len(self._waiting) < _LINES_MAX and self._waiting_chars < _CHARS_MAX:
            self._waiting.append(answered)
            self._waiting_chars += len(answered.request)
        else:
            self._lost_count += 1

    async def keep_writing(self) -> None:
        """Write what was added; runs until cancelled, or until nobody reads the log any more."""
        try:
            while True:
                await uringio.sleep(_FLUSH_SECONDS)
                await self.flush()
        except OSError:
            self._waiting.clear()

    async def flush(self) -> None:
        """Write everything that is there now."""
        if self._waiting or self._lost_count:
            lines, self._waiting = self._waiting, []
            self._waiting_chars = 0
            lost, self._lost_count = self._lost_count, 0
            await uringio.offload(_write, self._fd, lines, lost)


def _write(fd: int, lines: list[Answered], lost_count: int) -> None:
    batch = bytearray()
    for line in lines:
        text = line.text.encode("ascii", "backslashreplace") + b"\n"
        if batch and len(batch) + len(text) > _WRITE_BYTES:
            _write_all(fd, batch)
            batch.clear()
        batch += text
    if lost_count:
        batch += b"%d lines were lost: the log is too slow\n" % lost_count
    _write_all(fd, batch)


def _write_all(fd: int, data: bytearray) -> None:
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            done += os.write(fd, view[done:])
