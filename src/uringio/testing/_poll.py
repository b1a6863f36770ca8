"""A simulated poll(2), as much of it as the driver uses."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._kernel import SimKernel

from uringio._driver.poll_bits import POLLERR, POLLHUP, POLLNVAL

__all__ = ["SimPoll"]

_ALWAYS_TOLD: Final = POLLERR | POLLHUP


class SimPoll:
    """See `select.poll`."""

    def __init__(self, kernel: "SimKernel") -> None:
        self._kernel = kernel
        self._masks: dict[int, int] = {}

    def register(self, fd: int, mask: int) -> None:
        """See `select.poll`."""
        self._masks[fd] = mask

    def unregister(self, fd: int) -> None:
        """See `select.poll`."""
        del self._masks[fd]

    def poll(self, timeout_ms: float | None = None) -> list[tuple[int, int]]:
        """See `select.poll`."""
        kernel = self._kernel
        kernel.enter_call()
        deadline_ns: int | None = None
        if timeout_ms is not None and timeout_ms >= 0:
            deadline_ns = kernel.clock.now_ns + int(timeout_ms * 1e6)
        while True:
            found = self._found()
            if found or timeout_ms == 0:
                break
            if kernel.faults.strikes("interrupt", "poll"):
                break  # the standard library goes on waiting, and so does the driver
            if not kernel.pass_time(deadline_ns, self._masks):
                found = self._found()
                break
        faults = kernel.faults
        if len(found) > 1 and faults.strikes("reorder", "poll"):
            at = 1 + faults.below("reorder", len(found) - 1)
            found = found[at:] + found[:at]
        kernel.trace.add(f"poll = {found}")
        return found

    def _found(self) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for fd, mask in self._masks.items():
            file = self._kernel.file_of(fd)
            bits = POLLNVAL if file is None else file.poll() & (mask | _ALWAYS_TOLD)
            if bits:
                found.append((fd, bits))
        return found
