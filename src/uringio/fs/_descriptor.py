"""A descriptor that several users keep open: a coroutine, and threads that work for it."""

import _thread
from collections.abc import Callable
from typing import Self, TypeVar

from uringio._driver import current
from uringio._driver.op import Offload, Op
from uringio._driver.path_ops import AnyPath, open_op

__all__ = ["Descriptor", "in_thread", "open_descriptor"]

T = TypeVar("T")


class Descriptor:
    """
    An open file that is closed when its last user releases it, in whichever thread that is.

    A cancelled copy leaves at once, while a thread may still be at work for it: neither may close
    the file under the other.

    Attributes:
        fd: The number, good until the caller's own release.
    """

    __slots__ = ("_close", "_lock", "_users_count", "fd")

    def __init__(self, fd: int, close: Callable[[int], int]) -> None:
        self.fd = fd
        self._close = close
        self._lock = _thread.allocate_lock()
        self._users_count = 1

    def acquire(self) -> bool:
        """Become a user; False when it is closed already."""
        with self._lock:
            if not self._users_count:
                return False
            self._users_count += 1
            return True

    def release(self) -> None:
        """Stop being a user."""
        with self._lock:
            self._users_count -= 1
            last = not self._users_count
        if last:
            self._close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def open_descriptor(path: AnyPath, flags: int, permissions: int = 0) -> Op[Descriptor]:
    """Open *path*; the caller is the descriptor's first user."""
    driver = current.driver()
    close = driver.system.close

    def opened(fd: object) -> Descriptor:
        assert isinstance(fd, int)
        return Descriptor(fd, close)

    op = open_op(path, flags, permissions, opened)
    op.home = driver
    return op


def in_thread(
    function: Callable[[int, int], T], one: Descriptor, other: Descriptor
) -> Op[T | None]:
    """Call *function* with both descriptors in a worker thread, which keeps them open meanwhile."""

    def call() -> T | None:
        if not one.acquire():
            return None  # nobody waits for it any more
        try:
            if not other.acquire():
                return None
            try:
                return function(one.fd, other.fd)
            finally:
                other.release()
        finally:
            one.release()

    return Offload(call)
