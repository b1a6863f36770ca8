"""H45: a group that fails ends when the kernel has let go of what its children had."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import uringio
from tests.surface.pairs import with_peer
from tests.surface.schedulers import Scheduler
from uringio import Buffer, SocketStream
from uringio._driver import current
from uringio._own.loans import State

# A tree: a leaf says how it ends, an inner node what its children are.
Tree = str | list["Tree"]
TREES = st.recursive(
    st.sampled_from(["waits", "fails", "returns", "waits and fails"]),
    lambda children: st.lists(children, min_size=1, max_size=4),
    max_leaves=12,
)


class Fault(Exception):
    """What a leaf raises."""


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=TREES)
def test_no_child_leaves_its_memory_with_the_kernel(scheduler: Scheduler, tree: Tree) -> None:
    """Whoever fails, wherever: behind the group nothing is in flight, and all memory is back."""
    buffers: list[Buffer] = []

    async def leaf(kind: str, stream: SocketStream) -> None:
        buffer = Buffer(100)
        buffers.append(buffer)
        if "waits" in kind:
            try:
                await stream.recv_into(buffer)
            finally:
                if "fails" in kind:
                    raise Fault
        if kind == "fails":
            await scheduler.checkpoint()
            raise Fault

    async def grow(tree: Tree, streams: list[SocketStream]) -> None:
        if isinstance(tree, str):
            await leaf(tree, streams.pop())
        elif scheduler.name == "native":
            async with uringio.TaskGroup() as group:
                for child in tree:
                    group.start_soon(grow, child, streams)
        else:
            async with asyncio.TaskGroup() as edges:
                for child in tree:
                    edges.create_task(grow(child, streams))

    async def main() -> None:
        driver = current.driver()
        in_flight = driver.statistics().in_flight
        pairs = [with_peer() for _ in range(_leaves(tree))]
        streams = [(await pair.__aenter__())[0] for pair in pairs]
        with suppress(TimeoutError):
            try:
                await _within(scheduler, grow(tree, list(streams)))
            except* Fault:
                pass
        assert driver.statistics().in_flight == in_flight
        for buffer in buffers:
            assert buffer.size == 100  # its handle opens it again
            assert buffer.loan.state == State.IDLE
        for pair in pairs:
            await pair.__aexit__(None, None, None)

    scheduler.run(main)


def _leaves(tree: Tree) -> int:
    return 1 if isinstance(tree, str) else sum(map(_leaves, tree))


async def _within(scheduler: Scheduler, work: Coroutine[object, None, None]) -> None:
    """Await *work*, of which a part may wait for ever, for a moment."""
    if scheduler.name == "native":
        with uringio.timeout(0.005):
            await work
    else:
        async with asyncio.timeout(0.005):
            await work
