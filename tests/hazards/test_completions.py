"""H12-H18: completions that come late, twice, for nobody, or not at once."""

import os
import random
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import uringio
from tests.driver.rig import RINGS, Rig, connected, in_thread
from tests.ring.pilot import Pilot
from uringio._driver import op as o
from uringio._driver.op import Op
from uringio._ring.setup import queue_init
from uringio._sys.system import System

OP_MSG_RING = 40  # Linux 5.18


def ring_fds() -> set[int]:
    """Find the descriptors that are rings."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if "io_uring" in target:
            found.add(int(name))
    return found


class Forger:
    """A second ring that posts completions of its choice to a driver's."""

    def __init__(self, target_fd: int) -> None:
        self.target_fd = target_fd
        self.pilot = Pilot(queue_init(System(), 8))

    def post(self, user_data: int, res: int, flags: int = 0) -> None:
        """Post one; *flags* only where the kernel forwards them."""
        self.pilot.put(OP_MSG_RING, self.target_fd, offset=user_data, len_=res & 0xFFFFFFFF)
        [(_, answer, _)] = self.pilot.collect(1)
        assert answer == 0, os.strerror(-answer)


@pytest.fixture
def forge(make_rig: Callable[..., Rig]) -> Callable[[str], "contextmanager[tuple[Rig, Forger]]"]:
    """Make a driver and who forges its completions."""

    @contextmanager
    def make(kind: str) -> Iterator[tuple[Rig, Forger]]:
        before = ring_fds()
        rig = make_rig(kind)
        [fd] = ring_fds() - before
        forger = Forger(fd)
        try:
            yield rig, forger
        finally:
            forger.pilot.ring.close()

    return make


@pytest.mark.parametrize("kind", RINGS)
def test_completions_of_nobody_are_counted_and_dropped(
    forge: "Callable[[str], contextmanager[tuple[Rig, Forger]]]", kind: str
) -> None:
    """Stale, duplicate and unknown completions end no operation, neither old nor new."""
    with forge(kind) as (rig, forger), connected(rig) as (ours, theirs):
        spent = rig.recv(ours.fileno())
        theirs.sendall(b"first")
        used = spent.use
        assert rig.finish(spent) == b"first"
        waiting = rig.recv(ours.fileno())
        memory = bytearray(100)
        rig.settle_down()
        for user_data in (used, used, 0xFFFF_FFFF_FFFF, waiting.use + 1000):
            forger.post(user_data, 5)
        for _ in range(3):
            rig.turn()
        assert not rig.is_delivered(waiting)
        assert rig.driver.statistics().stray == 4
        theirs.sendall(b"second")
        assert rig.finish(waiting) == b"second"
        assert memory == bytes(100)
        assert rig.do(Op(o.NOP)) == 0
        assert rig.in_flight() == 0


@pytest.mark.parametrize("kind", RINGS)
def test_two_buffers_carry_any_stream(make_rig: Callable[..., Rig], kind: str) -> None:
    """Streams that share two provided buffers, read slowly, get every byte once, in order."""
    rig = make_rig(kind, buffer_count=2, buffer_count_max=2, buffer_bytes=4096)
    sizes = [200_000 + 1000 * n for n in range(6)]
    payloads = [random.randbytes(size) for size in sizes]
    with (
        connected(rig) as a, connected(rig) as b, connected(rig) as c,
        connected(rig) as d, connected(rig) as e, connected(rig) as f,
    ):  # fmt: skip
        ends = [a, b, c, d, e, f]
        threads = [
            in_thread(partial(_send_all, theirs, data))
            for (_, theirs), data in zip(ends, payloads, strict=True)
        ]
        received = [bytearray() for _ in ends]
        pending = {n: rig.recv(ends[n][0].fileno()) for n in range(len(ends))}
        while pending:
            rig.until(lambda: any(rig.is_delivered(op) for op in pending.values()))
            for n, op in list(pending.items()):
                if not rig.is_delivered(op) or random.random() < 0.3:
                    continue  # nobody is in a hurry
                received[n] += rig.finish(op)
                if len(received[n]) < sizes[n]:
                    pending[n] = rig.recv(ends[n][0].fileno())
                else:
                    del pending[n]
        for thread in threads:
            thread.join()
        assert received == payloads


def _send_all(end: socket.socket, data: bytes) -> None:
    end.sendall(data)


def test_no_operation_depends_on_another_in_the_kernel() -> None:
    """
    No request of the runtime is linked to the next, and one kind alone completes more than once.

    So there is no chain that a short transfer could break.  The ends of receives that stand are
    those of `tests/driver/test_standing.py`, and there is no other multishot's to overlook.  The
    names of the flags for both stand in the list of constants, and where programs make their
    own requests (`lowlevel`), a kernel is simulated (`testing`) or operations are listed (`cli`),
    and nowhere else.
    """
    flag = re.compile(r"\b(IOSQE_IO_LINK|IOSQE_IO_HARDLINK|\w*MULTISHOT|IORING_POLL_ADD_MULTI)\b")
    package = Path(uringio.__file__).parent
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] not in {"lowlevel", "testing", "cli"}
        and flag.search(path.read_text(encoding="utf-8"))
    }
    assert users == {
        "_sys/constants.py",
        "_driver/uring_standing.py",
        "_driver/uring_settles.py",
    }
