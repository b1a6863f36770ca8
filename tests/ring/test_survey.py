"""What a kernel has, by each way to learn it, held against one another."""

import errno
from ctypes import c_size_t, c_void_p

import pytest

from tests.kernel import uring_refusal
from tests.ring.stand_ins import RefusesSetups
from uringio._ring.probe import probe_ring
from uringio._ring.setup import Ring, queue_init
from uringio._ring.survey import Survey, ask_surface, survey
from uringio._sys import constants as k
from uringio._sys.layouts import PARAMS, QUERY_HDR
from uringio._sys.system import System
from uringio.errors import OpError

pytestmark = pytest.mark.skipif(uring_refusal() is not None, reason=str(uring_refusal()))

QUERY, PROBE = k.IORING_REGISTER_QUERY, k.IORING_REGISTER_PROBE


class Mute(System):
    """Answers no questions of these numbers; what is only tried reaches the kernel."""

    def __init__(self, *ops: int, number: int = errno.EINVAL) -> None:
        super().__init__()
        self.ops = ops
        self.number = number

    def io_uring_register(self, fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        # A trial of QUERY has a ring, one of PROBE room for a single answer.
        asks = fd < 0 if opcode == QUERY else nr_args > 1
        if opcode in self.ops and asks:
            return -self.number
        return super().io_uring_register(fd, opcode, arg_addr, nr_args)


class Filtered(System):
    """Refuses every registration, as a filter does."""

    def io_uring_register(self, fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        return -errno.EPERM


class Older(Mute):
    """A kernel in which everything ended with what these numbers name."""

    REGISTERS, SETUPS, ENTERS = k.IORING_REGISTER_CLOCK, k.IORING_SETUP_CQE32, 0x1F

    def __init__(self) -> None:
        super().__init__(QUERY)
        real = self.bare_syscall
        real_errno = self.get_errno
        number = 0

        def enter(
            nr: int,
            fd: int,
            submit: int,
            least: int,
            flags: int,
            argp: c_void_p,
            argsz: c_size_t,
            /,
        ) -> int:
            nonlocal number
            if flags & ~self.ENTERS & ~k.IORING_ENTER_NO_IOWAIT:
                number = errno.EINVAL
                return -1
            if fd < 0 and flags & k.IORING_ENTER_NO_IOWAIT:
                number = errno.EINVAL
                return -1
            result = real(nr, fd, submit, least, flags, argp, argsz)
            number = real_errno()
            return result

        self.bare_syscall = enter
        self.get_errno = lambda: number

    def io_uring_register(self, fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        if opcode > self.REGISTERS:
            return -errno.EINVAL
        return super().io_uring_register(fd, opcode, arg_addr, nr_args)

    def io_uring_setup(self, entries: int, params_addr: int) -> int:
        flags: int = PARAMS.unpack(self.memory_at(params_addr, PARAMS.size))[2]
        if flags >= self.SETUPS << 1:
            return -errno.EINVAL
        return super().io_uring_setup(entries, params_addr)


def named(prefix: str) -> set[int]:
    return {value for name, value in vars(k).items() if name.startswith(prefix)}


def surveyed(system: System, ring: Ring | None = None) -> Survey:
    found = survey(system, ring)
    assert found is not None
    return found


@pytest.fixture
def asked() -> Survey:
    """What the kernel says itself."""
    try:
        ask_surface(System())
    except OpError as error:
        pytest.skip(f"this kernel cannot be asked: {error}")
    return surveyed(System())


def test_the_kernel_is_asked_where_it_answers(asked: Survey) -> None:
    """QUERY's counts and flags, with the operations that are built in, and the ring's features."""
    answer = ask_surface(System())
    ring = queue_init(System(), 4)
    try:
        assert asked.source == "query"
        assert asked.opcodes == probe_ring(ring).opcodes
        assert asked.register_ops == set(range(answer.register_ops))
        assert asked.features == answer.features == ring.features
        assert asked.workers is not None
        assert surveyed(System(), ring)._replace(workers=None) == asked._replace(workers=None)
    finally:
        ring.close()


def test_trial_finds_what_the_kernel_says(asked: Survey) -> None:
    """Without QUERY all is tried but the operations: not one flag or registration differs."""
    found = surveyed(Mute(QUERY))
    assert found == asked._replace(
        source="register_probe",
        # A kernel may know what has no name here, and so is not tried.
        register_ops=asked.register_ops & set(range(k.IORING_REGISTER_BPF_FILTER + 1)),
        setup_flags=asked.setup_flags & sum(named("IORING_SETUP_")),
        enter_flags=asked.enter_flags & sum(named("IORING_ENTER_")),
        sqe_flags=asked.sqe_flags & sum(named("IOSQE_")),
    )


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EPERM, errno.ENOSYS])
def test_operations_are_tried_too(number: int) -> None:
    """Without REGISTER_PROBE as well: the same operations, beside those that were left out."""
    known = surveyed(Mute(QUERY))
    found = surveyed(Mute(QUERY, PROBE, number=number))
    assert found == known._replace(source="trial", opcodes=found.opcodes)
    assert found.opcodes >= known.opcodes
    assert found.opcodes == set(range(len(found.opcodes)))


def test_trial_sees_what_is_lacking() -> None:
    """A kernel of fewer registrations and flags: exactly these are found."""
    found = surveyed(Older())
    assert found.register_ops == set(range(Older.REGISTERS + 1))
    assert found.enter_flags == Older.ENTERS
    assert found.setup_flags == sum(flag for flag in named("IORING_SETUP_") if flag <= Older.SETUPS)


def test_what_a_filter_refuses_is_not_taken_for_there() -> None:
    """Where no registration gets through, none is claimed; operations and flags are tried."""
    usual = surveyed(Mute(QUERY, PROBE))
    found = surveyed(Filtered())
    assert found == usual._replace(register_ops=frozenset(), workers=None)


def test_a_kernel_that_makes_no_ring_can_be_asked(asked: Survey) -> None:
    """Where set-up is forbidden, QUERY still tells; what is built in and the caps, it does not."""
    found = surveyed(RefusesSetups(1000, errno.EPERM))
    assert found.opcodes >= asked.opcodes
    assert found == asked._replace(opcodes=found.opcodes, workers=None)


def test_where_nothing_is_to_be_had() -> None:
    """No ring and no answer: nothing is made up."""

    class Closed(Filtered, RefusesSetups):
        pass

    assert survey(Closed(1000, errno.EPERM), None) is None


def test_a_question_that_is_refused_by_its_header() -> None:
    """The call may succeed and the question fail all the same."""

    class Curt(System):
        def io_uring_register(self, fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
            head = self.memory_at(arg_addr, QUERY_HDR.size)
            QUERY_HDR.pack_into(head, 0, 0, 0, 0, 0, -errno.EOPNOTSUPP)
            return 0

    with pytest.raises(OpError, match="register QUERY") as refused:
        ask_surface(Curt())
    assert refused.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF])
def test_a_kernel_too_old_for_the_question(number: int) -> None:
    """The error tells which Linux brought it."""
    with pytest.raises(OpError, match=r"older than Linux 6\.18"):
        ask_surface(Mute(QUERY, number=number))
