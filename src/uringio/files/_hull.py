"""What outlives a file while its operations run."""

from typing import Final, TypeVar, cast

from uringio._driver import op as o
from uringio._driver.contract import Driver
from uringio._driver.op import MAKES_DESCRIPTOR, READ, READ_CACHED, WRITE, Op
from uringio._own.fd import OwnedFd

from ._limits import Writable

__all__ = ["AT_POSITION", "Hull", "Taker"]

T = TypeVar("T")

AT_POSITION: Final = (1 << 64) - 1  # as in an SQE: where the descriptor stands


class Hull:
    """
    What a file's operations keep alive: its descriptor, and what they read for nobody.

    Apart from the file, so that a file that is dropped while operations run warns at once, and is
    closed when they have ended.

    Attributes:
        ahead: Bytes that the descriptor's position is ahead of the file's: read for lines that were
            not asked for yet, or for a task that was cancelled.
    """

    __slots__ = ("_driver", "ahead", "fd")

    def __init__(self, driver: Driver, fd: int) -> None:
        self._driver = driver
        self.fd = OwnedFd(fd, driver.system.close, "file")
        self.ahead = bytearray()

    def move(self, offset: int, whence: int) -> int:
        """Move the descriptor's position, and return it; raises `ClosedError`, `OpError`."""
        return self._driver.system.lseek(self.fd.number, offset, whence)

    def orphan(self, op: Op[T], value: object, /) -> None:
        """Keep what was done for a cancelled task: close, note or put back; see `Owner`."""
        if not isinstance(value, int):
            return
        if op.code in MAKES_DESCRIPTOR:
            self._driver.system.close(value)
        elif op.code == WRITE or op.code == o.WRITEV:
            op.done_bytes += value
        elif op.off == AT_POSITION and op.finish is not None and op.code in {READ, READ_CACHED}:
            self.ahead += cast("bytes", op.finish(value))


class Taker:
    """Makes the bytes that a read returns out of the memory that it filled."""

    __slots__ = ("_buffer",)

    def __init__(self, buffer: Writable) -> None:
        self._buffer = buffer

    def __call__(self, count: object) -> bytes:
        buffer = self._buffer
        if count == len(buffer):
            return bytes(buffer)
        with memoryview(buffer) as view:
            return bytes(view[: cast("int", count)])
