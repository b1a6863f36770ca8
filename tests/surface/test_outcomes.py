"""Outcomes as values, and the right to block."""

import errno
import threading

import pytest

from tests.marks import needs_pending_errors
from tests.surface.pairs import connected
from tests.surface.schedulers import Scheduler
from uringio import (
    ClosedError,
    Done,
    Ended,
    MayBlock,
    Refused,
    UsageError,
    connect_tcp,
    offload_blocking,
    outcome,
)


@needs_pending_errors
def test_each_outcome_is_a_value(scheduler: Scheduler) -> None:
    """Success, the peer's end and a refusal come back as what they are."""

    async def main() -> None:
        async with connected() as (near, far):
            await near.send_all(b"12345")
            assert await outcome(far.recv_exactly(4)) == Done(b"1234")
            await near.send_eof()
            assert await outcome(far.recv_exactly(4)) == Ended(b"5")
        match await outcome(connect_tcp("127.0.0.1", 1)):
            case Refused(error):
                assert error.errno == errno.ECONNREFUSED
            case other:
                pytest.fail(repr(other))

    scheduler.run(main)


def test_mistakes_and_cancellation_are_raised(scheduler: Scheduler) -> None:
    """They are no answers to branch on."""

    async def main() -> None:
        async with connected() as (near, _):
            task = scheduler.spawn(lambda: outcome(near.recv()))
            await scheduler.checkpoint()
            task.cancel()
            assert (await task.wait()).cancelled
        with pytest.raises(ClosedError):
            await outcome(near.recv_exactly(1))

    scheduler.run(main)


def test_the_right_to_block_is_a_worker_threads(scheduler: Scheduler) -> None:
    """It holds in the thread that got it and nowhere else, and nobody can make one."""
    kept: list[MayBlock] = []
    here = threading.get_ident()

    def work(right: MayBlock, number: int) -> tuple[int, bool]:
        right.check()
        kept.append(right)
        return number + 1, threading.get_ident() == here

    async def main() -> None:
        assert await offload_blocking(work, 41) == (42, False)
        with pytest.raises(UsageError, match="another thread"):
            kept[0].check()

    scheduler.run(main)
    with pytest.raises(TypeError, match="cannot be made"):
        MayBlock()
    with pytest.raises(TypeError, match="sealed"):

        class Mine(MayBlock):  # type: ignore[misc]
            pass
