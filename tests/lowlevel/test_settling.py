"""What a signal handler breaks off, between completions and their hand-out, is done again."""

import gc
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from uringio.lowlevel import Ring, prep_nop, prep_read

MakeRing = Callable[..., Ring]
SETTLING = {"_hand_out", "_settle_aliased"}


class HandlerError(Exception):
    """What a handler raises."""


class Strike:
    """Raises behind the n-th call that settling makes, as a signal handler might."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "c_return" and frame.f_code.co_name in SETTLING:
            self.left -= 1
            if self.left == 0:
                raise HandlerError

    def during(self, call: Callable[[], object]) -> bool:
        """Make a call; whether it was broken off."""
        sys.setprofile(self)
        try:
            call()
        except HandlerError:
            return True
        finally:
            sys.setprofile(None)
        return False


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


class Tracked(bytearray):
    """A bytearray whose end can be watched."""


@pytest.mark.parametrize("messages", [False, True])
def test_nothing_is_settled_twice_or_never(make_ring: MakeRing, messages: bool) -> None:
    """Behind whichever call it strikes, each completion is handed out once, and nothing is left."""
    ring = make_ring(messages=messages)
    for number in range(1, 100):
        for name in (5, 5, 5, 7):
            prep_nop(ring, user_data=name)
        if not Strike(number).during(lambda: ring.wait(4)):
            break
        assert sorted(name for name, _, _ in ring.take()) == [5, 5, 5, 7], number
        assert ring.in_flight == 0, number
    assert number > 8  # there were calls to strike behind


@pytest.mark.parametrize("messages", [False, True])
def test_memory_stays_for_the_other_request_of_its_name(
    make_ring: MakeRing, messages: bool, pipe: tuple[int, int]
) -> None:
    """Of two requests that share a name, the one in flight keeps its memory through all of this."""
    for number in range(1, 100):
        ring = make_ring(messages=messages)
        memory = Tracked(8)
        alive = weakref.ref(memory)
        prep_read(ring, pipe[0], memory, user_data=5)
        prep_nop(ring, user_data=5)
        del memory
        if not Strike(number).during(lambda ring=ring: ring.wait(1)):  # type: ignore[misc]
            break
        assert [name for name, _, _ in ring.take()] == [5], number
        gc.collect()
        assert alive() is not None, number
        assert ring.in_flight == 1, number
        ring.close()
    assert number > 3
