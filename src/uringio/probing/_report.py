"""
The probe: make a driver as every program does, have it carry out an operation, and look.

Nothing is concluded from version numbers: the backend is chosen by the driver's own choice, the
features are those of the ring that it made, whether that ring works is seen by a NOP's return, and
what else the kernel has it says itself, or shows when it is tried.
"""

import os
import platform
import resource
import warnings
from typing import Final, NamedTuple

from uringio._driver.choice import ENTRIES_LADDER, VARIABLE, chosen_backend, make_driver
from uringio._driver.contract import Driver
from uringio._driver.op import NOP as NOP_OPERATION
from uringio._driver.op import OPERATION_NAMES, Op
from uringio._driver.uring import UringDriver
from uringio._driver.uring_files import SHAPED
from uringio._driver.uring_rows import CANCEL_HEAD, HEADS, SLOW_HEADS
from uringio._ring.probe import probe_ring
from uringio._ring.setup import FLAG_LADDER, LADDER_RELEASES, Ring
from uringio._ring.survey import Survey, survey
from uringio._sys import constants as k
from uringio._sys.system import System, real_system
from uringio.errors import UnsupportedError

from ._refusals import Refusal, Surroundings, explain, look_around
from ._surface import Surface, describe

__all__ = [
    "Feature",
    "Limit",
    "Machine",
    "Operation",
    "Report",
    "RingReport",
    "Workers",
    "probe",
    "probe_on",
]

# A NOP completes within the very call that submits it; this is for a machine that is busy.
_NOP_NS: Final = 5_000_000_000


class Machine(NamedTuple):
    """
    Where this runs.

    Attributes:
        kernel: The release.
        architecture: The processor's, such as ``"x86_64"``.
        libc: The C library with its version where that is known, such as ``"glibc 2.36"``.
        python: The interpreter and its version.
        container: The engine that runs this process, as far as that can be seen.
        seccomp: ``"off"``, ``"strict"``, ``"filter"``; None where it cannot be seen.
        sysctl_disabled: ``kernel.io_uring_disabled``: 0 lets everybody use io_uring, 1 root and
            `sysctl_group`, 2 nobody; None where the kernel has no such switch.
        sysctl_group: ``kernel.io_uring_group``, -1 for none.
        system: The system's name, such as ``"Linux"``.
    """

    kernel: str
    architecture: str
    libc: str | None
    python: str
    container: str | None
    seccomp: str | None
    sysctl_disabled: int | None
    sysctl_group: int | None
    system: str = "Linux"


class Feature(NamedTuple):
    """
    Something of io_uring that uringio uses.

    Attributes:
        name: The kernel's name for it.
        since: The first release that has it.
        here: Whether it is to be had.
        purpose: What it is used for.
        otherwise: What happens without.
    """

    name: str
    since: str
    here: bool
    purpose: str
    otherwise: str


class Operation(NamedTuple):
    """
    An operation of io_uring that uringio uses.

    Attributes:
        name: The opcode, such as ``"IORING_OP_RECV"``.
        here: Whether this kernel has it.
        otherwise: What happens without: ``"thread"``, a worker thread makes the system call;
            ``"copy"``, the kernel copies what it would not have; ``"none"``, what needs it fails.
        serves: Operations of uringio that it carries out.
    """

    name: str
    here: bool
    otherwise: str
    serves: tuple[str, ...]


class RingReport(NamedTuple):
    """
    The ring that was made.

    Attributes:
        rung: Which of the sets of flags was accepted, 1 for the newest; of `rungs`.
        rungs: How many sets there are.
        rung_since: The first release that accepts it.
        flags: The set-up flags, by the kernel's names.
        submission_slots, completion_slots: The queues' sizes.
        features: What uringio uses.
        operations: What uringio uses.
    """

    rung: int
    rungs: int
    rung_since: str
    flags: tuple[str, ...]
    submission_slots: int
    completion_slots: int
    features: tuple[Feature, ...]
    operations: tuple[Operation, ...]


class Limit(NamedTuple):
    """
    A resource limit of this process; None is: without limit.

    Attributes:
        soft: What holds.
        hard: What it may be raised to.
    """

    soft: int | None
    hard: int | None


class Workers(NamedTuple):
    """
    How many worker threads the kernel may give the rings of one thread.

    Attributes:
        bounded: For files and block devices.
        unbounded: For what may wait for ever, such as sockets.
    """

    bounded: int
    unbounded: int


class Report(NamedTuple):
    """
    All that `probe` has found.

    Attributes:
        machine: Where this runs.
        works: Whether io_uring works: a ring was made, and an operation came back from it.
        refusal: Why it does not, None where it does.
        backend: What `uringio.run` takes here when not told otherwise, such as ``"uring"``;
            None where it fails.
        backend_reason: Why, for people.
        ring: The ring, None where none could be made.
        open_files: RLIMIT_NOFILE. [count]
        locked_memory: RLIMIT_MEMLOCK. [bytes]
        workers: The kernel's caps for this thread's rings, None where they cannot be asked.
        surface: What the kernel has, whether or not uringio uses it and may use it; None where it
            neither tells nor lets itself be tried.
    """

    machine: Machine
    works: bool
    refusal: Refusal | None
    backend: str | None
    backend_reason: str
    ring: RingReport | None
    open_files: Limit
    locked_memory: Limit
    workers: Workers | None
    surface: Surface | None


class _Attempt(NamedTuple):
    name: str | None
    error: OSError | UnsupportedError | None
    ring: RingReport | None
    found: Survey | None = None

    @property
    def works(self) -> bool:
        return self.error is None


def probe() -> Report:
    """
    Find out what this process can do with io_uring.

    Makes one or two drivers in the calling thread, and lets go of them; takes milliseconds.  It may
    be called beside a running loop.

    Raises:
        UsageError: The environment variable ``URINGIO_BACKEND`` names no backend.
    """
    return probe_on(real_system(), chosen_backend(None))


def probe_on(system: System, wanted: str | None = None) -> Report:
    """`probe` a system that may be a stand-in, in an environment that may want a backend."""
    around = look_around(system)
    chosen = _attempt(system, wanted)
    asked = chosen if chosen.name == "uring" else _attempt(system, "uring")
    found = asked.found or survey(system, None)
    return Report(
        machine=_machine(around),
        works=asked.works,
        refusal=None if not isinstance(asked.error, OSError) else explain(asked.error, around),
        backend=chosen.name if chosen.works else None,
        backend_reason=_reason(chosen, asked, wanted),
        ring=asked.ring,
        open_files=_limit(resource.RLIMIT_NOFILE),
        locked_memory=_limit(resource.RLIMIT_MEMLOCK),
        workers=None if found is None or found.workers is None else Workers(*found.workers),
        surface=None if found is None else describe(found),
    )


def _attempt(system: System, backend: str | None) -> _Attempt:
    """Make a driver as a scheduler would, and have it carry out a NOP."""
    delivered: list[Op[object]] = []
    try:
        with warnings.catch_warnings():
            # That the ring is small: its report says how small.
            warnings.simplefilter("ignore", RuntimeWarning)
            driver = make_driver(delivered.append, _never_cancelled, backend=backend, system=system)
    except (OSError, UnsupportedError) as error:
        return _Attempt(None, error, None)
    ring: RingReport | None = None
    found: Survey | None = None
    try:
        if isinstance(driver, UringDriver):
            found = survey(system, driver.ring)
            ring = _ring_report(driver.ring)
        _carry_out_nop(driver, delivered)
    except OSError as error:
        return _Attempt(driver.name, error, ring, found)
    finally:
        driver.close()
    return _Attempt(driver.name, None, ring, found)


def _never_cancelled(op: Op[object]) -> BaseException:
    return RuntimeError(f"{op!r} was cancelled")


def _carry_out_nop(driver: Driver, delivered: list[Op[object]]) -> None:
    op: Op[object] = Op(NOP_OPERATION)
    op.home = driver
    driver.submit(op)
    deadline_ns = driver.system.monotonic_ns() + _NOP_NS
    while not delivered and driver.system.monotonic_ns() < deadline_ns:
        driver.turn(deadline_ns)
    if not delivered:
        raise TimeoutError("no operation came back from the ring")
    if delivered[0].error is not None:
        raise delivered[0].error


def _reason(chosen: _Attempt, asked: _Attempt, wanted: str | None) -> str:
    if wanted is not None:
        says = f"the environment variable {VARIABLE} asks for {wanted}"
        return says if chosen.works else f"{says}, which cannot be had: {chosen.error}"
    if not chosen.works:
        name = type(chosen.error).__name__
        return f"uringio.run() raises {name}: another backend would only hide what is lacking"
    if chosen.name == "uring":
        if chosen.ring is not None and chosen.ring.submission_slots < ENTRIES_LADDER[0]:
            return (
                "a ring could be made, though smaller than usual, since little memory may be "
                "locked (ulimit -l); it carried out an operation"
            )
        return "a ring could be made, and carried out an operation"
    assert asked.error is not None
    return f"io_uring is refused, so programs run on {chosen.name}; they need no change"


# --- the ring ------------------------------------------------------------------------------------


def _ring_report(ring: Ring) -> RingReport:
    rung = next(
        (index for index, flags in enumerate(FLAG_LADDER) if flags & ~ring.flags == 0),
        len(FLAG_LADDER) - 1,
    )
    return RingReport(
        rung=rung + 1,
        rungs=len(FLAG_LADDER),
        rung_since=LADDER_RELEASES[rung],
        flags=_names("IORING_SETUP_", ring.flags),
        submission_slots=ring.sq_entries,
        completion_slots=ring.cq_entries,
        features=_features(ring),
        operations=_operations(ring),
    )


def _names(prefix: str, bits: int) -> tuple[str, ...]:
    """Name the bits that are set; one that we have no name for is given by its value."""
    named = {
        value: name.removeprefix(prefix)
        for name, value in vars(k).items()
        if name.startswith(prefix)
    }
    single = [1 << shift for shift in range(bits.bit_length()) if bits >> shift & 1]
    return tuple(named.get(bit, hex(bit)) for bit in single)


def _features(ring: Ring) -> tuple[Feature, ...]:
    flags, features = ring.flags, ring.features
    impossible = "no ring that uringio can use"
    rows = (
        ("IORING_FEAT_SINGLE_MMAP", "5.4", k.IORING_FEAT_SINGLE_MMAP,
         "both queues in one mapping", impossible),
        ("IORING_FEAT_NODROP", "5.5", k.IORING_FEAT_NODROP,
         "no completion is lost when many come at once", impossible),
        ("IORING_FEAT_RW_CUR_POS", "5.6", k.IORING_FEAT_RW_CUR_POS,
         "reads and writes where a file stands", "these fail"),
        ("IORING_FEAT_FAST_POLL", "5.7", k.IORING_FEAT_FAST_POLL,
         "sockets are waited for without a kernel thread", "a kernel thread for each"),
        ("IORING_FEAT_EXT_ARG", "5.11", k.IORING_FEAT_EXT_ARG,
         "waiting with a deadline in one call", impossible),
        ("IORING_FEAT_NO_IOWAIT", "6.15", k.IORING_FEAT_NO_IOWAIT,
         "an idle program is not counted as waiting for a disk",
         "tools may show an idle program's processor as waiting for I/O"),
    )  # fmt: skip
    found = [
        Feature(name, since, bool(features & bit), purpose, otherwise)
        for name, since, bit, purpose, otherwise in rows
    ]
    found += [
        Feature(
            "IORING_REGISTER_PBUF_RING", "5.19", bool(ring.buffer_rings),
            "idle connections hold no receive buffer", impossible,
        ),
        Feature(
            "IORING_REGISTER_RING_FDS", "5.18", ring.registered_by is not None,
            "the kernel finds the ring without a look-up", "a little slower",
        ),
        Feature(
            "IORING_SETUP_DEFER_TASKRUN", "6.1", bool(flags & k.IORING_SETUP_DEFER_TASKRUN),
            "completions come only when asked for", "a little slower; only on x86 and s390",
        ),
        Feature(
            "IORING_SETUP_NO_SQARRAY", "6.6", bool(flags & k.IORING_SETUP_NO_SQARRAY),
            "one array less between program and kernel", "a little slower",
        ),
    ]  # fmt: skip
    return tuple(found)


def _operations(ring: Ring) -> tuple[Operation, ...]:
    known = probe_ring(ring).opcodes
    serves: dict[int, list[str]] = {}
    otherwise = dict.fromkeys(SHAPED.values(), "thread")
    otherwise |= dict.fromkeys((k.IORING_OP_SEND_ZC, k.IORING_OP_SENDMSG_ZC), "copy")
    for code, name in enumerate(OPERATION_NAMES):
        opcode = SHAPED.get(code)
        if opcode is None:
            head = SLOW_HEADS.get(code, HEADS[code])
            opcode = None if head < 0 else head & 0xFF
        if opcode is not None:
            serves.setdefault(opcode, []).append(name)
    serves.setdefault(CANCEL_HEAD & 0xFF, []).append("cancel")
    names = {value: name for name, value in vars(k).items() if name.startswith("IORING_OP_")}
    return tuple(
        Operation(
            names[opcode],
            opcode in known,
            otherwise.get(opcode, "none"),
            tuple(dict.fromkeys(served)),
        )
        for opcode, served in sorted(serves.items())
    )


# --- the machine ---------------------------------------------------------------------------------


def _machine(around: Surroundings) -> Machine:
    return Machine(
        kernel=around.release,
        architecture=os.uname().machine,
        libc=_libc(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        container=around.container,
        seccomp=around.seccomp,
        sysctl_disabled=around.sysctl_disabled,
        sysctl_group=around.sysctl_group,
        system=around.system,
    )


def _libc() -> str | None:
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):
        version = None
    if version:
        return version
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            return (
                "musl" if any("ld-musl" in line or "libc.musl" in line for line in maps) else None
            )
    except OSError:
        return None


def _limit(which: int) -> Limit:
    soft, hard = resource.getrlimit(which)
    return Limit(
        None if soft == resource.RLIM_INFINITY else soft,
        None if hard == resource.RLIM_INFINITY else hard,
    )
