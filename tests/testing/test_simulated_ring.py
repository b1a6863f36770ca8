"""The simulated io_uring by itself: the real `_ring` code on it, and what the kernel promises."""

import errno

import pytest

from uringio import testing
from uringio._ring.buffers import BufferRing
from uringio._ring.prep import prep, sqe_head
from uringio._ring.probe import probe_ring
from uringio._ring.queue import Completion, make_reap, make_submit_and_wait
from uringio._ring.register import register_ring_fd, unregister_ring_fd
from uringio._ring.setup import DEFAULT_FLAGS, FLAG_LADDER, Ring, queue_init
from uringio._sys import constants as k
from uringio._sys.errnos import Fate
from uringio._sys.libc import pointer_argument, size_argument
from uringio.errors import OpError, RingError


class Pilot:
    """A ring, and the tail that a driver would keep."""

    def __init__(self, kernel: testing.SimKernel, entries: int = 8, **options: int) -> None:
        self.kernel = kernel
        self.ring: Ring = queue_init(kernel.system, entries, **options)  # type: ignore[arg-type]
        self.enter = make_submit_and_wait(self.ring)
        self.storage: list[Completion] = []
        self.reap = make_reap(self.ring, self.storage)
        self.tail = self.ring.sq_tail[0]

    def put(self, opcode: int, fd: int = -1, user_data: int = 0, **fields: int) -> None:
        head = sqe_head(opcode, fields.pop("flags", 0), fields.pop("ioprio", 0))
        prep(self.ring, self.tail, head, fd, user_data=user_data, **fields)
        self.tail += 1

    def go(self, wait_count: int = 0, timeout_ns: int | None = None) -> list[Completion]:
        self.fate = self.enter(self.tail, wait_count, timeout_ns)
        self.reap()
        found = self.storage[:]
        self.storage.clear()
        return found

    def close(self) -> None:
        self.ring.close()
        for fd in list(self.kernel._fds):
            self.kernel.close_fd(fd)
        assert self.kernel.idle()


@pytest.mark.parametrize(
    ("profile", "flags"),
    [
        ("6.18", FLAG_LADDER[0]), ("6.1", FLAG_LADDER[1]), ("6.0", FLAG_LADDER[2]),
        ("5.19", FLAG_LADDER[3]),
    ],
)  # fmt: skip
def test_each_profile_is_one_rung(profile: str, flags: int) -> None:
    """The ladder ends on the rung for this kernel, and its probe knows that kernel's operations."""
    pilot = Pilot(testing.SimKernel(0, profile))
    assert pilot.ring.flags == flags
    opcodes = probe_ring(pilot.ring).opcodes
    assert (k.IORING_OP_FTRUNCATE in opcodes) == (profile == "6.18")
    assert k.IORING_OP_SEND in opcodes
    pilot.close()


def test_the_plainest_ring_is_asked_in_vain() -> None:
    """There is a ring, without index and probe, and a flag that came later is refused."""
    pilot = Pilot(testing.SimKernel(0, "plain"))
    assert pilot.ring.flags == FLAG_LADDER[3]
    for ask in (probe_ring, register_ring_fd):
        with pytest.raises(OpError) as caught:
            ask(pilot.ring)
        assert caught.value.errno == errno.EINVAL
    system, fd = pilot.kernel.system, pilot.ring.fd
    for flag in (k.IORING_ENTER_NO_IOWAIT, k.IORING_ENTER_ABS_TIMER):
        enter = system.bare_syscall
        assert enter(system.nr_enter, fd, 0, 0, flag, pointer_argument(0), size_argument(0)) == -1
        assert system.get_errno() == errno.EINVAL
    pilot.close()


@pytest.mark.parametrize(
    ("profile", "number"),
    [("5.10", errno.EINVAL), ("blocked", errno.EPERM), ("absent", errno.ENOSYS)],
)
def test_refusing_profiles_refuse(profile: str, number: int) -> None:
    """A kernel that is too old, a filter, and one that hides the call: each with its errno."""
    with pytest.raises(RingError) as caught:
        queue_init(testing.SimKernel(0, profile).system, 8)
    assert caught.value.errno == number


def test_indexes_wrap() -> None:
    """Both queues begin just below 2**32 and go on behind it."""
    wrapped = 0
    for seed in range(5):
        pilot = Pilot(testing.SimKernel(seed))
        start = pilot.ring.sq_head[0]
        assert start == 0 or start >= 2**32 - 16
        got: list[Completion] = []
        for number in range(40):
            pilot.put(k.IORING_OP_NOP, user_data=100 + number)
            got += pilot.go()
        assert got == [(100 + number, 0, 0) for number in range(40)]
        wrapped += pilot.ring.cq_head[0] < start
        pilot.close()
    assert wrapped


def test_task_work_is_deferred_and_bounded() -> None:
    """Woken receives complete in an enter alone, and at most twenty at a time."""
    kernel = testing.SimKernel(1)
    pilot = Pilot(kernel, 64)
    memory = kernel.system.allocate(4096)
    pipes = [kernel.system.pipe() for _ in range(30)]
    for number, (reader, _) in enumerate(pipes):
        kernel.system.set_blocking(reader, True)
        pilot.put(k.IORING_OP_READ, reader, number, addr=memory.addr, len_=8, offset=-1)
    assert pilot.go() == []
    for _, writer in pipes:
        kernel.system.poke(writer)
    kernel.advance_to(kernel.clock.now_ns + 1_000_000)
    assert pilot.ring.sq_flags[0] & k.IORING_SQ_TASKRUN
    assert pilot.ring.cq_head[0] == pilot.ring.cq_tail[0]
    assert len(pilot.go()) == 20
    assert pilot.ring.sq_flags[0] & k.IORING_SQ_TASKRUN
    assert len(pilot.go()) == 10
    assert not pilot.ring.sq_flags[0] & k.IORING_SQ_TASKRUN
    pilot.close()


def test_more_than_twenty_when_more_are_waited_for() -> None:
    """The bound grows to what the enter waits for."""
    kernel = testing.SimKernel(1)
    pilot = Pilot(kernel, 64)
    memory = kernel.system.allocate(4096)
    pipes = [kernel.system.pipe() for _ in range(30)]
    for number, (reader, _) in enumerate(pipes):
        kernel.system.set_blocking(reader, True)
        pilot.put(k.IORING_OP_READ, reader, number, addr=memory.addr, len_=8, offset=-1)
    pilot.go()
    for _, writer in pipes:
        kernel.system.poke(writer)
    assert len(pilot.go(30)) == 30
    pilot.close()


def test_overflow_drops_nothing() -> None:
    """Completions that find no slot wait, under their flag, in their order."""
    pilot = Pilot(testing.SimKernel(2), 8, cq_entries=8)
    for number in range(24):
        pilot.put(k.IORING_OP_NOP, user_data=number)
        if number % 8 == 7:
            pilot.enter(pilot.tail, 0, None)
    assert pilot.ring.sq_flags[0] & k.IORING_SQ_CQ_OVERFLOW
    got = pilot.go() + pilot.go() + pilot.go()
    assert [one[0] for one in got] == list(range(24))
    assert not pilot.ring.sq_flags[0] & k.IORING_SQ_CQ_OVERFLOW
    pilot.close()


def test_old_kernels_are_busy_while_completions_overflow() -> None:
    """Before 6.1 a wait answers EBUSY until the queue has been emptied."""
    pilot = Pilot(testing.SimKernel(2, "5.19"), 8, cq_entries=8)
    for number in range(16):
        pilot.put(k.IORING_OP_NOP, user_data=number)
        if number % 8 == 7:
            pilot.enter(pilot.tail, 0, None)
    assert len(pilot.go()) == 8
    assert pilot.fate is Fate.REAP
    assert len(pilot.go()) == 8
    pilot.close()


def test_wait_ends_at_its_deadline_in_no_time() -> None:
    """An hour's wait takes simulated time alone, and exactly that."""
    kernel = testing.SimKernel(0)
    pilot = Pilot(kernel)
    before_ns = kernel.clock.now_ns
    assert pilot.go(1, 1_800 * 10**9) == []
    assert pilot.fate is Fate.DONE
    assert 0 <= kernel.clock.now_ns - before_ns - 1_800 * 10**9 < 10_000
    pilot.close()


def test_wait_for_nothing_is_a_deadlock() -> None:
    """Without a deadline and without anything to come, the simulation says so."""
    pilot = Pilot(testing.SimKernel(0))
    with pytest.raises(testing.DeadlockError):
        pilot.go(1)
    pilot.close()


@pytest.mark.parametrize("registered", [False, True])
def test_cancel_wins_and_comes_too_late(registered: bool) -> None:
    """A parked request ends with ECANCELED; one that is over is not found."""
    kernel = testing.SimKernel(0)
    ring = queue_init(kernel.system, 8)
    ring.close()
    pilot = Pilot(kernel)
    if registered:
        register_ring_fd(pilot.ring)
        pilot.enter = make_submit_and_wait(pilot.ring)
    memory = kernel.system.allocate(4096)
    reader, _writer = kernel.system.pipe()
    kernel.system.set_blocking(reader, True)
    pilot.put(k.IORING_OP_READ, reader, 7, addr=memory.addr, len_=8, offset=-1)
    assert pilot.go() == []
    pilot.put(k.IORING_OP_ASYNC_CANCEL, addr=7, user_data=8)
    assert sorted(pilot.go(2)) == [(7, -errno.ECANCELED, 0), (8, 0, 0)]
    pilot.put(k.IORING_OP_ASYNC_CANCEL, addr=7, user_data=9)
    assert pilot.go(1) == [(9, -errno.ENOENT, 0)]
    if registered:
        unregister_ring_fd(pilot.ring)
    pilot.close()


def test_provided_buffers_run_out_and_come_back() -> None:
    """Each receive takes the next buffer, ENOBUFS answers at once, and a buffer put back serves."""
    kernel = testing.SimKernel(0)
    system = kernel.system
    pilot = Pilot(kernel)
    buffers = BufferRing(pilot.ring, 0, 2, 16)
    listener = system.socket(system.AF_UNIX, system.SOCK_STREAM)
    system.bind(listener, system.AF_UNIX, "/socket")
    system.listen(listener, 1)
    client = system.socket(system.AF_UNIX, system.SOCK_STREAM)
    raw = bytearray(system.pack_sockaddr(system.AF_UNIX, "/socket"))
    memory = system.allocate(4096)
    memory.view[: len(raw)] = raw
    assert system.connect(client, memory.addr, len(raw)) == 0
    server = system.accept(listener, 0, 0, 0)
    memory.view[:40] = bytes(range(40))
    assert system.send(client, memory.addr, 40, 0) == 40
    kernel.advance_to(kernel.clock.now_ns + 10**9)
    for number in range(3):
        pilot.put(
            k.IORING_OP_RECV, server, number, len_=16, flags=k.IOSQE_BUFFER_SELECT
        )  # fmt: skip
    assert pilot.go() == [
        (0, 16, k.IORING_CQE_F_BUFFER),
        (1, 16, k.IORING_CQE_F_BUFFER | 1 << k.IORING_CQE_BUFFER_SHIFT),
        (2, -errno.ENOBUFS, 0),
    ]
    assert bytes(buffers.memory.view[:32]) == bytes(range(32))
    buffers.publish(3)
    pilot.put(k.IORING_OP_RECV, server, 4, len_=16, flags=k.IOSQE_BUFFER_SELECT)
    assert pilot.go() == [(4, 8, k.IORING_CQE_F_BUFFER)]
    assert bytes(buffers.memory.view[:8]) == bytes(range(32, 40))
    buffers.unregister()
    pilot.close()


def test_enter_faults_answer_and_consume_nothing() -> None:
    """EAGAIN and EINTR at enter leave the requests in the queue, to be handed over again."""
    plan = testing.FaultPlan(exact=(testing.ExactFault("enter", 1, errno.EAGAIN),))
    pilot = Pilot(testing.SimKernel(0, faults=plan))
    pilot.put(k.IORING_OP_NOP, user_data=5)
    assert pilot.go() == []
    assert pilot.fate is Fate.REAP
    assert pilot.go() == [(5, 0, 0)]
    pilot.close()


def test_unknown_operations_are_refused_or_told() -> None:
    """What this kernel does not know is EINVAL; what only the simulation does not is an error."""
    pilot = Pilot(testing.SimKernel(0, "6.1"))
    pilot.put(k.IORING_OP_FTRUNCATE, user_data=1)
    assert pilot.go() == [(1, -errno.EINVAL, 0)]
    pilot.close()
    pilot = Pilot(testing.SimKernel(0))
    pilot.put(k.IORING_OP_EPOLL_WAIT, user_data=1)
    with pytest.raises(testing.NotSimulatedError, match="epoll_wait"):
        pilot.go()
    pilot.close()


def test_nothing_reaches_the_real_kernel() -> None:
    """Every call of `System` is simulated, refused loudly, or about memory and encoding alone."""
    from uringio._sys.system import System

    system = testing.SimKernel(0).system
    assert system.native_poller == "epoll"  # whatever this system has
    real = vars(System())
    same = {
        name for name in real if not name.startswith("_") and getattr(system, name) == real[name]
    }
    assert same <= {"native_poller", "nr_enter", "pointer_bytes", "total_store_order"}
    for refused in (lambda: system.socket_object(0), lambda: system.start_thread(print)):
        with pytest.raises(testing.NotSimulatedError):
            refused()
    with pytest.raises(testing.NotSimulatedError, match="getpid"):
        system._libc.getpid()  # type: ignore[attr-defined]


def test_default_flags_are_the_first_rung() -> None:
    """The newest profile accepts what the library asks for first."""
    assert DEFAULT_FLAGS & ~testing.PROFILES["6.18"].setup_flags == 0


def connected_pair(kernel: testing.SimKernel) -> tuple[int, int]:
    """Connect two Unix sockets, whose bytes arrive at once."""
    system = kernel.system
    listener = system.socket(system.AF_UNIX, system.SOCK_STREAM)
    system.bind(listener, system.AF_UNIX, "/pair")
    system.listen(listener, 1)
    client = system.socket(system.AF_UNIX, system.SOCK_STREAM)
    raw = system.pack_sockaddr(system.AF_UNIX, "/pair")
    memory = system.allocate(4096)
    memory.view[: len(raw)] = raw
    assert system.connect(client, memory.addr, len(raw)) == 0
    return client, system.accept(listener, 0, 0, 0)


def receive_many(kernel: testing.SimKernel, cq_entries: int = 64) -> list[Completion]:
    """Send twelve bytes to a multishot receive with buffers of one byte; what it tells."""
    pilot = Pilot(kernel, 8, cq_entries=cq_entries)
    client, server = connected_pair(kernel)
    buffers = BufferRing(pilot.ring, 0, 16, 1)
    memory = kernel.system.allocate(4096)
    assert kernel.system.send(client, memory.addr, 12, 0) == 12
    pilot.put(
        k.IORING_OP_RECV, server, 7, flags=k.IOSQE_BUFFER_SELECT,
        ioprio=k.IORING_RECV_MULTISHOT,
    )  # fmt: skip
    told: list[Completion] = []
    while found := pilot.go():
        told += found
    pilot.ring.close()
    del buffers
    return told


def test_multishot_requests_end_early() -> None:
    """By a fault, or where no slot is free: with what they have got, and without MORE."""
    told = receive_many(testing.SimKernel(1))
    assert len(told) == 12 and all(one[2] & k.IORING_CQE_F_MORE for one in told)
    kernel = testing.SimKernel(1, faults=testing.FaultPlan(end_shots=1.0))
    ((user_data, result, flags),) = receive_many(kernel)
    assert (user_data, result, flags & 3) == (7, 1, k.IORING_CQE_F_BUFFER)
    kernel = testing.SimKernel(1)
    told = receive_many(kernel, 8)
    assert len(told) == 9
    assert [bool(one[2] & k.IORING_CQE_F_MORE) for one in told] == [True] * 8 + [False]
    assert kernel.notes["multishot ended early"] == kernel.notes["overflow"] == 1
