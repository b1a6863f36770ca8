"""Making a ring: flags, sizes, refusals, and nothing left behind by any of them."""

import errno
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.fresh import FreshPython
from tests.kernel import uring_refusal
from tests.ring.pilot import Pilot
from tests.ring.stand_ins import RefusesSetups
from uringio._ring.setup import DEFAULT_FLAGS, FLAG_LADDER, Ring, queue_init
from uringio._sys import constants as k
from uringio._sys.layouts import CQE
from uringio._sys.system import Mapping, System
from uringio.errors import OpError, RingError

RUNGS = range(len(FLAG_LADDER))

needs_ring = pytest.mark.skipif(uring_refusal() is not None, reason=str(uring_refusal()))

REFUSALS = {
    errno.EPERM: "seccomp",
    errno.ENOSYS: "kernel",
    errno.EACCES: "security policy",
    errno.ENOMEM: "RLIMIT_MEMLOCK",
    errno.EMFILE: "ulimit -n",
    errno.ENFILE: "fs.file-max",
    errno.EINTR: r"io_uring_setup\(2\)",  # no remedy of its own
}


def ring_mappings() -> int:
    return Path("/proc/self/maps").read_text(encoding="utf-8").count("[io_uring]")


class PokesParameters(System):
    """Overwrites a word of what the kernel says about a new ring."""

    def __init__(self, offset: int, word: int) -> None:
        super().__init__()
        self._offset = offset
        self._word = word

    def io_uring_setup(self, entries: int, params_addr: int) -> int:
        fd = super().io_uring_setup(entries, params_addr)
        self.memory_at(params_addr + self._offset, 4).cast("I")[0] = self._word
        return fd


class RefusesMapping(System):
    """Refuses to map the part of the ring at *offset*."""

    def __init__(self, offset: int) -> None:
        super().__init__()
        self._offset = offset

    def map_ring(self, fd: int, offset: int, len_bytes: int) -> Mapping:
        if offset == self._offset:
            raise OpError(errno.ENOMEM, "no room")
        return super().map_ring(fd, offset, len_bytes)


# --- flags ---------------------------------------------------------------------------------------


def test_default_flags_are_those_of_the_design() -> None:
    """One issuer, deferred completions, whole batches, sizes of our own, no index array."""
    assert {
        name
        for name in vars(k)
        if name.startswith("IORING_SETUP_") and DEFAULT_FLAGS & getattr(k, name)
    } == {
        "IORING_SETUP_SINGLE_ISSUER",
        "IORING_SETUP_DEFER_TASKRUN",
        "IORING_SETUP_TASKRUN_FLAG",
        "IORING_SETUP_SUBMIT_ALL",
        "IORING_SETUP_CQSIZE",
        "IORING_SETUP_CLAMP",
        "IORING_SETUP_NO_SQARRAY",
    }


def test_ladder_only_gives_things_up() -> None:
    """Each rung lacks a newer flag; cooperative task work alone takes the place of deferred."""
    assert FLAG_LADDER[0] == DEFAULT_FLAGS
    for above, below in pairwise(FLAG_LADDER):
        assert above & ~below
        assert not below & ~above & ~k.IORING_SETUP_COOP_TASKRUN


@needs_ring
def test_best_rung_is_asked_for_first() -> None:
    """The ring has the first flags of the ladder that this kernel takes."""
    asking = RefusesSetups(0)
    ring = queue_init(asking, 8)
    assert asking.flags_tried == list(FLAG_LADDER[: len(asking.flags_tried)])
    assert ring.flags == asking.flags_tried[-1]
    ring.close()


@pytest.mark.parametrize("rung", RUNGS)
def test_every_rung_makes_a_ring_that_works(rung: int, make_pilot: Callable[..., Pilot]) -> None:
    """Also the rungs that a new kernel never needs: more requests than slots, all complete."""
    try:
        pilot = make_pilot(4, ladder=(FLAG_LADDER[rung],))
    except RingError as refusal:
        pytest.skip(str(refusal))
    assert pilot.ring.flags == FLAG_LADDER[rung]
    assert pilot.ring.deferred == bool(FLAG_LADDER[rung] & k.IORING_SETUP_DEFER_TASKRUN)
    for first in range(0, 30, 3):
        pilot.put_nops(3, first)
        assert [user for user, _, _ in pilot.collect(3)] == [first, first + 1, first + 2]


@pytest.mark.parametrize("count", RUNGS)
@needs_ring
def test_einval_steps_down(count: int) -> None:
    """Each refusal for EINVAL costs one rung, and the ring has the flags of the one that held."""
    refusing = RefusesSetups(count)
    try:
        ring = queue_init(refusing, 8)
    except RingError as refusal:
        pytest.skip(str(refusal))
    assert refusing.flags_tried == list(FLAG_LADDER[: count + 1])
    assert ring.flags == FLAG_LADDER[count]
    ring.close()


def test_ladder_ends() -> None:
    """When no rung holds, the error is EINVAL with what it means, after one try each."""
    refusing = RefusesSetups(1000)
    with pytest.raises(RingError, match=r"Linux 5\.19") as refused:
        queue_init(refusing, 8)
    assert refused.value.errno == errno.EINVAL
    assert refusing.flags_tried == list(FLAG_LADDER)


@pytest.mark.parametrize("number", sorted(REFUSALS), ids=lambda one: errno.errorcode[one])
def test_other_refusals_end_at_once(number: int) -> None:
    """Blocked or short of something: fewer flags would not help, and the error says what would."""
    refusing = RefusesSetups(1, number)
    with pytest.raises(RingError, match=REFUSALS[number]) as refused:
        queue_init(refusing, 8)
    assert isinstance(refused.value, OSError)
    assert refused.value.errno == number
    assert refused.value.remedy in str(refused.value)
    assert os.strerror(number) in str(refused.value)
    assert len(refusing.flags_tried) == 1


def test_no_descriptor_left(fresh_python: FreshPython) -> None:
    """The real kernel's EMFILE reaches the user with its remedy."""
    if refusal := uring_refusal():
        pytest.skip(refusal)
    fresh_python("""
        import errno, os, resource
        from uringio._ring.setup import queue_init
        from uringio._sys.system import real_system
        from uringio.errors import RingError
        system = real_system()
        queue_init(system, 4).close()
        used = [int(name) for name in os.listdir("/proc/self/fd")]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(used), max(used)))
        held = []
        try:
            while True:
                held.append(queue_init(system, 4))
        except RingError as error:
            assert error.errno == errno.EMFILE, error
            assert "ulimit -n" in error.remedy
        for ring in held:
            ring.close()
    """).check()


# Installs a seccomp filter that answers EPERM to the system call whose number is given, then goes
# on; ends with status 77 where the kernel lets nobody do so.
SECCOMP = """
import ctypes, struct, sys
def forbid(number):
    libc = ctypes.CDLL(None, use_errno=True)
    code = [
        (0x20, 0, 0, 0),                # load the system call's number
        (0x15, 0, 1, number),           # if it is the one,
        (0x06, 0, 0, 0x00050000 | 1),   # answer EPERM,
        (0x06, 0, 0, 0x7FFF0000),       # else allow
    ]
    filters = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in code))
    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    program = Program(len(code), ctypes.addressof(filters))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program)):
        print("prctl:", ctypes.get_errno())
        sys.exit(77)
"""


@pytest.mark.parametrize(
    ("when", "program"),
    [
        (
            "before set-up",
            """
            forbid(425)
            try:
                queue_init(real_system(), 4)
            except RingError as error:
                assert error.errno == errno.EPERM, error
                assert "seccomp" in str(error)
                assert "another backend" in str(error)
            else:
                raise AssertionError("the filter let it through")
            """,
        ),
        (
            "after set-up",
            """
            ring = queue_init(real_system(), 4)
            submit_and_wait = make_submit_and_wait(ring)
            submit_and_wait(0, 0, None)
            forbid(426)
            try:
                submit_and_wait(0, 0, None)
            except RingError as error:
                assert error.errno == errno.EPERM, error
                assert "seccomp" in str(error)
            else:
                raise AssertionError("the filter let it through")
            ring.close()
            """,
        ),
    ],
)
def test_seccomp_is_named(when: str, program: str, fresh_python: FreshPython) -> None:
    """A filter that forbids io_uring, as containers have, is what the error speaks of."""
    del when
    if refusal := uring_refusal():
        pytest.skip(refusal)
    imports = """
import errno
from uringio._ring.queue import make_submit_and_wait
from uringio._ring.setup import queue_init
from uringio._sys.system import real_system
from uringio.errors import RingError
"""
    lines = [line.removeprefix(" " * 12) for line in program.splitlines()]
    ran = fresh_python(SECCOMP + imports + "\n".join(lines))
    if ran.returncode == 77:
        pytest.skip(f"seccomp filters cannot be installed here: {ran.stdout}")
    ran.check()


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "made"),
    [(1, 1), (2, 2), (3, 4), (8, 8), (9, 16), (1000, 1024), (32768, 32768), (40_000, 32768)],
)
def test_entries_are_rounded_up_and_clamped(
    asked: int, made: int, make_pilot: Callable[..., Pilot]
) -> None:
    """A power of two, at most the kernel's maximum; four times as many completions."""
    ring = make_pilot(asked).ring
    assert ring.sq_entries == made
    assert ring.cq_entries == min(4 * made, 65536)
    assert len(ring.sqes) == made * k.SIZEOF_SQE
    assert len(ring.cqes) == ring.cq_entries * k.SIZEOF_CQE


def test_entries_beyond_any_kernels_integers(make_pilot: Callable[..., Pilot]) -> None:
    """A number of more than 32 bits is clamped, and is not cut to its lower half."""
    assert make_pilot((1 << 40) + 1).ring.sq_entries == 32768


@pytest.mark.parametrize(
    ("entries", "asked", "made"),
    [(8, 8, 8), (8, 9, 16), (8, 1000, 1024), (3, 4, 4), (8, 1 << 40, 65536)],
)
def test_completion_slots_can_be_chosen(
    entries: int, asked: int, made: int, make_pilot: Callable[..., Pilot]
) -> None:
    """Rounded and clamped in the same way."""
    assert make_pilot(entries, cq_entries=asked).ring.cq_entries == made


@pytest.mark.parametrize(
    ("entries", "cq_entries"), [(0, None), (-1, None), (8, 4), (9, 8), (8, 0), (8, -8)]
)
def test_impossible_sizes_are_refused_by_name(entries: int, cq_entries: int | None) -> None:
    """What no kernel could make is a ValueError; the ladder is not tried on it."""
    refusing = RefusesSetups(1000)
    with pytest.raises(ValueError, match=r"entry|slots"):
        queue_init(refusing, entries, cq_entries=cq_entries)
    assert refusing.flags_tried == []


def test_processes_of_32_bits_are_refused(system: System) -> None:
    """Structures with pointers are laid out for 64; nothing is asked of the kernel."""
    system.pointer_bytes = 4
    with pytest.raises(RingError, match=r"64-bit process.*another backend"):
        queue_init(system, 8)


def test_empty_ladder_is_refused() -> None:
    """There must be flags to try."""
    with pytest.raises(ValueError, match="ladder"):
        queue_init(System(), 8, ladder=())


def test_every_rung_asks_for_the_same_sizes() -> None:
    """What a refused set-up wrote into the parameters does not reach the next."""
    refusing = RefusesSetups(1000)
    with pytest.raises(RingError):
        queue_init(refusing, 5, cq_entries=100)
    assert set(refusing.sizes_tried) == {(8, 128)}


# --- what comes back -----------------------------------------------------------------------------


def test_descriptor_is_not_inherited(pilot: Pilot) -> None:
    """A child process started by exec gets no ring."""
    assert not os.get_inheritable(pilot.ring.fd)


def test_words_start_at_zero(pilot: Pilot) -> None:
    """A new ring is empty on both sides, and nothing was dropped."""
    ring = pilot.ring
    words = (
        ring.sq_head,
        ring.sq_tail,
        ring.sq_dropped,
        ring.cq_head,
        ring.cq_tail,
        ring.cq_overflow,
    )
    assert [word[0] for word in words] == [0] * 6
    assert {(len(word), word.itemsize) for word in words} == {(1, 4)}


@pytest.mark.parametrize(
    ("refusing", "number", "words"),
    [
        (PokesParameters(20, 0), errno.ENOSYS, "too old"),
        (PokesParameters(20, k.IORING_FEAT_SINGLE_MMAP), errno.ENOSYS, "Linux 5.19"),
        (PokesParameters(0, 3), errno.EPROTO, "powers of two"),
        (PokesParameters(4, 33), errno.EPROTO, "powers of two"),
        (PokesParameters(0, 0), errno.EPROTO, "fit together"),
        (PokesParameters(0, 4), errno.EPROTO, "masks"),
        (PokesParameters(4, 16), errno.EPROTO, "masks"),
        (RefusesMapping(k.IORING_OFF_SQ_RING), errno.ENOMEM, "no room"),
        (RefusesMapping(k.IORING_OFF_SQES), errno.ENOMEM, "no room"),
    ],
)
@needs_ring
def test_ring_that_cannot_be_used_leaves_nothing(refusing: System, number: int, words: str) -> None:
    """Too old, inconsistent or not mappable: an error, no descriptor, no mapping."""
    before = ring_mappings()
    with pytest.raises(OSError, match=words) as refused:
        queue_init(refusing, 8)
    assert refused.value.errno == number
    assert ring_mappings() == before


@pytest.mark.parametrize("rung", RUNGS)
def test_processor_that_reorders_needs_deferred_completions(rung: int, system: System) -> None:
    """Elsewhere another processor may post while we look, and Python has no barrier."""
    system.total_store_order = False
    ladder = (FLAG_LADDER[rung],)
    try:
        queue_init(System(), 8, ladder=ladder).close()
    except RingError as refusal:
        pytest.skip(str(refusal))
    if FLAG_LADDER[rung] & k.IORING_SETUP_DEFER_TASKRUN:
        queue_init(system, 8, ladder=ladder).close()
    else:
        with pytest.raises(RingError, match=r"Linux 6\.1") as refused:
            queue_init(system, 8, ladder=ladder)
        assert refused.value.errno == errno.ENOSYS


# --- the end -------------------------------------------------------------------------------------


def test_closing_gives_everything_back(system: System) -> None:
    """Descriptor and mappings are gone after the first close; a second closes nobody else's."""
    mappings, fds = ring_mappings(), set(Path("/proc/self/fd").iterdir())
    ring = queue_init(system, 8)
    fd = ring.fd
    assert ring_mappings() > mappings
    ring.close()
    assert ring_mappings() == mappings
    assert set(Path("/proc/self/fd").iterdir()) == fds
    assert ring.fd == -1
    other = os.open("/dev/null", os.O_RDONLY)
    assert other == fd
    ring.close()
    os.fstat(other)
    os.close(other)


@needs_ring
@pytest.mark.parametrize("rung", RUNGS)
def test_forked_child_can_close_its_copy(rung: int, fresh_python: FreshPython) -> None:
    """
    What a child inherits it can let go of, and the parent never notices.

    Its ring, its registered index and its requests in flight go on.
    """
    fresh_python(
        """
        import os, sys
        from uringio._ring.prep import prep, sqe_head
        from uringio._ring.queue import make_reap, make_submit_and_wait
        from uringio._ring.register import register_ring_fd
        from uringio._ring.setup import FLAG_LADDER, queue_init
        from uringio._sys.constants import IORING_OP_NOP, IORING_OP_READ
        from uringio._sys.memory import Memory
        from uringio._sys.system import real_system
        from uringio.errors import RingError
        try:
            ring = queue_init(real_system(), 4, ladder=(FLAG_LADDER[int(sys.argv[1])],))
        except RingError:
            sys.exit(0)  # a kernel without this rung
        register_ring_fd(ring)
        taken, memory = [], Memory(4096)
        enter, reap = make_submit_and_wait(ring), make_reap(ring, taken)
        read_fd, write_fd = os.pipe()
        prep(ring, 0, sqe_head(IORING_OP_READ), read_fd, addr=memory.addr, len_=100, user_data=1)
        enter(1, 0, None)
        pid = os.fork()
        if pid == 0:
            ring.close()
            os._exit(0 if ring.fd == -1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        prep(ring, 1, sqe_head(IORING_OP_NOP), -1, user_data=2)
        enter(2, 1, None)
        reap()
        os.write(write_fd, b"after the fork")
        enter(2, 1, None)
        reap()
        assert taken == [(2, 0, 0), (1, 14, 0)], taken
        assert memory.slices[:14] == b"after the fork"
        ring.close()
        """,
        str(rung),
    ).check()


def test_closures_raise_after_close(make_pilot: Callable[..., Pilot]) -> None:
    """A late call is an exception, not a touch of memory that is no longer there."""
    pilot = make_pilot()
    pilot.put_nops(1)
    pilot.ring.close()
    for late in (
        pilot.enter,
        lambda: pilot.enter(1, 1000),
        pilot.reap,
        pilot.consumed,
        lambda: pilot.put_nops(1),
    ):
        with pytest.raises((ValueError, TypeError), match=r"released|read-write"):
            late()


def test_close_waits_for_exports(make_pilot: Callable[..., Pilot]) -> None:
    """Memory that somebody iterates over is not unmapped under their feet."""
    ring: Ring = make_pilot().ring
    walk = CQE.iter_unpack(ring.cqes)
    with pytest.raises(BufferError):
        ring.close()
    assert ring.fd >= 0
    os.fstat(ring.fd)
    assert next(walk) == (0, 0, 0)
    del walk
    ring.close()
    assert ring.fd == -1
