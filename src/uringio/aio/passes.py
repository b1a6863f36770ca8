"""
One pass of the loop, as a flat closure.

A pass makes one turn of the driver, which hands over all that was submitted since the last one and
waits; runs the callbacks that were ready before; wakes whoever the finished ops belong to; runs
what that made ready; and has sent what was written and gathered meanwhile.  So what is scheduled
before something arrives comes before it, as programs expect, and what is scheduled by a callback
waits for the next pass, yet what an arrival schedules, such as the waking of a stream's reader,
costs no turn of its own.

Finished ops are woken directly: a transport's waiter is called, a task's C-level wake-up is called
in the task's context, neither goes through ``call_soon``.

What is called here may raise anything.  KeyboardInterrupt and SystemExit end the run, as in
asyncio; what has not been woken yet stays queued for the next run.  All else goes to the loop's
exception handler.
"""


# A pass is a method of the loop, taken apart.
# pyright: reportPrivateUsage=false

import asyncio
import heapq
from asyncio import base_events
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from uringio._driver.contract import Driver
from uringio._driver.op import SPENT, Op

from .handles import report_failure

if TYPE_CHECKING:
    from .running import RunningLoop

__all__ = ["make_pass"]

_SECONDS_MAX = 86400.0
# Timers that were cancelled leave the heap when they come up, or when they are most of it.
_DEAD_TIMERS_KEPT_MAX = 50


def make_pass(
    loop: "RunningLoop", driver: Driver, completed: deque[Op[object]]
) -> Callable[[], None]:
    """
    Build the function that makes one pass.

    Args:
        loop: Whose callbacks and timers are run.
        driver: Turned once per pass.
        completed: Where the driver delivers.
    """
    ready = loop._ready
    scheduled = loop._scheduled
    take_handle = ready.popleft
    gathering = loop.gathering
    turn = driver.turn
    clock = driver.system.monotonic_ns

    def one_pass() -> None:
        if ready or completed or loop._stopping:
            turn(0)
        elif scheduled:
            turn(next_deadline_ns())
        else:
            turn(None)

        # What ends from here on, such as by being cancelled, waits for what ends along with it.
        arrived = len(completed)
        if ready:
            run_ready()
        later = len(ready)  # what those have scheduled

        if loop._debug:
            wake_watched(arrived)
            arrived = 0
        for _ in range(arrived):
            # By operators alone: behind a call a signal handler might raise, and lose it.
            op = completed[0]
            del completed[0]
            op.state = SPENT
            context = op.context
            try:
                if context is None:
                    op.waiter(op)  # type: ignore[operator]
                else:
                    context.run(op.waiter, op)  # type: ignore[arg-type]
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                op_failed(op, error)

        if scheduled:
            expire()
        if ready and not later:
            run_ready()
        if gathering:
            send_gathered()

    def run_ready() -> None:
        if loop._debug:
            run_watched()
            return
        for _ in range(len(ready)):
            handle = ready[0]
            del ready[0]
            if handle._cancelled:
                continue
            args = handle._args
            try:
                # What futures schedule has one argument, and unpacking costs more than the call.
                if len(args) == 1:
                    handle._context.run(handle._callback, args[0])  # type: ignore[attr-defined]
                else:
                    handle._context.run(handle._callback, *args)  # type: ignore[attr-defined]
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                report_failure(loop, handle, error)

    def send_gathered() -> None:
        for _ in range(len(gathering)):
            transport = gathering[0]
            del gathering[0]
            transport.send_gathered()

    # --- what is seldom --------------------------------------------------------------------------

    def next_deadline_ns() -> int | None:
        if loop._timer_cancelled_count > _DEAD_TIMERS_KEPT_MAX:
            sweep()
        while scheduled and scheduled[0]._cancelled:
            forget_first()
        if not scheduled:
            return None
        seconds = min(scheduled[0].when() - loop.time(), _SECONDS_MAX)
        # One nanosecond more, for what the float rounded away: to wake early is to wake twice.
        return clock() + int(seconds * 1e9) + 1 if seconds > 0 else 0

    def expire() -> None:
        end = loop.time() + loop._clock_resolution
        while scheduled:
            handle = scheduled[0]
            if handle._cancelled:
                forget_first()
            elif not handle.when() >= end:  # NaN is due, as in asyncio: else nothing ever was
                heapq.heappop(scheduled)
                handle._scheduled = False  # type: ignore[attr-defined]
                ready.append(handle)
            else:
                break

    def forget_first() -> None:
        handle = heapq.heappop(scheduled)
        handle._scheduled = False  # type: ignore[attr-defined]
        loop._timer_cancelled_count -= 1

    def sweep() -> None:
        if loop._timer_cancelled_count * 2 <= len(scheduled):
            return
        for handle in scheduled:
            if handle._cancelled:
                handle._scheduled = False  # type: ignore[attr-defined]
        scheduled[:] = [handle for handle in scheduled if not handle._cancelled]
        heapq.heapify(scheduled)
        loop._timer_cancelled_count = 0

    def wake_watched(count: int) -> None:
        """Wake whoever the finished ops belong to, and name those that take long."""
        for _ in range(count):
            op = completed[0]
            del completed[0]
            op.state = SPENT
            context, waiter = op.context, cast("Callable[..., object]", op.waiter)
            began = loop.time()
            try:
                if context is None:
                    waiter(op)
                else:
                    context.run(waiter, op)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                op_failed(op, error)
            seconds = loop.time() - began
            if seconds >= loop.slow_callback_duration:
                warn_of(asyncio.Handle(waiter, (op,), loop, context), seconds)

    def run_watched() -> None:
        """Run what is ready, and name the callbacks that take long."""
        for _ in range(len(ready)):
            handle = take_handle()
            if handle._cancelled:
                continue
            loop._current_handle = handle
            began = loop.time()
            try:
                handle._run()
            finally:
                loop._current_handle = None
            seconds = loop.time() - began
            if seconds >= loop.slow_callback_duration:
                warn_of(handle, seconds)

    def warn_of(handle: asyncio.Handle, seconds: float) -> None:
        # asyncio's own words and logger, which programs look for.
        what = base_events._format_handle(handle)  # type: ignore[attr-defined]
        base_events.logger.warning(  # type: ignore[attr-defined]
            "Executing %s took %.3f seconds", what, seconds
        )

    def op_failed(op: Op[object], error: BaseException) -> None:
        loop.call_exception_handler(
            {
                "message": f"Exception in a done callback of {op!r}",
                "exception": error,
            }
        )

    return one_pass
