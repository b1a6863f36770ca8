"""
What is registered with a ring, as methods by liburing's names.

Each raises an `OpError` named for it, whose text tells which kernel brought the registration when
the answer may mean that this one lacks it.  Memory and buffers that were registered are kept alive
by the ring until they are unregistered or the ring has closed.
"""

import operator
from _thread import get_ident
from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from uringio._ring import register as r
from uringio._ring.probe import probe_ring
from uringio._ring.resize import resize_rings
from uringio._ring.setup import Ring as Core
from uringio._sys import constants as k
from uringio._sys.layouts import (
    BUF_STATUS,
    CLONE_BUFFERS,
    FILE_INDEX_RANGE,
    IOVEC,
    NAPI,
    RSRC_REGISTER,
    RSRC_UPDATE2,
    SYNC_CANCEL_REG,
)
from uringio._sys.memory import pin
from uringio._sys.packing import packed, packed_all
from uringio.errors import UsageError

from ._aliases import alias_target
from ._flight import Flight
from ._memory import Target, target
from ._opcodes import RegisterOp
from ._provided import ProvidedBuffers
from ._registering import Registering
from ._slots import processor_mask

if TYPE_CHECKING:
    from ._ring import Ring

__all__ = ["Registrations"]

_NS_PER_S: Final = 1_000_000_000
_U32: Final = (1 << 32) - 1


class Registrations(Registering):
    """The registrations of a `Ring`."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: dict[int, object] = {}

    @abstractmethod
    def _remap(self, core: Core) -> None: ...

    @abstractmethod
    def _rewire(self) -> None: ...

    _cells: list[int]
    _flight: Flight
    # What a ring that takes messages has its requests' user_data combined with; 0: nothing.
    _secret: int

    def register_probe(self) -> frozenset[int]:
        """
        Ask the kernel which operations it has, as `Ring.opcodes` did when the ring was made.

        Raises:
            OpError: A restriction or a filter forbids asking.

        Kernel: 5.6.  Twin: io_uring_get_probe_ring.
        """
        return probe_ring(self._usable()).opcodes

    # --- files -----------------------------------------------------------------------------------

    def register_files(self, fds: Sequence[int], tags: Sequence[int] | None = None) -> None:
        """
        Make a table of files, for requests with `SqeFlags.FIXED_FILE`; -1 leaves a slot empty.

        Args:
            tags: For each slot, the user_data of a completion that tells when the kernel has let
                go of the file; 0 for none.  Kernel: 5.13.

        Kernel: 5.1.  Twin: io_uring_register_files, io_uring_register_files_tags.
        """
        raw = packed_all("i", fds, "a descriptor")
        if tags is None:
            self.register(RegisterOp.FILES, raw, len(fds))
            return
        self._tagged(RegisterOp.FILES2, raw, _tags(tags, len(fds)), len(fds))

    def register_files_sparse(self, count: int) -> None:
        """Make a table of empty slots.  Kernel: 5.19.  Twin: io_uring_register_files_sparse."""
        argument = packed(
            RSRC_REGISTER, count=count, flags=k.IORING_RSRC_REGISTER_SPARSE, data=0, tags=0
        )
        self.register(RegisterOp.FILES2, argument, len(argument))

    def register_files_update(
        self, first_slot: int, fds: Sequence[int], tags: Sequence[int] | None = None
    ) -> int:
        """
        Replace slots from *first_slot* on, and return how many were; -1 empties, -2 leaves one.

        Kernel: 5.5, with tags 5.13.  Twin: io_uring_register_files_update(_tag).
        """
        if tags is None:
            self._check_thread()
            return r.register_files_update(self._open(), first_slot, fds)
        raw = packed_all("i", fds, "a descriptor")
        marks = _tags(tags, len(fds))
        addr, _, _keep = pin(raw)
        marks_addr, _, _keep_too = pin(marks)
        argument = packed(
            RSRC_UPDATE2, first_slot=first_slot, data=addr, tags=marks_addr, count=len(fds)
        )
        return self.register(RegisterOp.FILES_UPDATE2, argument, len(argument))

    def unregister_files(self) -> None:
        """Drop the table; requests that use its files go on.  Kernel: 5.1."""
        self.register(RegisterOp.UNREGISTER_FILES)

    def register_file_alloc_range(self, first_slot: int, count: int) -> None:
        """
        Bound the slots that the kernel chooses from where it is asked to choose one.

        Kernel: 6.0.  Twin: io_uring_register_file_alloc_range.
        """
        argument = packed(FILE_INDEX_RANGE, first_slot=first_slot, count=count)
        self.register(RegisterOp.FILE_ALLOC_RANGE, argument)

    # --- memory ----------------------------------------------------------------------------------

    def register_buffers(self, pieces: Sequence[Target], tags: Sequence[int] | None = None) -> None:
        """
        Pin memory for fixed-buffer requests, which then name it by its place in *pieces*.

        Args:
            tags: For each piece, the user_data of a completion that tells when the kernel has let
                go of it; 0 for none.  Kernel: 5.13.

        Lifetime: kept until `unregister_buffers`.  Counts against the locked-memory limit.
        Kernel: 5.1.  Twin: io_uring_register_buffers, io_uring_register_buffers_tags.
        """
        raw, kept = _vectors(pieces)
        if tags is None:
            self.register(RegisterOp.BUFFERS, raw, len(pieces))
        else:
            self._tagged(RegisterOp.BUFFERS2, raw, _tags(tags, len(pieces)), len(pieces))
        self._buffers = {**self._retired(), **dict(enumerate(kept))}

    def register_buffers_sparse(self, count: int) -> None:
        """Make empty slots for memory.  Kernel: 5.19.  Twin: io_uring_register_buffers_sparse."""
        argument = packed(
            RSRC_REGISTER, count=count, flags=k.IORING_RSRC_REGISTER_SPARSE, data=0, tags=0
        )
        self.register(RegisterOp.BUFFERS2, argument, len(argument))

    def register_buffers_update(
        self, first_slot: int, pieces: Sequence[Target], tags: Sequence[int] | None = None
    ) -> int:
        """
        Replace slots from *first_slot* on, and return how many were.

        Lifetime: memory that was replaced is kept too, until `unregister_buffers`, since requests
        in flight may still use it.  Kernel: 5.13.  Twin: io_uring_register_buffers_update_tag.
        """
        raw, kept = _vectors(pieces)
        marks = _tags(tags or [0] * len(pieces), len(pieces))
        addr, _, _keep = pin(raw)
        marks_addr, _, _keep_too = pin(marks)
        argument = packed(
            RSRC_UPDATE2, first_slot=first_slot, data=addr, tags=marks_addr, count=len(pieces)
        )
        count = self.register(RegisterOp.BUFFERS_UPDATE, argument, len(argument))
        for index, one in enumerate(kept, first_slot):
            self._buffers[index] = (self._buffers.get(index), one)
        return count

    def unregister_buffers(self) -> None:
        """
        Unpin the memory, as far as no request in flight uses it.

        Lifetime: with requests in flight it is kept on, until memory is registered or unregistered
        with none; tags tell of each piece when it is free.  Kernel: 5.1.
        """
        self.register(RegisterOp.UNREGISTER_BUFFERS)
        self._buffers = self._retired()

    def _retired(self) -> dict[int, object]:
        """Return what requests in flight may still use of the memory registered so far."""
        return {-1: self._buffers} if self._flight and self._buffers else {}

    def locate(self) -> tuple[int, bool]:
        """
        Tell by which number other calls find the ring, and whether that is a registered index.

        It is the descriptor where there is one.

        Raises:
            WrongThreadError: There is none, and the index is another thread's.
        """
        core = self._open()
        if core.fd >= 0:
            return core.fd, False
        self._check_thread()
        return core.enter_fd, True

    def clone_buffers(
        self, other: "Ring", *, first: int = 0, other_first: int = 0, count: int = 0, flags: int = 0
    ) -> None:
        """
        Share the pinned memory of another ring.

        Args:
            first: The first slot here.
            other_first: The first slot there.
            count: How many; 0: all from *other_first* on.
            flags: `CloneBuffersFlags`: DST_REPLACE to take slots that are not empty; with
                SRC_REGISTERED, the other is found by the index of its `register_ring_fd`.

        Raises:
            OpError: EBUSY, there is a table already; ENXIO, the other has none; EINVAL or
                EOVERFLOW, it has no such slots, or the kernel is too old.
            UsageError: The other has no index in this thread.

        Lifetime: memory is kept by both; what is replaced, until `unregister_buffers`.
        Kernel: 6.12, offsets and DST_REPLACE 6.13.  Twin: io_uring_clone_buffers_offset.
        """
        number, flags = other._found_by(flags)
        argument = packed(
            CLONE_BUFFERS,
            number=number,
            flags=flags,
            other_first=other_first,
            first=first,
            count=count,
        )
        self.register(RegisterOp.CLONE_BUFFERS, argument, 1)
        self._buffers = {**self._buffers, -1 - len(self._buffers): dict(other._buffers)}

    def setup_buf_ring(
        self,
        group: int,
        count: int,
        buffer_bytes: int,
        *,
        incremental: bool = False,
        min_left_bytes: int = 0,
        mapped: bool = False,
    ) -> ProvidedBuffers:
        """
        Provide a group of buffers, of which the kernel takes one when data is there.

        Args:
            count: A power of two, up to 32768.
            incremental: Have large buffers consumed bit by bit.  Kernel: 6.12.
            min_left_bytes: With *incremental*, when so little is left of a buffer, go on with the
                next one.  Kernel: 7.1. [bytes]
            mapped: Have the kernel allocate the entries, and map them; the buffers are ours either
                way.  For kernels that cannot pin memory of the program's, such as huge pages.
                Kernel: 6.4.

        Raises:
            OpError: EEXIST, the group is there; EINVAL, the kernel is too old.
            ValueError: No kernel could have such a group.

        Kernel: 5.19.  Twin: io_uring_setup_buf_ring.
        """
        if min_left_bytes and not incremental:
            raise ValueError("a least rest of a buffer needs incremental=True")
        if not 0 <= min_left_bytes < 1 << 32:
            raise ValueError(f"the least rest of a buffer cannot be {min_left_bytes} bytes")
        flags = (k.IOU_PBUF_RING_INC if incremental else 0) | (
            k.IOU_PBUF_RING_MMAP if mapped else 0
        )
        # A request in flight may still fill a buffer of the group that had this number before.
        before = self._usable().buffer_rings.get(group) if self._flight else None
        return ProvidedBuffers(
            self._usable, group, count, buffer_bytes, flags, min_left_bytes, before
        )

    def buf_ring_head(self, group: int) -> int:
        """
        Return how many buffers of a group were taken, modulo 65536.

        Kernel: 6.8.  Twin: io_uring_buf_ring_head.
        """
        argument = bytearray(packed(BUF_STATUS, group=group, head=0))
        self.register(RegisterOp.PBUF_STATUS, argument, 1)
        head: int = BUF_STATUS.unpack(argument)[1]
        return head

    # --- notification ----------------------------------------------------------------------------

    def register_eventfd(self, fd: int, *, only_async: bool = False) -> None:
        """
        Have an eventfd count completions, or only those that did not come with the submission.

        Kernel: 5.2, *only_async* 5.6.  Twin: io_uring_register_eventfd(_async).
        """
        op = RegisterOp.EVENTFD_ASYNC if only_async else RegisterOp.EVENTFD
        self.register(op, packed_all("i", (fd,), "a descriptor"), 1)

    def unregister_eventfd(self) -> None:
        """No longer.  Kernel: 5.2."""
        self.register(RegisterOp.UNREGISTER_EVENTFD)

    @property
    def eventfd_enabled(self) -> bool:
        """
        Whether the eventfd is written to; settable without a system call.

        Kernel: 5.8.  Twin: io_uring_cq_eventfd_enabled, io_uring_cq_eventfd_toggle.
        """
        return not self._open().cq_flags[0] & k.IORING_CQ_EVENTFD_DISABLED

    @eventfd_enabled.setter
    def eventfd_enabled(self, enabled: bool) -> None:
        word = self._open().cq_flags
        self._check_thread()
        if enabled:
            word[0] &= ~k.IORING_CQ_EVENTFD_DISABLED
        else:
            word[0] |= k.IORING_CQ_EVENTFD_DISABLED

    # --- workers, clocks, waits ------------------------------------------------------------------

    def register_iowq_aff(self, processors: Collection[int]) -> None:
        """
        Choose the processors that the ring's workers may run on.

        Kernel: 5.14.  Twin: io_uring_register_iowq_aff.
        """
        raw = processor_mask(processors)
        self.register(RegisterOp.IOWQ_AFF, raw, len(raw))

    def unregister_iowq_aff(self) -> None:
        """Allow them all again.  Kernel: 5.14."""
        self.register(RegisterOp.UNREGISTER_IOWQ_AFF)

    def register_iowq_max_workers(self, bounded: int = 0, unbounded: int = 0) -> tuple[int, int]:
        """
        Bound the kernel's worker threads, and return the old bounds; 0 leaves one as it is.

        Kernel: 5.15.  Twin: io_uring_register_iowq_max_workers.
        """
        self._check_thread()
        return r.register_iowq_max_workers(self._open(), bounded, unbounded)

    def resize_rings(self, entries: int, cq_entries: int) -> None:
        """
        Change the queues' sizes; what stands in them stays.

        Queues in memory of the program's move to other memory, which is made here.

        Raises:
            OpError: EINVAL: the ring was made without `SetupFlags.DEFER_TASKRUN`, or the kernel is
                too old; EOVERFLOW: what stands in the queues would not fit.

        Kernel: 6.13.  Twin: io_uring_resize_rings.
        """
        if not 1 <= entries <= cq_entries < 1 << 32:
            raise ValueError(f"queues cannot have {entries} and {cq_entries} slots")
        core = self._usable()
        if core.flags & k.IORING_SETUP_SQ_REWIND:
            raise UsageError("a queue that starts anew with each batch keeps its size (SQ_REWIND)")
        if core.flags & k.IORING_SETUP_SQE_MIXED and self._cells[0] & _U32 != core.sq_head[0]:
            raise UsageError(
                "a large request could come to lie across the end of the new queue: submit() what "
                "was filled first (SQE_MIXED)"
            )
        self._remap(resize_rings(core, self._cells[0], entries, cq_entries))

    def register_ring_fd(self) -> None:
        """
        Let the kernel find the ring without looking its descriptor up.

        Kernel: 5.18.  Twin: io_uring_register_ring_fd.
        """
        core = self._usable()
        r.register_ring_fd(core)
        self._rewire()

    def unregister_ring_fd(self) -> None:
        """By its descriptor again.  Kernel: 5.18.  Twin: io_uring_unregister_ring_fd."""
        core = self._usable()
        if core.fd < 0:
            raise UsageError("this ring has no descriptor to go back to (REGISTERED_FD_ONLY)")
        r.unregister_ring_fd(core)
        self._rewire()

    def register_sync_cancel(
        self,
        user_data: int = 0,
        *,
        fd: int = -1,
        flags: int = 0,
        opcode: int = 0,
        timeout_ns: int | None = None,
    ) -> int:
        """
        Cancel requests, wait until they have ended, and return how many.

        Args:
            fd, flags, opcode: What to match, by `CancelFlags`.
            timeout_ns: How long to wait for their end; None: for ever.

        Their completions still have to be taken.  Kernel: 6.0.
        Twin: io_uring_register_sync_cancel.

        Raises:
            OpError: ENOENT, nothing matched; ETIME, some had not ended.
        """
        if timeout_ns is not None and not 0 <= operator.index(timeout_ns) < 1 << 63:
            raise ValueError(f"a cancellation cannot take {timeout_ns} ns")
        seconds, rest = (-1, -1) if timeout_ns is None else divmod(timeout_ns, _NS_PER_S)
        user_data = alias_target(flags, user_data, self._secret)
        argument = packed(
            SYNC_CANCEL_REG,
            user_data=user_data,
            fd=fd,
            flags=flags,
            timeout_ns=seconds,
            rest=rest,
            opcode=opcode,
        )
        return self.register(RegisterOp.SYNC_CANCEL, argument, 1)

    def register_napi(
        self, busy_poll_us: int, *, prefer_busy_poll: bool = False
    ) -> tuple[int, bool]:
        """
        Have waits poll the network card so long before they sleep.

        Args:
            busy_poll_us: How long. [microseconds]
            prefer_busy_poll: Keep the card from interrupting meanwhile.

        Returns:
            Both, as they were before.

        Raises:
            OpError: EINVAL, the kernel is too old, or was built without.

        Kernel: 6.9.  Twin: io_uring_register_napi.
        """
        if not 0 <= busy_poll_us < 1 << 32:
            raise ValueError(f"a time to poll is up to 2**32 - 1 microseconds, not {busy_poll_us}")
        return self._napi(RegisterOp.NAPI, busy_poll_us, prefer_busy_poll)

    def unregister_napi(self) -> tuple[int, bool]:
        """No longer; returns what was set.  Kernel: 6.9.  Twin: io_uring_unregister_napi."""
        return self._napi(RegisterOp.UNREGISTER_NAPI, 0, False)

    def _napi(self, op: RegisterOp, busy_poll_us: int, prefer: bool) -> tuple[int, bool]:
        argument = bytearray(packed(NAPI, busy_poll_us=busy_poll_us, prefer_busy_poll=prefer))
        self.register(op, argument, 1)
        before: tuple[int, int] = NAPI.unpack(argument)
        return before[0], bool(before[1])

    def _found_by(self, flags: int) -> tuple[int, int]:
        """Tell where the kernel finds this ring, to take memory from it, and by which flags."""
        number, registered = self.locate()
        if registered:
            return number, flags | k.IORING_REGISTER_SRC_REGISTERED
        if flags & k.IORING_REGISTER_SRC_REGISTERED:
            core = self._open()
            if core.registered_by != get_ident():
                raise UsageError(
                    "the other ring has no registered index: call its register_ring_fd()"
                )
            number = core.enter_fd
        return number, flags

    def _tagged(self, op: RegisterOp, raw: bytes, marks: bytes, count: int) -> None:
        addr, _, _keep = pin(raw)
        marks_addr, _, _keep_too = pin(marks)
        argument = RSRC_REGISTER.pack(count, 0, addr, marks_addr)
        self.register(op, argument, len(argument))


def _tags(tags: Sequence[int], count: int) -> bytes:
    if len(tags) != count:
        raise ValueError(f"{len(tags)} tags for {count} slots")
    return packed_all("Q", tags, "a tag")


def _vectors(pieces: Sequence[Target]) -> tuple[bytes, list[object]]:
    raw = b""
    kept: list[object] = []
    for piece in pieces:
        addr, size, keep = target(piece, None)
        raw += IOVEC.pack(addr, size)
        kept.append(keep)
    return raw, kept
