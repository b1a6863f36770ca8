"""
What can break a pass off in the middle, and how the loop goes on.

A signal handler of the program's own may raise at any bytecode of the loop (ours never does).  A
task may then have been taken out of the queue and not resumed, have yielded what was not submitted,
or have ended without anybody knowing.  Nothing that the loop remembers of it can be relied upon, so
each task is asked: its coroutine knows where it stands.

A task may fork.  In the child every other task stops existing, because it goes on in the parent,
and the one that forked is told at each await.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeAlias, cast

from uringio._driver.contract import Driver
from uringio._driver.op import (
    ACCEPT,
    CANCELLING,
    CLOSE,
    DONE,
    NEW,
    READY,
    RECV,
    RECV_LEASE,
    RECVMSG,
    SPENT,
    SUBMITTED,
    Op,
)
from uringio.errors import RingForkedError

from .task import Task

__all__ = [
    "abandon",
    "abandon_awaited",
    "empty_for_child",
    "forked_error",
    "has_ended",
    "requeue_lost",
]

# What has a value whenever it succeeds.
_VALUED = frozenset({ACCEPT, RECV, RECV_LEASE, RECVMSG})

Ready: TypeAlias = deque[Op[object] | Task[object]]


def requeue_lost(
    tasks: Iterable[Task[object]], ready: Ready, driver: Driver, failure: BaseException
) -> None:
    """
    Queue again those of *tasks* that nothing would wake, after *failure* broke a pass off.

    What they waited for is lost, unless the driver still holds it; they get *failure* instead.
    """
    queued = {id(item.waiter) for item in ready}
    for task in tasks:
        if id(task) in queued or task.abort is not None:
            continue
        op = task.op
        state = op.state if op is not None and op.waiter is task else SPENT
        if state == DONE and op is not None and op.code in _VALUED and op.error is op.value is None:
            continue  # the driver is in the middle of ending it as cancelled, and goes on
        if op is not None and (state == DONE or (state == SPENT and op.value is not None)):
            ready.append(op)  # its outcome has not been taken
        elif state not in {SUBMITTED, CANCELLING}:
            if getattr(task.coroutine, "cr_suspended", True):
                abandon_awaited(task, driver)
                task.error = failure
            ready.append(task)


def abandon_awaited(task: Task[object], driver: Driver) -> None:
    """Let go of the operation that *task* has yielded, if it was not submitted."""
    inner: object = task.coroutine
    while inner is not None:
        frame = getattr(inner, "gi_frame", None)
        found = frame.f_locals.get("self") if frame is not None else None
        if isinstance(found, Op):
            op = cast("Op[object]", found)
            if op.state == NEW:
                abandon(op, driver)
        inner = getattr(inner, "cr_await", None) or getattr(inner, "gi_yieldfrom", None)


def abandon(op: Op[object], driver: Driver) -> None:
    """Let go of an operation that will not be made; one that was to close a descriptor does it."""
    if op.code == CLOSE:
        driver.unregister(op.fd)
        driver.system.close(op.fd)  # nobody else knows it any more
    driver.abandon(op)


def has_ended(task: Task[object]) -> bool:
    """Whether the task's coroutine has returned or raised, whatever the loop knows of it."""
    return getattr(task.coroutine, "cr_frame", task) is None


def empty_for_child(
    tasks: Iterable[Task[object]], ready: Ready, inbox: deque[Callable[[], object]]
) -> None:
    """Let nothing of the parent's run in a forked child; a pass may be going through it all."""
    for index in range(len(ready)):
        ready[index] = _nobody()
    for index in range(len(inbox)):
        inbox[index] = _nothing
    for task in tasks:
        task.attention = True
        task.interrupt = forked_error()


def forked_error() -> RingForkedError:
    """Build the error for going on with the parent's loop."""
    return RingForkedError(
        "this process was forked while the loop ran: the loop belongs to the parent. Start a new "
        "one in the child with uringio.run()"
    )


def _nobody() -> Op[object]:
    op: Op[object] = Op(READY)
    op.state = SPENT
    return op


def _nothing() -> None:
    """Stand in a place of the inbox."""
