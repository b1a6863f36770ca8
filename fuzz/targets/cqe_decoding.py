"""Completions are taken all, once, in order and unchanged, wherever the queue's indexes stand."""

from fuzz.choices import Choices
from tests.ring.stand_ins import plain_ring
from tests.ring.test_reap import post
from uringio._ring.queue import Completion, make_reap
from uringio._sys.system import System

SYSTEM = System()


def run(data: bytes) -> None:
    choices = Choices(data)
    entries = 1 << choices.below(5)
    # Mostly so that the indexes wrap within the run.
    start = (choices.number(4) if choices.below(2) else -choices.below(40)) % 2**32
    ring = plain_ring(SYSTEM, entries, entries, start)
    taken: list[Completion] = []
    posted: list[Completion] = []
    reap = make_reap(ring, taken)
    while choices:
        free = entries - (ring.cq_tail[0] - ring.cq_head[0]) % 2**32
        fresh = [
            (choices.number(8), choices.number(4) - 2**31, choices.number(4))
            for _ in range(choices.below(free + 1))
        ]
        post(ring, fresh)
        posted += fresh
        if choices.below(2):
            reap()
            assert taken == posted
            assert ring.cq_head[0] == ring.cq_tail[0]
    reap()
    assert taken == posted
