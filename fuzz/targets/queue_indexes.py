"""Every request is consumed once and answered once, in order, at the wrap and through overflow."""

from fuzz.choices import Choices
from tests.ring.stand_ins import TinyKernel, plain_ring
from uringio._ring.prep import prep, sqe_head
from uringio._ring.queue import Completion, make_reap, make_submit_and_wait
from uringio._sys import constants as k


def run(data: bytes) -> None:
    choices = Choices(data)
    entries = 1 << choices.below(4)
    cq_entries = entries << choices.below(2)
    kernel = TinyKernel()
    ring = kernel.ring = plain_ring(kernel, entries, cq_entries, -choices.below(64) % 2**32)
    enter = make_submit_and_wait(ring)
    taken: list[Completion] = []
    reap = make_reap(ring, taken)
    tail = ring.sq_tail[0]  # as a driver keeps it: it never wraps
    asked = 0
    head = sqe_head(k.IORING_OP_NOP, 0)

    def go() -> None:
        consumed = ring.sq_head[0]
        enter(tail, 0, None)
        assert (ring.sq_head[0] - consumed) % 2**32 <= entries
        assert ring.sq_tail[0] == tail % 2**32
        reap()
        assert [one[0] for one in taken] == list(range(len(taken)))
        assert [one[1] for one in taken] == [number % 1000 for number in range(len(taken))]

    while choices:
        kernel.take_max = choices.below(entries + 1)
        free = entries - (tail - ring.sq_head[0]) % 2**32
        for _ in range(choices.below(free + 1)):
            prep(ring, tail, head, -1, len_=asked % 1000, user_data=asked)
            tail += 1
            asked += 1
        go()
    kernel.take_max = 1 << 16
    while len(taken) < asked:
        before = len(taken)
        go()
        assert len(taken) > before, f"{asked - len(taken)} requests are answered by nobody"
    assert len(taken) == asked
    ring.close()
