"""
Make a ring: ask for the best flags, step down the ladder, map the memory, check what came back.

The default is a single-issuer ring with deferred task work.  That is a safety feature as much as a
speed feature: completions are posted, and socket data is written, only inside the owner's own
``io_uring_enter``, so program order is all the memory ordering that pure Python needs, and a second
thread or a forked child is refused by the kernel itself.

Twins: io_uring_queue_init_params, io_uring_queue_exit (liburing setup.c).
Sources: io_uring_setup(2), io_uring_setup_flags(7).
"""

import errno
from _thread import get_ident
from typing import Final

from uringio._sys import constants as k
from uringio._sys.errnos import SETUP_REMEDIES
from uringio._sys.layouts import PARAMS, RSRC_UPDATE
from uringio._sys.memory import Memory, pin
from uringio._sys.system import Mapping, System
from uringio.errors import RingError

from .lent import entry_sizes, lend, queue_bytes

__all__ = [
    "CQ_ENTRIES_MAX",
    "DEFAULT_FLAGS",
    "FLAG_LADDER",
    "LADDER_RELEASES",
    "SQ_ENTRIES_MAX",
    "Ring",
    "map_rings",
    "queue_init",
    "queue_sizes",
]

DEFAULT_FLAGS: Final = (
    k.IORING_SETUP_SINGLE_ISSUER
    | k.IORING_SETUP_DEFER_TASKRUN
    | k.IORING_SETUP_TASKRUN_FLAG
    | k.IORING_SETUP_SUBMIT_ALL
    | k.IORING_SETUP_CQSIZE
    | k.IORING_SETUP_CLAMP
    | k.IORING_SETUP_NO_SQARRAY
)

_BASE: Final = k.IORING_SETUP_CQSIZE | k.IORING_SETUP_CLAMP
_COOP: Final = k.IORING_SETUP_COOP_TASKRUN | k.IORING_SETUP_TASKRUN_FLAG

# As the kernel has them; more is clamped here as IORING_SETUP_CLAMP would there.
SQ_ENTRIES_MAX: Final = 32768
CQ_ENTRIES_MAX: Final = 65536

# Newest flag first; each rung is what the kernels between two versions accept.
FLAG_LADDER: Final = (
    DEFAULT_FLAGS,  # KERNEL 6.6: NO_SQARRAY
    DEFAULT_FLAGS & ~k.IORING_SETUP_NO_SQARRAY,  # KERNEL 6.1: DEFER_TASKRUN
    _BASE | k.IORING_SETUP_SUBMIT_ALL | _COOP | k.IORING_SETUP_SINGLE_ISSUER,  # KERNEL 6.0
    _BASE | k.IORING_SETUP_SUBMIT_ALL | _COOP,  # KERNEL 5.19: COOP_TASKRUN, TASKRUN_FLAG
)
# The first Linux that accepts each.
LADDER_RELEASES: Final = ("6.6", "6.1", "6.0", "5.19")

# Without these the ring would need a second way of doing nearly everything.
_REQUIRED_FEATURES: Final = k.IORING_FEAT_SINGLE_MMAP | k.IORING_FEAT_NODROP | k.IORING_FEAT_EXT_ARG


class Ring:
    """
    One mapped io_uring: descriptor, words and arrays, and nothing that moves.

    Who owns the indexes: the SQ tail belongs to whoever fills slots (a driver's closure), the CQ
    head to the reaper of `_ring.queue`.  The words here are the shared memory itself, until
    `close`: then they are released, and a touch is an exception rather than the process's end.

    Attributes:
        fd: The ring's descriptor; -1 once closed, and on a ring that has no more than a registered
            index (REGISTERED_FD_ONLY).
        enter_fd: What to pass to io_uring_enter: *fd*, or its registered index; -1 once closed.
        enter_flags: Flags that belong to every enter (REGISTERED_RING, NO_IOWAIT).
        flags: The set-up flags that the kernel accepted.
        features: IORING_FEAT_* bits.
        sq_entries, cq_entries: Sizes, powers of two.
        sqe_bytes, cqe_bytes: What one entry of either takes; on a ring of mixed completions, the
            smaller size.
        buffer_rings: What the kernel may pick receive buffers from, by group.
        registered_by: The thread whose registered index *enter_fd* is, None without one.
        sqes, cqes: The arrays. [bytes]
        cqe_words, cqe_halves: The second once more, as words of 64 bits, and as signed ones of 32.
        sq_head, sq_tail, sq_flags, sq_dropped, cq_head, cq_tail, cq_overflow, cq_flags: One-word
            views.
    """

    def __init__(
        self, system: System, fd: int, params: tuple[int, ...], ring: Mapping, sqes: Mapping
    ) -> None:
        (sq_entries, cq_entries, flags, _cpu, _idle, features, _wq) = params[:7]
        sq_off, cq_off = params[7:16], params[16:25]
        self.system = system
        self.fd = fd
        self.enter_fd = fd
        self.enter_flags = 0
        self.registered_by: int | None = None
        self.buffer_rings: dict[int, object] = {}
        if features & k.IORING_FEAT_NO_IOWAIT:
            self.enter_flags |= k.IORING_ENTER_NO_IOWAIT
        if flags & k.IORING_SETUP_REGISTERED_FD_ONLY:
            self.fd = -1
            self.enter_flags |= k.IORING_ENTER_REGISTERED_RING
            self.registered_by = get_ident()
        self.flags = flags
        self.features = features
        self.sq_entries = sq_entries
        self.cq_entries = cq_entries
        self._ring_mapping = ring
        self._sqes_mapping = sqes

        def word(offset: int) -> memoryview:
            return ring.view[offset : offset + 4].cast("I")

        self.sq_head, self.sq_tail = word(sq_off[0]), word(sq_off[1])
        self.sq_flags, self.sq_dropped = word(sq_off[4]), word(sq_off[5])
        self.cq_head, self.cq_tail = word(cq_off[0]), word(cq_off[1])
        self.cq_overflow, self.cq_flags = word(cq_off[4]), word(cq_off[6])
        if flags & k.IORING_SETUP_SQ_REWIND:
            # The kernel reads neither and wants zeros there: whoever counts slots does it here.
            own = memoryview(bytearray(8)).cast("I")
            self.sq_head, self.sq_tail = own[0:1], own[1:2]
        if word(sq_off[2])[0] != sq_entries - 1 or word(cq_off[2])[0] != cq_entries - 1:
            raise _misfit(f"masks {word(sq_off[2])[0]:#x} and {word(cq_off[2])[0]:#x}", params)
        self.sqes = sqes.view
        self.sqe_bytes, self.cqe_bytes = entry_sizes(flags)
        self.cqes = ring.view[cq_off[5] : cq_off[5] + cq_entries * self.cqe_bytes]
        self.cqe_words, self.cqe_halves = self.cqes.cast("Q"), self.cqes.cast("i")
        if not flags & k.IORING_SETUP_NO_SQARRAY:
            # Slot n always stands at index n, so the index array is filled once and forgotten.
            array = ring.view[sq_off[6] : sq_off[6] + 4 * sq_entries].cast("I")
            for index in range(sq_entries):
                array[index] = index

    @property
    def deferred(self) -> bool:
        """Whether completions appear only inside the owner's own enter."""
        return bool(self.flags & k.IORING_SETUP_DEFER_TASKRUN)

    def register(self, opcode: int, arg_addr: int, nr_args: int) -> int:
        """io_uring_register(2) on this ring, by what it can be found by: its result or -errno."""
        if self.fd < 0:
            opcode |= k.IORING_REGISTER_USE_REGISTERED_RING
            return self.system.io_uring_register(self.enter_fd, opcode, arg_addr, nr_args)
        return self.system.io_uring_register(self.fd, opcode, arg_addr, nr_args)

    def close(self) -> None:
        """
        Unmap the ring and close its descriptor; closures over it raise from then on.

        The kernel tears the ring down asynchronously: memory of requests still in flight must stay
        alive, provided buffers too, which is the caller's to see to.  A registered index is given
        back, since it would keep the ring alive; that only works in the thread that registered it.

        Raises:
            BufferError: Somebody holds an export of the ring's memory, such as an iterator over
                `cqes`; the ring is still open.

        Twin: io_uring_queue_exit.
        """
        if self.enter_fd < 0:
            return
        self.unmap()
        if self.registered_by == get_ident():
            self.give_index_back()
        else:  # in another thread the index is none, or another ring's
            self.registered_by = None
        fd, self.fd, self.enter_fd = self.fd, -1, -1
        if fd >= 0:
            self.system.close(fd)
        self.buffer_rings.clear()

    def unmap(self) -> None:
        """
        Give the mapped memory back; closures over it raise from then on.

        Raises:
            BufferError: Somebody holds an export of it; it is still mapped.
        """
        for view in (
            self.cqe_words, self.cqe_halves, self.sqes, self.cqes, self.sq_head, self.sq_tail,
            self.sq_flags, self.sq_dropped, self.cq_head, self.cq_tail, self.cq_overflow,
            self.cq_flags,
        ):  # fmt: skip
            view.release()
        self._sqes_mapping.unmap()
        self._ring_mapping.unmap()

    def give_index_back(self) -> int:
        """Undo `_ring.register.register_ring_fd`; the kernel's answer."""
        addr, _, _keep = pin(RSRC_UPDATE.pack(self.enter_fd, 0))
        result = self.register(k.IORING_UNREGISTER_RING_FDS, addr, 1)
        self.forget_index()
        return result

    def forget_index(self) -> None:
        """Be entered by the descriptor again; the index stays registered, for its own thread."""
        self.enter_fd = self.fd
        self.enter_flags &= ~k.IORING_ENTER_REGISTERED_RING
        self.registered_by = None


def queue_init(
    system: System,
    entries: int,
    *,
    cq_entries: int | None = None,
    ladder: tuple[int, ...] = FLAG_LADDER,
    share_workers_fd: int = 0,
    sq_thread_cpu: int = 0,
    sq_thread_idle_ms: int = 0,
    memory: Memory | None = None,
) -> Ring:
    """
    Set a ring up and map it.

    Args:
        entries: Submission slots, rounded up to a power of two, clamped to 32768. [count]
        cq_entries: Completion slots, by default four times as many, rounded up to a power of two,
            clamped to 65536; at least as many as *entries* comes to. [count]
        ladder: Set-up flags to try in turn; the next is tried on EINVAL alone.
        share_workers_fd: The ring whose workers to share, for IORING_SETUP_ATTACH_WQ.
        sq_thread_cpu: For IORING_SETUP_SQ_AFF, the processor of the kernel's submitting thread.
        sq_thread_idle_ms: For IORING_SETUP_SQPOLL, after how long that thread goes to sleep; 0 is
            the kernel's own choice, a second. [milliseconds]
        memory: For IORING_SETUP_NO_MMAP, where the queues are to be; made here otherwise.

    Raises:
        RingError: Refused; ``errno`` and ``remedy`` say why and what to do.
        ValueError: No kernel could make such a ring, or *memory* is too small for it.

    Twin: io_uring_queue_init_params.  Kernel: 5.19.
    """
    if system.pointer_bytes != 8:
        raise RingError(
            errno.ENOSYS,
            "rings need a 64-bit process",
            "Use a 64-bit Python; another backend works without",
        )
    entries, cq_entries = queue_sizes(entries, cq_entries)
    if not ladder:
        raise ValueError("the ladder of set-up flags is empty")
    params = bytearray(k.SIZEOF_PARAMS)
    addr, _, keep = pin(params, writable=True)
    fd = -errno.EINVAL
    given = memory
    rings_addr = sqes_addr = 0
    for flags in ladder:
        if flags & k.IORING_SETUP_NO_MMAP:
            rings_bytes, sqes_bytes = queue_bytes(entries, cq_entries, flags)
            memory = given or system.allocate(rings_bytes + sqes_bytes)
            if memory.len_bytes < rings_bytes + sqes_bytes:
                raise ValueError(
                    f"the queues take {rings_bytes + sqes_bytes} bytes, and the memory has "
                    f"{memory.len_bytes}"
                )
            rings_addr, sqes_addr = memory.addr, memory.addr + rings_bytes
        PARAMS.pack_into(
            params, 0, 0, cq_entries, flags, sq_thread_cpu, sq_thread_idle_ms, 0, share_workers_fd,
            *(0,) * 8, sqes_addr, *(0,) * 8, rings_addr,
        )  # fmt: skip
        fd = system.io_uring_setup(entries, addr)
        if fd != -errno.EINVAL:
            break
    if fd < 0:
        remedy = SETUP_REMEDIES.get(-fd, "See io_uring_setup(2)")
        raise RingError(-fd, "io_uring_setup failed", remedy)
    values: tuple[int, ...] = PARAMS.unpack(params)
    del keep
    try:
        return map_rings(system, fd, values, memory)
    except BaseException:
        if values[2] & k.IORING_SETUP_REGISTERED_FD_ONLY:
            addr, _, _keep = pin(RSRC_UPDATE.pack(fd, 0))
            opcode = k.IORING_UNREGISTER_RING_FDS | k.IORING_REGISTER_USE_REGISTERED_RING
            system.io_uring_register(fd, opcode, addr, 1)
        else:
            system.close(fd)
        raise


def queue_sizes(entries: int, cq_entries: int | None) -> tuple[int, int]:
    """
    Round and clamp the sizes of the queues as the kernel will.

    Raises:
        ValueError: No kernel could make such a ring.
    """
    if entries < 1:
        raise ValueError(f"a ring needs at least one entry, not {entries}")
    entries = min(_power_of_two(entries), SQ_ENTRIES_MAX)
    if cq_entries is None:
        cq_entries = 4 * entries
    cq_entries = min(_power_of_two(cq_entries), CQ_ENTRIES_MAX)
    if cq_entries < entries:
        raise ValueError(f"{cq_entries} completion slots are fewer than the {entries} for requests")
    return entries, cq_entries


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length() if count > 0 else count


def _is_power_of_two(count: int) -> bool:
    return count > 0 and count & (count - 1) == 0


def _misfit(what: str, values: tuple[int, ...]) -> RingError:
    return RingError(
        errno.EPROTO,
        f"the kernel described a ring that does not fit together: {what}, parameters {values}",
        "Another backend works without io_uring",
    )


def map_rings(
    system: System, fd: int, values: tuple[int, ...], memory: Memory | None = None
) -> Ring:
    """
    Map the queues of *fd*, which the kernel has described by *values*, an unpacked PARAMS.

    Args:
        memory: Where they are already, on a ring with IORING_SETUP_NO_MMAP.

    Raises:
        RingError: They do not fit together, or lack what this library needs.
        OpError: They cannot be mapped.
    """
    sq_entries, cq_entries, flags, _, _, features, _ = values[:7]
    missing = _REQUIRED_FEATURES & ~features
    if missing:
        raise RingError(
            errno.ENOSYS,
            f"this kernel's io_uring is too old (features {missing:#x} are missing)",
            "It needs Linux 5.19; another backend works without",
        )
    ordering = k.IORING_SETUP_DEFER_TASKRUN | k.IORING_SETUP_SQPOLL
    if not flags & ordering and not system.total_store_order:
        # There other processors post completions while we look, and on a machine that reorders
        # loads we would need a barrier between the CQ tail and the CQEs, which Python lacks.
        # (Whoever asks for SQPOLL brings one: `_ring.polled`.)
        raise RingError(
            errno.ENOSYS,
            "this kernel's io_uring cannot defer completions, which this processor needs",
            "It needs Linux 6.1 here; another backend works without",
        )
    sq_off, cq_off = values[7:16], values[16:25]
    if not _is_power_of_two(sq_entries) or not _is_power_of_two(cq_entries):
        raise _misfit("queue sizes that are no powers of two", values)
    sqe_bytes, cqe_bytes = entry_sizes(flags)
    len_bytes = max(cq_off[5] + cq_entries * cqe_bytes, sq_off[6] + 4 * sq_entries)
    if flags & k.IORING_SETUP_NO_MMAP and memory is not None:
        rings, sqes_part = lend(memory, *queue_bytes(sq_entries, cq_entries, flags))
        if len_bytes > rings.len_bytes:
            raise _misfit("queues that are larger than the memory lent for them", values)
        return Ring(system, fd, values, rings, sqes_part)
    ring = system.map_ring(fd, k.IORING_OFF_SQ_RING, len_bytes)
    sqes: Mapping | None = None
    try:
        sqes = system.map_ring(fd, k.IORING_OFF_SQES, sq_entries * sqe_bytes)
        return Ring(system, fd, values, ring, sqes)
    except BaseException:
        ring.unmap()
        if sqes is not None:
            sqes.unmap()
        raise
