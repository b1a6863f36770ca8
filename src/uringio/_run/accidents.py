"""
What can break a pass off in the middle, and how the loop goes on.

A signal handler of the program's own may raise at any bytecode of the loop (ours never does).  A
task may then have been taken out of the queue and not have been resumed; it is found by asking each
task what it waits for.

A task may fork.  In the child every other task stops existing, because it goes on in the parent,
and the one that forked is told at each await.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeAlias

from uringio._driver.contract import Driver
from uringio._driver.op import DONE, NEW, READY, SPENT, Op
from uringio.errors import RingForkedError

from .scope import CancelScope
from .task import Task

__all__ = ["empty_for_child", "forked_error", "requeue_lost"]

Ready: TypeAlias = deque[Op[object] | Task[object]]


def requeue_lost(root: CancelScope, ready: Ready, driver: Driver, failure: BaseException) -> None:
    """
    Queue again the tasks that a pass had in its hands when *failure* broke it off.

    One whose operation had not reached the driver gets *failure* instead.
    """
    queued = {id(item.waiter) for item in ready}
    for task in tasks_below(root):
        op = task.op
        if id(task) in queued or task.abort is not None:
            continue
        if op is None or op.waiter is not task or op.state == SPENT:
            ready.append(task)  # it was woken, and nothing else would wake it
        elif op.state == DONE:
            ready.append(op)
        elif op.state == NEW:
            driver.abandon(op)
            task.error = failure
            ready.append(task)


def tasks_below(root: CancelScope) -> Iterator[Task[object]]:
    """Find every task that has not ended."""
    scopes = [root]
    while scopes:
        scope = scopes.pop()
        yield from scope.tasks
        scopes.extend(scope.children)


def empty_for_child(root: CancelScope, ready: Ready, inbox: deque[Callable[[], object]]) -> None:
    """Let nothing of the parent's run in a forked child; a pass may be going through it all."""
    for index in range(len(ready)):
        ready[index] = _nobody()
    for index in range(len(inbox)):
        inbox[index] = _nothing
    for task in tasks_below(root):
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
