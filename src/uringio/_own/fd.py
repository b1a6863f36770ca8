"""
Descriptors with one owner.

An `OwnedFd` is closed once: by `close`, or by whoever `take`s the number out of it.  One that is
forgotten closes itself and warns, in development mode with the line that it comes from; by then
nothing can be in flight on it, because operations keep their owner alive.
"""

import warnings
from collections.abc import Callable
from typing import NoReturn

from uringio.errors import ClosedError

from .sites import site, site_words

__all__ = ["OwnedFd"]


class OwnedFd:
    """
    A descriptor and the duty to close it.

    Args:
        fd: The number.
        close: The system's close.
        what: For error messages, such as ``"stream"``.

    Attributes:
        what: As given.
    """

    __slots__ = ("_close", "_fd", "_site", "what")

    def __init__(self, fd: int, close: Callable[[int], int], what: str) -> None:
        self._fd = fd
        self._close = close
        self.what = what
        self._site = site()

    def __repr__(self) -> str:
        return f"<OwnedFd {self.what} {'closed' if self._fd < 0 else self._fd}>"

    def __reduce__(self) -> NoReturn:
        # Asked by copy and pickle: two of them would both close the number, which may be another's.
        raise TypeError("a descriptor has one owner, and cannot be copied or pickled")

    @property
    def number(self) -> int:
        """The descriptor; raises `ClosedError` once it is closed."""
        if self._fd < 0:
            raise self.closed_error()
        return self._fd

    def fileno(self) -> int:
        """The descriptor, which stays this object's; raises `ClosedError`."""
        return self.number

    @property
    def closed(self) -> bool:
        """Whether it was closed or taken."""
        return self._fd < 0

    def take(self) -> int:
        """Give up ownership and return the number; raises `ClosedError`."""
        number, self._fd = self.number, -1
        return number

    def close(self) -> None:
        """Close now; safe to call twice."""
        if self._fd >= 0:
            self._close(self.take())

    def closed_error(self) -> ClosedError:
        """Build the error for using it when it is closed."""
        return ClosedError(f"this {self.what} is closed")

    def __del__(self) -> None:
        if self._fd >= 0:
            where = site_words("opened", self._site)
            text = f"a {self.what} on fd {self._fd} was never closed{where}"
            try:
                warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
            finally:
                self.close()  # also where warnings are errors
