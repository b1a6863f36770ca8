"""
A ring for people: typed requests in, batches of completions out, and nothing freed too early.

The mechanism is `uringio._ring`; what is added here is what a program would have to think of
itself: which operations the kernel has, that only the owner's thread comes near, that memory lives
until its request has ended, that completions are not lost for want of room, and that every wrong
use is refused by an exception that names the remedy, before the kernel hears of it.
"""

import warnings
from _thread import get_ident
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Self

from uringio._ring.probe import probe_ring
from uringio._ring.setup import Ring as Core
from uringio._ring.setup import queue_init
from uringio._sys import constants as k
from uringio._sys.memory import Memory
from uringio._sys.system import System, real_system
from uringio.errors import (
    ClosedError,
    RingError,
    UsageError,
    WrongThreadError,
)

from ._aliases import make_alias_fill, make_secret
from ._batch import Batches
from ._choices import choose, explain, memory_bytes
from ._completions import Completion, Statistics
from ._entering import make_taking
from ._filling import Fill, make_fill, set_address
from ._flight import Several
from ._forks import forked_error, refuse_closed, refuse_forked, watch
from ._mixed import PADDING, cancel_slot, last_slot, make_mixed_fill
from ._opcodes import Opcode
from ._provided import ProvidedBuffers
from ._ring_flags import Features, SetupFlags

__all__ = ["Ring"]

_U32: Final = (1 << 32) - 1
# The user_data of what `close` sends; the highest there is, and refused to nobody.
_CLOSING: Final = (1 << 64) - 1
_CLOSE_NS: Final = 2_000_000_000
_DEFAULT_DISABLED: Final = (
    k.IORING_SETUP_R_DISABLED
    | k.IORING_SETUP_SUBMIT_ALL
    | k.IORING_SETUP_SINGLE_ISSUER
    | k.IORING_SETUP_DEFER_TASKRUN
)

# Memory of requests that did not end while their ring was closed: the kernel may still write it.
_leaked: list[object] = []


class Ring(Batches):
    """
    One io_uring, to be filled by the `prep_*` functions.

    Belongs to the thread that makes it, or, made with `SetupFlags.R_DISABLED`, to the one that
    calls `enable`.  A context manager; `close` it otherwise.

    Args:
        entries: Slots for requests, rounded up to a power of two, at most 32768. [count]
        cq_entries: Slots for completions, by default four times as many. [count]
        flags: `SetupFlags`; CQSIZE and CLAMP are added.  By default the best set that the kernel
            takes: one thread, completions only inside its own calls, whole batches.
        workers_of: A ring whose worker threads to share; with SQPOLL the submitting thread too.
        sq_thread_idle_ms: With `SetupFlags.SQPOLL`, how long the kernel's thread looks for requests
            before it sleeps; by default a second. [milliseconds]
        sq_thread_cpu: The processor to bind that thread to; adds SQ_AFF.
        memory: Where the queues are to live, of `memory_bytes` or more; adds NO_MMAP.  With
            NO_MMAP alone such memory is made.
        messages: Other rings will send to this one, or registered files have tags: tell those
            completions from the requests' own, whatever user_data they carry.
        system: What to make it on, other than the real one.

    Attributes:
        fd: The descriptor, -1 once closed, or with REGISTERED_FD_ONLY.  Readable when completions
            wait.
        opcodes: The operations that the kernel has; empty where a filter forbids asking, and then
            none is refused for lack of it.

    Raises:
        RingError: Refused; ``errno`` and ``remedy`` say why and what to do.
        UnsupportedError: The kernel, or this processor, lacks that kind of ring.
        UsageError: Flags that the kernel refuses together.
        ValueError: Sizes that no kernel takes.

    With SQPOLL a thread of the kernel's takes what `submit` has published, at its own time: slots
    are free again when it has, see `wait_for_room`, and `submit` makes a system call only to wake
    it.  With IOPOLL a `wait` looks at the device all the time rather than sleep.

    Lifetime: memory given to requests, as objects rather than addresses, is kept until their last
    completion was handed out.  Without *messages*, a message that has the user_data of a request in
    flight counts as that one's completion, and frees its memory too early.  *memory* is the ring's;
    it may go when the ring is closed, but not serve something else: the kernel takes a ring apart
    at its own time.

    Kernel: 5.19.  Twin: struct io_uring, io_uring_queue_init_params.
    """

    fill: Fill

    def __init__(
        self,
        entries: int = 128,
        *,
        cq_entries: int | None = None,
        flags: int | None = None,
        workers_of: "Ring | None" = None,
        sq_thread_idle_ms: int | None = None,
        sq_thread_cpu: int | None = None,
        memory: Memory | None = None,
        messages: bool = False,
        system: System | None = None,
    ) -> None:
        self._core: Core | None = None
        self._forked = False
        system = real_system() if system is None else system
        partner = None if workers_of is None else workers_of._open()
        choice = choose(
            system,
            flags,
            workers_flags=None if partner is None else partner.flags,
            sq_thread_cpu=sq_thread_cpu,
            sq_thread_idle_ms=sq_thread_idle_ms,
            memory=memory,
        )
        try:
            core = queue_init(
                system,
                entries,
                cq_entries=cq_entries,
                ladder=choice.ladder,
                share_workers_fd=0 if partner is None else partner.fd,
                sq_thread_cpu=sq_thread_cpu or 0,
                sq_thread_idle_ms=sq_thread_idle_ms or 0,
                memory=memory,
            )
        except RingError as error:
            why = error if flags is None else explain(error, choice.ladder[0], sq_thread_cpu)
            if why is error:
                raise
            raise why from error
        super().__init__()
        self._fence = choice.fence
        self._secret = make_secret() if messages else 0
        self._owner = get_ident()
        self._cells = [core.sq_tail[0], 0, core.sq_tail[0], -1, 0]
        self._first = self._cells[0]
        self._lifelong: list[object] = []
        self._enabled = not core.flags & k.IORING_SETUP_R_DISABLED
        self._big = bool(core.flags & (k.IORING_SETUP_CQE32 | k.IORING_SETUP_CQE_MIXED))
        try:
            self.opcodes = _opcodes_of(core)
            self._remap(core)
        except BaseException:
            self._core = None
            core.close()
            raise
        watch(self)

    @staticmethod
    def memory_bytes(entries: int = 128, cq_entries: int | None = None, flags: int = 0) -> int:
        """
        Tell how much memory a ring needs that lives in memory of the caller's, in bytes.

        Twin: io_uring_memory_size.
        """
        return memory_bytes(entries, cq_entries, flags)

    @classmethod
    def sandboxed(
        cls,
        entries: int = 128,
        *,
        ops: Iterable[int],
        files: Sequence[int] = (),
        fixed_files_only: bool = False,
        messages: bool = False,
    ) -> Self:
        """
        Make a ring that can do nothing but what is listed, for good.

        Args:
            ops: `Opcode`s; without ASYNC_CANCEL, `close` can only wait for requests in flight.
            files: Descriptors for its table of registered files.
            fixed_files_only: Refuse requests on anything but these.
            messages: Other rings will send to this one; see `Ring`.

        Anything else completes with EACCES, and no further registration is taken.  A limit for
        requests, not for the process: its other code may still make other rings.

        Raises:
            RingError: As in making any ring.

        Kernel: 6.1.
        """
        ring = cls(entries, flags=_DEFAULT_DISABLED, messages=messages)
        try:
            if files:
                ring.register_files(files)
            required = k.IOSQE_FIXED_FILE if fixed_files_only else 0
            ring.register_restrictions(ops=ops, flags_required=required)
            ring.enable()
        except BaseException:
            ring.close()
            raise
        return ring

    # --- requests --------------------------------------------------------------------------------

    @property
    def fd(self) -> int:
        """The descriptor, -1 once closed."""
        return -1 if self._core is None else self._core.fd

    @property
    def features(self) -> Features:
        """What this kernel's rings can do."""
        return Features(self._open().features)

    @property
    def setup_flags(self) -> SetupFlags:
        """How the ring was made, as the kernel took it."""
        return SetupFlags(self._open().flags)

    @property
    def personality(self) -> int:
        """Which registered credentials requests get that are filled from now on; 0: one's own."""
        return self._cells[1]

    @personality.setter
    def personality(self, number: int) -> None:
        if not 0 <= number < 1 << 16:
            raise ValueError(f"a personality's number is from 0 to 65535, not {number}")
        self._cells[1] = number

    @property
    def queued(self) -> int:
        """How many requests are filled and not yet submitted."""
        return (self._cells[0] - self._open().sq_head[0]) & _U32

    @property
    def space(self) -> int:
        """How many more may be filled before a `submit`.  Twin: io_uring_sq_space_left."""
        return self._open().sq_entries - self.queued

    @property
    def in_flight(self) -> int:
        """How many requests, queued ones included, have a completion to come."""
        shared = sum(one.count - 1 for one in self._flight.values() if isinstance(one, Several))
        return len(self._flight) + shared

    def __iter__(self) -> Iterator[Completion]:
        """
        Submit, and yield completions as they come, until nothing is in flight any more.

        A loop body may fill more requests; they are submitted when the next wait begins.  What a
        loop that is left early has not seen is handed out by the next call.

        Raises:
            ClosedError: It is closed before the loop begins.
        """
        self._open()
        while self.in_flight or self._storage:
            taken = self.wait()
            seen = 0
            try:
                for one in taken:
                    seen += 1
                    yield Completion(*one)
            finally:
                if seen < len(taken):
                    self._keep_for_later(taken[seen:])

    def statistics(self) -> Statistics:
        """Count what the ring has done and holds."""
        core = self._open()
        return Statistics(
            submitted=self._cells[0] - self._first - self.queued - self._cells[4],
            completed=self._completed,
            queued=self.queued,
            in_flight=self.in_flight,
            held=self._held(),
            dropped=core.sq_dropped[0],
            overflowed=core.cq_overflow[0],
        )

    # --- life ------------------------------------------------------------------------------------

    def close(self, timeout_ns: int = _CLOSE_NS) -> None:
        """
        Cancel what is in flight, wait for its end, and close the ring; safe to call twice.

        Memory of requests that have not ended when the time is over is kept for the life of the
        process, with a `ResourceWarning`: the kernel may still write to it.

        Raises:
            WrongThreadError: Another thread owns the ring, and requests are in flight or none but
                that thread can find it (REGISTERED_FD_ONLY).

        Twin: io_uring_queue_exit, which does not wait.
        """
        core = self._core
        if core is None:
            return
        if core.fd < 0:
            self._check_thread()
        if self._holds_memory():
            self._check_thread()
            try:
                self._drain(timeout_ns)
            except OSError:
                pass  # it can no longer be entered: what is held is kept below
        held = self._holds_memory()
        if held:
            self._leak(core)
        told = repr(self)
        self._core = None
        self.fill = refuse_closed
        self._flight.clear()
        self._close_core(core, held)
        if held:
            warnings.warn(
                f"{told} was closed with requests in flight: their memory is kept for ever",
                ResourceWarning,
                stacklevel=2,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        core = self._core
        if core is not None:
            held = self._holds_memory()
            if held:
                self._leak(core)
            told = repr(self)
            self._core = None
            self._close_core(core, held)
            warnings.warn(f"{told} was never closed", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        core = self._core
        if core is None:
            return "<uringio.lowlevel.Ring, closed>"
        return (
            f"<uringio.lowlevel.Ring, {_found_by(core)}, "
            f"{core.sq_entries} + {core.cq_entries} slots, {self.queued} queued, "
            f"{self.in_flight} in flight, {SetupFlags(core.flags)!r}>"
        )

    # --- within ----------------------------------------------------------------------------------

    def _open(self) -> Core:
        core = self._core
        if core is None:
            raise forked_error() if self._forked else ClosedError("this ring is closed")
        return core

    def _check_thread(self) -> None:
        if get_ident() != self._owner:
            raise WrongThreadError("this ring belongs to the thread that made or enabled it")

    def _make_fill(self) -> Fill:
        core, owner, cells = self._open(), self._owner, self._cells
        known = self.opcodes or range(256)
        fill = make_fill(core, known, owner, self._flight, cells, self._passing, self._silent)
        if self._mixed:
            fill = make_mixed_fill(core, owner, cells, fill)
        return make_alias_fill(fill, self._secret) if self._secret else fill

    def _remap(self, core: Core) -> None:
        """Work on these queues from now on."""
        self._core = core
        self._cells[2] = self._cells[0]
        self._mixed = bool(core.flags & k.IORING_SETUP_SQE_MIXED)
        self._unwanted = PADDING if self._mixed else -1
        if self._big:
            self._reap = self._reap_big
        else:
            self._reap = make_taking(core, self._storage, self._fence, self._unwanted)
        self._rewire()
        self.fill = self._make_fill()

    def _take_over(self) -> None:
        """Belong to the calling thread from now on."""
        core = self._open()
        if core.registered_by not in {None, get_ident()}:
            core.forget_index()
        self._owner = get_ident()
        self._rewire()
        self.fill = self._make_fill()

    def hold(self, memory: object) -> None:
        """Keep something alive for as long as the ring lives."""
        if memory is not None:
            self._lifelong.append(memory)

    def rename(self, old: int, new: int, /) -> None:
        """Expect the completions of a request under another user_data; see `prep_poll_update`."""
        if old != new:
            # If it is refused, completions come under the old name, of whatever age.
            old ^= self._secret
            self._renamed[new ^ self._secret] = self._renamed.get(old, old)

    def address(self, addr: int, len_bytes: int, keep: object, /) -> None:
        """Give the request that was filled last, a send, an address; see `prep_send_set_addr`."""
        core = self._open()
        self._check_thread()
        if self._cells[0] & _U32 == self._handed(core):
            raise UsageError("no request was filled since the last submit")
        at = (last_slot(self._cells) & core.sq_entries - 1) * core.sqe_bytes
        set_address(core.sqes, at, addr, len_bytes)
        self._passing.append((self._cells[0] - 1, keep))

    def _holds_memory(self) -> bool:
        """Tell whether the kernel may still touch memory that lives because of the ring."""
        if self._passing and self._fence is not None:
            self._let_go(self._open())
            if self._passing:  # its thread has not yet taken what was published
                return True
        if not self._flight:
            return False
        return bool(self._lifelong or self._buffers or self._open().buffer_rings) or any(
            one is not None for one in self._flight.values()
        )

    def _held(self) -> int:
        return sum(
            one.holds if isinstance(one, Several) else one is not None
            for one in self._flight.values()
        )

    def _leak(self, core: Core) -> None:
        kept = (self._lifelong, self._buffers, self._passing, dict(core.buffer_rings))
        _leaked.append((list(self._flight.values()), *kept))

    @staticmethod
    def _close_core(core: Core, held: bool) -> None:
        if not held:
            for one in core.buffer_rings.values():
                if isinstance(one, ProvidedBuffers):
                    one.let_go()
        core.close()

    def _drain(self, timeout_ns: int) -> None:
        core = self._open()
        # What the kernel has not seen becomes nothing, and completes as such.
        first = self._handed(core)
        end = first + ((self._cells[0] - first) & _U32)
        while first < end:
            first = cancel_slot(core, first, self._mixed)
        deadline_ns = core.system.monotonic_ns() + timeout_ns
        self.wait(0)
        if self._fence is not None:
            self.wait_for_room()
        self.fill(
            Opcode.ASYNC_CANCEL, -1, 0, 0, 0,
            k.IORING_ASYNC_CANCEL_ALL | k.IORING_ASYNC_CANCEL_ANY, _CLOSING, self._flags_required,
        )  # fmt: skip
        while self._holds_memory():
            left_ns = deadline_ns - core.system.monotonic_ns()
            if left_ns <= 0:
                break
            self.wait(1, left_ns)

    def poison(self) -> None:
        """In a forked child, called by itself: refuse everything, touch no shared memory."""
        core, self._core = self._core, None
        if core is not None:
            _leaked.append(core)
            self.fill = refuse_forked
            self._forked = True


def _opcodes_of(core: Core) -> frozenset[int]:
    try:
        return probe_ring(core).opcodes
    except OSError:  # a filter or a restriction: what is lacking, the kernel will say
        return frozenset()


def _found_by(core: Core) -> str:
    return f"fd {core.fd}" if core.fd >= 0 else f"registered index {core.enter_fd}"
