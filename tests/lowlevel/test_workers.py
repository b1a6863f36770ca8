"""The kernel's worker threads: on which processors, and how many."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel import uring_refusal
from tests.lowlevel.rig import PATIENCE_NS, done, effect
from uringio.lowlevel import RegisterOp, Ring, WorkerKind, prep_splice

TASKS = Path("/proc/self/task")


def in_a_thread(body: Callable[[Ring], None]) -> None:
    """Run *body* on a ring in a thread of its own, whose workers are nobody else's."""
    if refusal := uring_refusal():
        pytest.skip(refusal)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with Ring(16) as ring:
                body(ring)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def workers() -> list[Path]:
    """List the workers of the calling thread."""
    name = f"iou-wrk-{threading.get_native_id()}"
    found = []
    for task in TASKS.iterdir():
        try:
            if (task / "comm").read_text().strip() == name:
                found.append(task)
        except OSError:
            pass  # it has ended meanwhile
    return found


def wait_for_workers(count: int) -> list[Path]:
    """Wait until there are so many."""
    deadline_ns = time.monotonic_ns() + PATIENCE_NS
    while len(found := workers()) < count:
        assert time.monotonic_ns() < deadline_ns, f"only {len(found)} of {count} workers came"
        os.sched_yield()
    return found


class Stalled:
    """Pipes, from the empty one of which splices wait, each in a worker."""

    def __init__(self) -> None:
        self.source, self.filling = os.pipe()
        self.draining, self.target = os.pipe()

    def splice(self, ring: Ring, count: int) -> None:
        """Begin to wait so many times."""
        for number in range(count):
            prep_splice(ring, self.source, -1, self.target, -1, 1, 0, user_data=number)
        ring.submit()

    def release(self, ring: Ring, count: int) -> None:
        """Have them all end."""
        os.close(self.filling)
        assert [one.res for one in done(ring, count)] == [0] * count
        for fd in (self.source, self.draining, self.target):
            os.close(fd)


@effect(RegisterOp.IOWQ_AFF, RegisterOp.UNREGISTER_IOWQ_AFF)
def test_workers_run_where_they_may() -> None:
    """A worker's affinity is what was registered, and all processors when it was taken back."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("there is one processor: nothing to choose")

    def body(ring: Ring) -> None:
        ring.register_iowq_aff({max(allowed)})
        stalled = Stalled()
        stalled.splice(ring, 1)
        [worker] = wait_for_workers(1)
        assert os.sched_getaffinity(int(worker.name)) == {max(allowed)}
        ring.unregister_iowq_aff()
        stalled.splice(ring, 2)
        others = set(wait_for_workers(2)) - {worker}
        assert {max(allowed)} not in [os.sched_getaffinity(int(one.name)) for one in others]
        stalled.release(ring, 3)

    in_a_thread(body)


@effect(RegisterOp.IOWQ_MAX_WORKERS)
@effect(WorkerKind.UNBOUND)
def test_there_are_no_more_workers_than_allowed() -> None:
    """Of four requests that would wait in four workers, two have one, and two wait for theirs."""

    def body(ring: Ring) -> None:
        before = ring.register_iowq_max_workers(unbounded=2)
        assert before[1] > 2
        stalled = Stalled()
        stalled.splice(ring, 4)
        wait_for_workers(2)
        for _ in range(50):
            os.sched_yield()
            assert len(workers()) == 2
        ring.register_iowq_max_workers(unbounded=before[1])
        stalled.release(ring, 4)

    in_a_thread(body)
