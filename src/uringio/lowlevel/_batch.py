"""
Requests recorded once, and put into a ring as often as wanted, all of them by one copy.

Filling a request costs a call and a ``pack_into``; a batch of them that is the same each time (the
same files, places and memory) costs a copy of 64 bytes each instead, and one dictionary step.
"""

import sys
from _thread import get_ident
from abc import abstractmethod
from array import array
from typing import Final

from uringio._ring.setup import Ring as Core
from uringio._sys import constants as k
from uringio._sys.layouts import CQE
from uringio.errors import QueueFullError, UsageError

from ._aliases import alias_all
from ._filling import WIDE, Request, lacking, set_address
from ._flight import Silent, join, refuse_memory, refuse_shared, remember
from ._waits import Waits

__all__ = ["Batch", "Batches"]

_SKIP: Final = k.IOSQE_CQE_SKIP_SUCCESS
_SELECT: Final = k.IOSQE_BUFFER_SELECT
_MORE: Final = k.IORING_CQE_F_MORE
_SIZE: Final = k.SIZEOF_SQE
# A completion is two words of 64 bits, the first its user_data, or four of 32, the third its
# result and the fourth its flags.
_WORDS: Final = k.SIZEOF_CQE // 8
_HALVES: Final = k.SIZEOF_CQE // 4
_U32: Final = (1 << 32) - 1
_PERSONALITY_AT: Final = 42


class Batch:
    """
    A list of requests for `Ring.put`, filled by the `prep_*` functions as a ring is.

    Attributes:
        raw: The SQEs. [bytes]
        opcodes: The operations among them.
        entries: Of each that posts a completion, its user_data and what it keeps.
        unique: The same by user_data, while no two share one; else None.
        recorded: What `columns` has returned, if nothing was added since; else None.
        held: What lives as long as the batch, and as any ring that it was put into needs it.
        silent: The user_data of those whose completion is skipped.
        named: The user_data of those with memory.

    Lifetime: what was given to its requests lives as long as the batch, and in a ring that it was
    put into until the last completion.
    """

    __slots__ = (
        "_request", "entries", "held", "named", "opcodes", "raw", "recorded", "renames", "silent",
        "unique",
    )  # fmt: skip

    def __init__(self) -> None:
        self.raw = bytearray()
        self.opcodes: set[int] = set()
        self.entries: list[tuple[int, object]] = []
        self.unique: dict[int, object] | None = {}
        self.held: list[object] = []
        self.renames: list[tuple[int, int]] = []
        self.silent: list[int] = []
        self.named: set[int] = set()
        self.recorded: tuple[memoryview, memoryview] | None = None
        self._request = Request()

    def __len__(self) -> int:
        return len(self.raw) // _SIZE

    def fill(
        self,
        opcode: int,
        fd: int,
        off: int,
        addr: int,
        len_: int,
        op_flags: int,
        user_data: int,
        flags: int,
        keep: object = None,
        ioprio: int = 0,
        buf_index: int = 0,
        file_index: int = 0,
        addr3: int = 0,
        attr_mask: int = 0,
        command: bytes = b"",
        /,
    ) -> None:
        """Add a request; raises UsageError for one of 128 bytes."""
        if opcode in WIDE:
            raise UsageError("a batch's requests have 64 bytes: fill this one into the ring itself")
        self._request.fill(
            opcode, fd, off, addr, len_, op_flags, user_data, flags, keep, ioprio, buf_index,
            file_index, addr3, attr_mask, command,
        )  # fmt: skip
        if flags & _SKIP:
            refuse_memory(keep, flags)
            self.silent.append(user_data)
            self.held.append(keep)
        else:
            self.entries.append((user_data, keep))
            if keep is not None or flags & _SELECT:
                self.named.add(user_data)
            if self.unique is not None:
                if user_data in self.unique:
                    self.unique = None
                else:
                    self.unique[user_data] = keep
        self.raw += self._request.raw
        self.recorded = None
        self.opcodes.add(opcode)

    def columns(self) -> tuple[memoryview, memoryview]:
        """Return its requests' user_data, and as many times no flags, as completions have them."""
        names = array("Q", [user_data for user_data, _ in self.entries])
        self.recorded = memoryview(names), memoryview(array("i", bytes(4 * len(names))))
        return self.recorded

    def hold(self, memory: object, /) -> None:
        """Keep something alive for as long as this, and as a ring that it was put into."""
        self.held.append(memory)

    def rename(self, old: int, new: int, /) -> None:
        """Expect the completions of a request under another user_data."""
        self.renames.append((old, new))

    def address(self, addr: int, len_bytes: int, keep: object, /) -> None:
        """Give the request that was added last, a send, an address to go to."""
        if not self.raw:
            raise UsageError("no request was filled yet")
        set_address(self.raw, len(self.raw) - _SIZE, addr, len_bytes)
        self.held.append(keep)


class Batches(Waits):
    """
    The part of a `Ring` that takes requests by the batch.

    What is kept: *_whole_at*, how many requests had been filled when *_whole* was put; *_silent*,
    the user_data of requests whose completion is skipped.
    """

    opcodes: frozenset[int]
    _lifelong: list[object]

    def __init__(self) -> None:
        super().__init__()
        self._whole_at = 0
        self._silent: Silent = {}

    @abstractmethod
    def rename(self, old: int, new: int, /) -> None:
        """Expect the completions of a request under another user_data."""

    def put(self, batch: Batch) -> None:
        """
        Fill as many slots as *batch* has requests, by one copy.

        It may be put again, also while its requests are in flight, as far as the operations allow.

        Raises:
            QueueFullError: There is less room; nothing was filled.
            UnsupportedError: The kernel lacks one of its operations.
            UsageError: The ring has slots of 128 bytes; or the completion of a request is skipped,
                and the ring takes messages, or a request with memory has the same user_data.
            WrongThreadError: Another thread owns the ring.
        """
        core = self._core
        if core is None or get_ident() != self._owner:
            core = self._usable()  # which raises
        if self._unwanted >= 0 and any(one == self._unwanted for one, _ in batch.entries):
            raise ValueError(f"user_data {self._unwanted:#x} is the ring's own")
        if self.opcodes and not batch.opcodes <= self.opcodes:
            raise lacking(min(batch.opcodes - self.opcodes), False)
        flight, unique, secret = self._flight, batch.unique, self._secret
        if batch.silent or self._silent:
            self._keep_names_apart(core, batch)
        if secret:
            unique = None
        _copy_into(alias_all(batch.raw, secret) if secret else batch.raw, core, self._cells)
        self._whole = None if flight or unique is None else batch
        if unique is not None and (not flight or flight.keys().isdisjoint(unique)):
            flight.update(unique)
        else:
            for user_data, keep in batch.entries:
                join(flight, user_data ^ secret, keep)
        if batch.renames:
            self._whole = None
            for old, new in batch.renames:
                self.rename(old, new)
        if batch.held:
            self._lifelong += batch.held
        self._cells[0] = self._whole_at = self._cells[0] + len(batch.raw) // _SIZE

    def _keep_names_apart(self, core: Core, batch: Batch) -> None:
        """Refuse a batch by which a failure could be taken for the end of a request with memory."""
        for user_data in batch.silent:
            remember(self._silent, self._flight, user_data, bool(core.buffer_rings))
        if shared := batch.named & self._silent.keys():
            raise refuse_shared(min(shared))

    def run(self, batch: Batch) -> list[int]:
        """
        Put a batch, wait until all its requests have ended, and return their results in its order.

        Of a request with several completions the first one's result counts.  Completions of other
        requests that come meanwhile are handed out by the next call of `wait` or `take`, and so are
        those of the batch where a signal handler raises.

        Raises:
            UsageError: Two of its requests share a user_data, or one posts no completion; a request
                in flight has one's user_data; the ring's completions have 32 bytes, or it takes
                messages.
            WrongThreadError, QueueFullError, UnsupportedError: As `put`.

        Cost: where nothing else is in flight and completions come in the order of the requests,
        they are looked at as columns, not one by one.
        """
        unique, count = batch.unique, len(batch.raw) // _SIZE
        if self._secret:
            raise UsageError(
                "a ring that takes messages cannot tell them from results: use put() and wait()"
            )
        if unique is None or len(unique) != count or self._big:
            raise _unfit_to_run(batch, self._big)
        alone = not self._flight and not self._storage
        if not alone and not self._flight.keys().isdisjoint(unique):
            raise UsageError("a request in flight has a user_data of the batch's: choose another")
        self.put(batch)
        if not alone:
            return self._collect(unique)
        core = self._open()
        self._enter(core, count, None)
        head = core.cq_head[0]
        if not self._whole_has_ended(core, head):
            return self._collect(unique)
        at = (head & core.cq_entries - 1) * _HALVES
        results: list[int] = core.cqe_halves[at + 2 : at + count * _HALVES : _HALVES].tolist()
        if core.cq_head[0] != head or self._whole_at != self._cells[0]:
            return self._collect(unique)  # a signal handler has been here: they run behind calls
        core.cq_head[0] = head + count & _U32
        self._whole = None
        self._completed += count
        try:
            self._flight.clear()
        except BaseException:  # out of such a handler
            self._keep_for_later(
                [(name, res, 0) for name, res in zip(unique, results, strict=True)]
            )
            raise
        return results

    def _take_whole(self, core: Core) -> list[tuple[int, int, int]]:
        """Take the completions of a whole batch, if nothing else stands in the queue."""
        head = core.cq_head[0]
        if not self._whole_has_ended(core, head):
            return []
        count = len(self._flight)
        at = (head & core.cq_entries - 1) * k.SIZEOF_CQE
        taken = list(CQE.iter_unpack(core.cqes[at : at + count * k.SIZEOF_CQE]))
        if core.cq_head[0] != head or self._whole_at != self._cells[0]:
            return []  # a signal handler has been here: they run behind calls
        core.cq_head[0] = head + count & _U32
        self._whole = None
        self._completed += count
        try:
            self._flight.clear()
        except BaseException:  # out of such a handler
            self._keep_for_later(taken)
            raise
        return taken

    def _keep_for_later(self, taken: list[tuple[int, int, int]]) -> None:
        """Have completions that were handed out already handed out again, by the next call."""
        self._storage[:0] = taken
        self._settled += len(taken)
        self._completed -= len(taken)

    def _whole_has_ended(self, core: Core, head: int) -> bool:
        """
        Tell whether the queue holds the last completions of a whole batch, in its order.

        And nothing else; nor was any other request filled since.  What is compared are columns of
        the queue's memory.
        """
        whole = self._whole
        if whole is None or self._whole_at != self._cells[0] or self._big:
            return False
        if self._fence is not None:  # its completions may need more than a look
            return False
        names, no_flags = whole.recorded or whole.columns()
        count = len(names)
        at = head & core.cq_entries - 1
        end = at + count
        return (
            (core.cq_tail[0] - head) & _U32 == count == len(self._flight)
            and end <= core.cq_entries
            and core.cqe_words[at * _WORDS : end * _WORDS : _WORDS] == names
            and core.cqe_halves[at * _HALVES + 3 : end * _HALVES : _HALVES] == no_flags
        )

    def _collect(self, unique: dict[int, object]) -> list[int]:
        """Wait for requests one by one, and leave the completions of others for later."""
        found: dict[int, int] = {}
        others: list[tuple[int, int, int]] = []
        mine: list[tuple[int, int, int]] = []
        missing = len(unique)
        try:
            while missing:
                for one in self.wait():
                    name, res, flags = one
                    if name not in unique:
                        others.append(one)
                        continue
                    mine.append(one)
                    found.setdefault(name, res)
                    missing -= not flags & _MORE
            mine.clear()
        finally:
            others += mine
            self._keep_for_later(others)
        return [found[name] for name in unique]


def _unfit_to_run(batch: Batch, big: bool) -> UsageError:
    if big:
        return UsageError("completions of this ring have 32 bytes: use put() and wait_big()")
    if batch.unique is None:
        return UsageError("two requests of the batch share a user_data: use put() and wait()")
    return UsageError("a request of the batch posts no completion: use put() and wait()")


def _copy_into(raw: bytearray, core: Core, cells: list[int]) -> None:
    """
    Write the requests into the next slots; the count of filled ones is the caller's to move.

    Args:
        cells: As in `make_fill`.

    Raises:
        QueueFullError: There is less room; nothing was written.
        UsageError: The ring has slots of 128 bytes.
    """
    if core.sqe_bytes != _SIZE:
        raise UsageError("a batch fits slots of 64 bytes, and this ring's have 128")
    entries, sqes = core.sq_entries, core.sqes
    tail, count = cells[0], len(raw) // _SIZE
    cells[2] = tail + entries - ((tail - core.sq_head[0]) & 0xFFFFFFFF)
    if tail + count > cells[2]:
        raise QueueFullError(
            f"{count} requests do not fit {cells[2] - tail} slots: submit() first, or make the "
            "ring larger"
        )
    start = tail & entries - 1
    if start + count <= entries:
        sqes[start * _SIZE : (start + count) * _SIZE] = raw
    else:
        first = (entries - start) * _SIZE
        sqes[start * _SIZE :] = raw[:first]
        sqes[: len(raw) - first] = raw[first:]
    if cells[1]:
        personality = cells[1].to_bytes(2, sys.byteorder)
        for index in range(tail, tail + count):
            at = (index & entries - 1) * _SIZE + _PERSONALITY_AT
            sqes[at : at + 2] = personality
