"""
`SimKernel`: a kernel that is a function of a seed.

It stands below the real ring and driver code, which run unmodified: they reach it through
`SimKernel.system`, fill the same submission slots and read the same completions.  Time is virtual,
nothing else runs, and every choice is drawn from the seed, so that a program under it does exactly
the same each time.
"""

import errno
from _thread import get_ident
from collections.abc import Callable, Iterable
from typing import Final

from uringio._sys import constants as k
from uringio._sys.system import System

from ._clock import SimClock
from ._datagrams import DatagramSocket
from ._dice import Dice
from ._disk import Disk
from ._faults import CALM, FaultPlan, Faults
from ._messages import put_address
from ._name_requests import folder_at
from ._net import SimNet
from ._objects import Pipe, SimFile
from ._profiles import Profile, profile_named
from ._requests import Request
from ._rings import SimRing
from ._sightings import Sightings
from ._sockets import SimSocket, StreamSocket
from ._trace import Trace
from .errors import DeadlockError, LeakError, NotSimulatedError, SimulationError

__all__ = ["SimKernel"]

# Numbers that no real descriptor has: a call that went past the simulation finds nothing.
_FD_FIRST: Final = 1 << 24
_FD_COUNT_MAX: Final = 1024
_ENTER_NS: Final = 1_000
_SIMULATED_NS_MAX: Final = 3_600 * 10**9
_LOOKS_MAX: Final = 1_000_000
_SETTLING_NS: Final = 60 * 10**9
_CALLS_MAX: Final = 20_000_000
_RING_INDEXES_MAX: Final = 16
# Of IORING_SETUP_*; what is left out is not simulated.
_SETUP_FLAGS: Final = (
    k.IORING_SETUP_CQSIZE | k.IORING_SETUP_CLAMP | k.IORING_SETUP_ATTACH_WQ
    | k.IORING_SETUP_SUBMIT_ALL | k.IORING_SETUP_COOP_TASKRUN | k.IORING_SETUP_TASKRUN_FLAG
    | k.IORING_SETUP_SINGLE_ISSUER | k.IORING_SETUP_DEFER_TASKRUN | k.IORING_SETUP_NO_SQARRAY
)  # fmt: skip


class SimKernel:
    """
    A simulated kernel, for one program in one thread.

    Args:
        seed: Decides everything that a real kernel would decide by its mood.
        profile: Which kernel to be: a release such as ``"6.18"``, or what a `Profile` says.
        faults: What goes wrong, and how often.
        descriptor_count_max: RLIMIT_NOFILE.
        disk: What an earlier kernel has left, after `Disk.power_cut`, say.

    Attributes:
        clock: Its time.
        net: Its network.
        disk: Its files.
        faults: What has gone wrong.
        trace: What has happened.
        notes: How often each of the states was met that a test wants to have seen.
        wake_ns: The least and the most time that a waiter takes to wake. [ns]
        op_count: Requests submitted.
        stray_count: Completions told that belong to no request.
        invariants: What must hold, and was looked at.
        survives: What the program's signal handlers raise, and `run` goes on after: as a host does
            that has a loop of its own.  Empty to begin with.
        survived: Called each time, before it goes on.
        system: What to run on: pass it to whatever takes a `System`.
    """

    def __init__(
        self,
        seed: int = 0,
        profile: str | Profile = "6.18",
        faults: FaultPlan = CALM,
        *,
        descriptor_count_max: int = _FD_COUNT_MAX,
        disk: Disk | None = None,
    ) -> None:
        from ._invariants import Invariants
        from ._system import SimSystem

        self.seed = seed
        self.profile = profile_named(profile)
        self._enter_flags = self.profile.enter_flags
        self.clock = SimClock()
        self.trace = Trace()
        self.faults = Faults(faults, seed, self.clock, self.trace)
        self.net = SimNet(self.clock, seed, self.faults)
        self.disk = Disk(seed, self.clock) if disk is None else disk
        self.notes: dict[str, int] = {}
        self.wake_ns = (200, 5_000)
        self.op_count = self.stray_count = 0
        self.survives: tuple[type[BaseException], ...] = ()
        self.survived: Callable[[], object] | None = None
        self.invariants = Invariants(self)
        self.sightings = Sightings(self.note)
        self._dice = Dice(seed, "kernel")
        self._fds: dict[int, SimFile] = {}
        self._fd_count_max = descriptor_count_max
        self._ring_indexes: dict[int, SimRing] = {}
        self._rings: list[SimRing] = []
        self._ring_count = 0
        self._call_count = self._look_count = 0
        self.system: System = SimSystem(self)

    def __repr__(self) -> str:
        return f"<SimKernel {self.profile.name}, seed {self.seed}>"

    def trace_hash(self) -> str:
        """Return the hash of everything that has happened."""
        return self.trace.digest()

    def note(self, what: str) -> None:
        """Count a state that a test wants to have seen."""
        self.notes[what] = self.notes.get(what, 0) + 1

    def files(self) -> list[tuple[int, SimFile]]:
        """Return what is open: numbers counted from 0, and what each names."""
        return [(fd - _FD_FIRST, file) for fd, file in self._fds.items()]

    def idle(self) -> bool:
        """Whether the program has nothing left here: no descriptor, no ring, no request."""
        return not self._fds and not self._rings

    def check_no_leaks(self) -> None:
        """Raise `LeakError` if the program left anything behind."""
        if not self.idle():
            left = [f"{file.kind} {fd - _FD_FIRST}" for fd, file in self._fds.items()]
            requests = [one for ring in self._rings for one in ring.requests.values()]
            raise LeakError(
                f"left open: {', '.join(left) or 'no descriptor'}; {len(self._rings)} rings; "
                f"in flight: {requests}"
            )

    # --- time ------------------------------------------------------------------------------------

    def enter_call(self) -> None:
        """Begin a system call: a little time passes, and what completed meanwhile is told."""
        self._call_count += 1
        self._look_count = 0
        if self._call_count > _CALLS_MAX:
            raise SimulationError(f"{_CALLS_MAX} system calls and no end: the program spins")
        faults = self.faults
        passes_ns = _ENTER_NS
        if faults.strikes("stall"):
            passes_ns += faults.below("stall", faults.plan.stall_ns_max)
        self.advance_to(self.clock.now_ns + passes_ns)
        for ring in self._rings:
            if not ring.deferred:
                ring.run_work(None)
        self.invariants.turned()

    def look_at_clock(self) -> None:
        """Count a look, after which the program should do something some time."""
        self._look_count += 1
        if self._look_count > _LOOKS_MAX:
            raise SimulationError(f"{_LOOKS_MAX} looks at the clock and no call: the program spins")

    def settle(self) -> None:
        """Let everything happen that is still going to happen within a minute."""
        end_ns = self.clock.now_ns + _SETTLING_NS
        while (next_ns := self.clock.next_ns()) is not None and next_ns <= end_ns:
            self.clock.advance_to(next_ns)

    def advance_to(self, when_ns: int) -> None:
        """Let time pass; raises `SimulationError` if it is too much."""
        self.clock.advance_to(when_ns)
        if self.clock.elapsed_ns > _SIMULATED_NS_MAX:
            raise SimulationError("an hour of simulated time has passed and the program still runs")

    def pass_time(self, deadline_ns: int | None, waiting: Iterable[object]) -> bool:
        """
        Jump to the next thing that happens, but not past a deadline; False at the deadline.

        Raises:
            DeadlockError: Nothing is going to happen, and there is no deadline.
        """
        next_ns = self.clock.next_ns()
        if deadline_ns is not None and (next_ns is None or next_ns > deadline_ns):
            self.advance_to(deadline_ns)
            return False
        if next_ns is None:
            raise DeadlockError(
                "nothing is going to happen any more, and the program waits for one of "
                f"{list(waiting)}"
            )
        self.advance_to(next_ns)
        return True

    def wake_delay_ns(self) -> int:
        """Return how long a waiter takes to wake."""
        return self._dice.between(*self.wake_ns)

    def scheduling_ns(self) -> int:
        """Return how long a program that may go on waits for a processor: mostly a moment."""
        return self._dice.between(0, 300_000) if self._dice.chance(0.25) else 0

    # --- descriptors -----------------------------------------------------------------------------

    def file_of(self, fd: int) -> SimFile | None:
        """Return what a descriptor names."""
        return self._fds.get(fd)

    def socket_of(self, fd: int) -> SimSocket | int:
        """Return the socket that a descriptor names, or ``-errno``."""
        file = self._fds.get(fd)
        if file is None:
            return -errno.EBADF
        return file if isinstance(file, SimSocket) else -errno.ENOTSOCK

    def install(self, file: SimFile) -> int:
        """Give a file the lowest free number, or answer ``-EMFILE``."""
        if len(self._fds) >= self._fd_count_max:
            return -errno.EMFILE
        fd = _FD_FIRST
        while fd in self._fds:
            fd += 1
        self._fds[fd] = file
        file.hold()
        return fd

    def close_fd(self, fd: int) -> int:
        """Free a number; 0 or ``-EBADF``."""
        file = self._fds.pop(fd, None)
        self.trace.add(f"close {fd}")
        self.sightings.closes(fd)
        self.invariants.closed(fd, file is not None)
        if file is None:
            return -errno.EBADF
        file.drop()
        return 0

    def install_slot(self, ring: SimRing, file: SimFile, file_index: int) -> int:
        """Put a file into a slot of a ring's table: 0, the slot that was chosen, or ``-errno``."""
        slots = ring.files
        if not slots:
            return -errno.ENXIO
        if file_index == k.IORING_FILE_INDEX_ALLOC:
            first, count = ring.file_range
            for slot in range(first, first + count):
                if slots[slot] is None:
                    slots[slot] = file
                    file.hold()
                    return slot
            return -errno.ENFILE
        if file_index > len(slots):
            return -errno.EINVAL
        before, slots[file_index - 1] = slots[file_index - 1], file
        file.hold()
        if before is not None:
            before.drop()
        return 0

    def install_for(self, request: Request, file: SimFile | int) -> int:
        """Give what a request has made a number, or a slot; passes ``-errno`` on."""
        if isinstance(file, int):
            return file
        file.hold()
        if request.file_index:
            number = self.install_slot(request.ring, file, request.file_index)
        else:
            number = self.install(file)
        file.drop()
        return number

    def open(self, dir_fd: int, path: bytes, flags: int, mode: int, resolve: int) -> SimFile | int:
        """Open a file; ``-errno`` on refusal."""
        if self.faults.strikes("exhaust", "open"):
            return -errno.EMFILE
        base = folder_at(self, dir_fd, path)
        if isinstance(base, int):
            return base
        return self.disk.open(base, path, flags, mode, resolve)

    def make_socket(self, family: int, kind: int, protocol: int) -> SimFile | int:
        """Make a socket."""
        del protocol
        if self.faults.strikes("exhaust", "socket"):
            return -errno.EMFILE
        if family not in {System.AF_INET, System.AF_INET6, System.AF_UNIX}:
            return -errno.EAFNOSUPPORT
        socket: SimSocket
        if kind & 0xF == System.SOCK_STREAM:
            socket = StreamSocket(self.net, family)
        elif kind & 0xF == System.SOCK_DGRAM:
            socket = DatagramSocket(self.net, family)
        else:
            raise NotSimulatedError(f"sockets of type {kind & 0xF} are not simulated")
        socket.blocking = not kind & System.SOCK_NONBLOCK
        return socket

    def make_pipe(self, blocking: bool = False) -> tuple[int, int]:
        """Make a pipe; two numbers, or ``-EMFILE`` twice."""
        reader, writer = Pipe.pair()
        reader.blocking = writer.blocking = blocking
        if len(self._fds) + 2 > self._fd_count_max:
            return -errno.EMFILE, -errno.EMFILE
        return self.install(reader), self.install(writer)

    def accept(
        self,
        listener: StreamSocket,
        addr: int,
        len_addr: int,
        flags: int,
        request: Request | None = None,
    ) -> int:
        """Take a connection and give it a number; ``-EAGAIN`` while there is none."""
        if listener.state == "listening" and not listener.backlog:
            return -errno.EAGAIN
        direct = request is not None and request.file_index
        full = not direct and len(self._fds) >= self._fd_count_max
        if full or self.faults.strikes("exhaust", "accept"):
            return -errno.EMFILE
        found = listener.accept()
        assert found is not None
        if isinstance(found, int):
            return found
        put_address(found.remote, addr, len_addr)
        found.blocking = not flags & System.SOCK_NONBLOCK
        return self.install(found) if request is None else self.install_for(request, found)

    def install_or_drop(self, file: SimFile | int) -> int:
        """Give a file a number, or let go of it; passes ``-errno`` on."""
        if isinstance(file, int):
            return file
        file.hold()
        fd = self.install(file)
        file.drop()
        return fd

    # --- rings -----------------------------------------------------------------------------------

    def next_ring_number(self) -> int:
        """Number a new ring."""
        self._ring_count += 1
        return self._ring_count

    def setup(self, entries: int, cq_entries: int, flags: int) -> SimRing | int:
        """Make a ring, or answer ``-errno``."""
        if flags & ~self.profile.setup_flags:
            return -errno.EINVAL
        if flags & ~_SETUP_FLAGS:
            raise NotSimulatedError(f"rings with setup flags {flags:#x} are not simulated")
        if flags & k.IORING_SETUP_DEFER_TASKRUN and not flags & k.IORING_SETUP_SINGLE_ISSUER:
            return -errno.EINVAL
        start = -self._dice.below(2 * entries)  # so that the indexes wrap soon
        ring = SimRing(self, entries, cq_entries, flags, start)
        self._rings.append(ring)
        return ring

    def ring_is_gone(self, ring: SimRing) -> None:
        """Forget a ring."""
        self._rings.remove(ring)

    def ring_of(self, fd: int, flags: int) -> SimRing | int:
        """Return the ring that an enter names, or ``-errno``."""
        if flags & k.IORING_ENTER_REGISTERED_RING:
            return self._ring_indexes.get(fd, -errno.EBADF)
        file = self._fds.get(fd)
        if file is None:
            return -errno.EBADF
        return file if isinstance(file, SimRing) else -errno.EOPNOTSUPP

    def add_ring_index(self, ring: SimRing) -> int:
        """Register a ring's descriptor; its index, or ``-EBUSY``."""
        for index in range(_RING_INDEXES_MAX):
            if index not in self._ring_indexes:
                self._ring_indexes[index] = ring
                ring.hold()
                return index
        return -errno.EBUSY

    def remove_ring_index(self, index: int) -> int:
        """Undo that; 0 or ``-EINVAL``."""
        ring = self._ring_indexes.pop(index, None)
        if ring is None:
            return -errno.EINVAL
        ring.drop()
        return 0

    def enter(
        self, fd: int, to_submit: int, min_complete: int, flags: int, timeout_ns: int | None
    ) -> int:
        """io_uring_enter(2): how many requests were taken, or ``-errno``."""
        if self.profile.blocked:
            return -self.profile.blocked
        if flags & ~self._enter_flags:
            return -errno.EINVAL
        self.enter_call()
        ring = self.ring_of(fd, flags)
        if isinstance(ring, int):
            return ring
        if ring.owner is None:
            ring.owner = get_ident()
        elif ring.owner != get_ident() and ring.flags & k.IORING_SETUP_SINGLE_ISSUER:
            return -errno.EEXIST
        number = self.faults.exact("enter")
        if number:
            return -number
        count = ring.submit(to_submit) if to_submit else 0
        if count == to_submit and flags & k.IORING_ENTER_GETEVENTS:
            deadline_ns = None if timeout_ns is None else self.clock.now_ns + timeout_ns
            answer = ring.wait(min_complete, deadline_ns)
            return count or answer
        return count
