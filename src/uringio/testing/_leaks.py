"""What a program holds, and what it may not have left behind."""

import gc
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, cast

from uringio._driver import current
from uringio._driver.op import CANCELLING, DONE, EVENT, NEW, SUBMITTED, Op
from uringio._own.loans import Loan, State
from uringio._own.pool import Pool
from uringio._run.task import Task

from ._kernel import SimKernel
from ._system import SimSystem
from .errors import LeakError

__all__ = ["Holdings", "assert_no_leaks", "holdings"]

_FD_FOLDER: Final = "/proc/self/fd"
_UNDER_WAY: Final = frozenset({SUBMITTED, CANCELLING, DONE})
_AWAY: Final = frozenset({State.LENT, State.BORROWED})
_PATIENCE_SECONDS: Final = 2.0
_LOOK_AGAIN_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Holdings:
    """
    What is held at one moment; each entry is one of its kind, in words.

    Attributes:
        ops: Operations that were made and have not ended.
        loans: Buffers that an operation has, or that are being viewed.
        fds: Descriptors: of the simulated kernel, or else of the process.
        buffers: Buffers that are out of their pools.
        tasks: Tasks that have not ended.
    """

    ops: dict[object, str]
    loans: dict[object, str]
    fds: dict[object, str]
    buffers: dict[object, str]
    tasks: dict[object, str]

    def since(self, before: "Holdings") -> list[str]:
        """Say what is here now and was not before."""
        return [
            f"{kind[:-1]} {words}"
            for kind in ("ops", "loans", "fds", "buffers", "tasks")
            for key, words in getattr(self, kind).items()
            if key not in getattr(before, kind)
        ]


def holdings(kernel: SimKernel | None = None) -> Holdings:
    """
    Take stock.

    Args:
        kernel: Whose descriptors to look at; by default those of the simulated kernel that runs in
            this thread, or else the process's own.

    What the collector has not come to yet is collected first.
    """
    gc.collect()
    ops: dict[object, str] = {}
    loans: dict[object, str] = {}
    buffers: dict[object, str] = {}
    tasks: dict[object, str] = {}
    running = _running_task()
    for one in gc.get_objects():
        if isinstance(one, Op):
            op = cast("Op[object]", one)
            # An event is what a task of this library waits for; the task is what has leaked.
            if (op.state in _UNDER_WAY or op.state == NEW) and op.code != EVENT:
                ops[id(op), op.use] = repr(op)
        elif isinstance(one, Loan):
            if one.state in _AWAY and not _came_back(one):
                loans[id(one)] = f"of {one.size} bytes, {one.state.name.lower()} {one.went}".strip()
        elif isinstance(one, Pool):
            count = one.stats().out_count
            for number in range(count):
                buffers[id(one), number] = f"{number + 1} of {count} out of its pool"
        elif isinstance(one, Task):
            task = cast("Task[object]", one)
            if not task.finished and task is not running:
                tasks[id(task)] = repr(task)
    if kernel is None:
        kernel = _kernel_here()
    return Holdings(ops, loans, _fds(kernel), buffers, tasks)


@contextmanager
def assert_no_leaks(
    kernel: SimKernel | None = None, *, patience_seconds: float = _PATIENCE_SECONDS
) -> Generator[None, None, None]:
    """
    Fail if the block leaves operations, loans, descriptors, buffers or tasks behind.

    What was there before is no concern of it.  A block that raises is not judged: what it held is
    then kept alive by its traceback.

    Args:
        kernel: As `holdings`.
        patience_seconds: For how long to look again where descriptors of the process are left:
            what a worker thread still has, it closes when its call ends.

    Raises:
        LeakError: Something was left, with each such thing named.

    Example:
        >>> import uringio
        >>> from uringio import testing
        >>> async def main() -> None:
        ...     with testing.assert_no_leaks():
        ...         async with await uringio.listen_tcp("127.0.0.1", 0):
        ...             pass
        >>> uringio.run(main)
    """
    before = holdings(kernel)
    yield
    left = holdings(kernel).since(before)
    deadline = time.monotonic() + patience_seconds
    while left and all(one.startswith("fd ") for one in left) and time.monotonic() < deadline:
        if kernel is not None or _kernel_here() is not None:
            break
        time.sleep(_LOOK_AGAIN_SECONDS)
        left = holdings(kernel).since(before)
    if left:
        raise LeakError("left behind: " + "; ".join(left))


def _came_back(loan: Loan) -> bool:
    """Whether the operation that had it has ended, which the loan learns when it is asked."""
    mover = loan.mover() if loan.mover is not None else None
    return loan.state == State.LENT and (mover is None or mover.came_to_nothing() or mover.done())


def _running_task() -> object:
    scheduler = current.here.scheduler
    return getattr(scheduler, "task", None)


def _kernel_here() -> SimKernel | None:
    driver = current.here.driver
    if driver is not None and isinstance(driver.system, SimSystem):
        return driver.system.kernel
    return None


def _fds(kernel: SimKernel | None) -> dict[object, str]:
    if kernel is not None:
        return {(number, id(file)): f"{number} ({file.kind})" for number, file in kernel.files()}
    found: dict[object, str] = {}
    for name in os.listdir(_FD_FOLDER):
        try:
            target = os.readlink(f"{_FD_FOLDER}/{name}")
        except OSError:
            continue  # the descriptor of this very listing
        found[int(name), target] = f"{name} -> {target}"
    return found
