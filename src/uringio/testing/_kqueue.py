"""What a simulated kqueue plays timers and triggers by; see `uringio._sys.kqueue_emulated`."""

import errno
from typing import TYPE_CHECKING, NoReturn

from uringio._driver.poll_bits import POLLIN
from uringio.errors import op_error

from ._objects import SimFile
from .errors import NotSimulatedError

if TYPE_CHECKING:
    from ._kernel import SimKernel

__all__ = ["SimSources"]


class _SourceFile(SimFile):
    """What the number of a source names."""

    kind = "kqueue source"

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def poll(self) -> int:
        """See `SimFile`."""
        return POLLIN if self.count else 0


class _SimSource:
    """A source that counts."""

    def __init__(self, kernel: "SimKernel") -> None:
        self._kernel = kernel
        self._file = _SourceFile()
        self.fd = kernel.install(self._file)
        if self.fd < 0:
            raise op_error(-self.fd, "kevent")

    def pull(self) -> None:
        """See `Trigger`."""
        self._file.count += 1
        self._file.changed(POLLIN)

    def take(self) -> tuple[int, int] | None:
        """See `Source`."""
        count, self._file.count = self._file.count, 0
        return (0, count) if count else None

    def close(self) -> None:
        """See `Source`."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self._kernel.close_fd(fd)


class _SimTimer(_SimSource):
    """A timer of the virtual clock."""

    def __init__(self, kernel: "SimKernel", due_ns: int, period_ns: int) -> None:
        super().__init__(kernel)
        self._period_ns = period_ns
        self._call = kernel.clock.call_at(due_ns, self._expire)

    def _expire(self) -> None:
        if self._period_ns:
            self._call = self._kernel.clock.call_later(self._period_ns, self._expire)
        self.pull()

    def close(self) -> None:
        """See `Source`."""
        self._kernel.clock.cancel(self._call)
        super().close()


class SimSources:
    """See `uringio._sys.kqueue_emulated.Sources`."""

    def __init__(self, kernel: "SimKernel") -> None:
        self._kernel = kernel

    def trigger(self) -> _SimSource:
        """See `Sources`."""
        return _SimSource(self._kernel)

    def timer(self, first_ns: int, period_ns: int, wall: bool) -> _SimTimer:
        """See `Sources`."""
        clock = self._kernel.clock
        due_ns = first_ns - clock.real_offset_ns if wall else clock.now_ns + first_ns
        return _SimTimer(self._kernel, max(due_ns, clock.now_ns), period_ns)

    def signal(self, number: int) -> NoReturn:
        """See `Sources`."""
        raise NotSimulatedError(f"signal {number}: a simulated kernel sends none")

    def process(self, pid: int, notes: int) -> NoReturn:
        """See `Sources`."""
        del notes
        raise op_error(errno.ESRCH, "kevent", detail=f"process {pid}")  # there is none at all

    def vnode(self, fd: int, notes: int) -> NoReturn:
        """See `Sources`."""
        raise NotSimulatedError(f"watching the file of {fd} for {notes:#x}")
