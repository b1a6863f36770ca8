"""Systems that answer as a test wants, and a kernel in miniature."""

import errno
from ctypes import c_size_t, c_void_p
from typing import NamedTuple

from uringio._ring.setup import DEFAULT_FLAGS, Ring
from uringio._sys import constants as k
from uringio._sys.layouts import CQE, PARAMS, SQE
from uringio._sys.system import Mapping, System


class RefusesSetups(System):
    """
    Refuses the first *count* set-ups.

    Attributes:
        flags_tried: The set-up flags of every attempt.
        sizes_tried: (entries, cq_entries) of every attempt.
    """

    def __init__(self, count: int, number: int = errno.EINVAL) -> None:
        super().__init__()
        self.flags_tried: list[int] = []
        self.sizes_tried: list[tuple[int, int]] = []
        self._count = count
        self._number = number

    def io_uring_setup(self, entries: int, params_addr: int) -> int:
        values = PARAMS.unpack(self.memory_at(params_addr, PARAMS.size))
        self.flags_tried.append(values[2])
        self.sizes_tried.append((entries, values[1]))
        if len(self.flags_tried) <= self._count:
            return -self._number
        return super().io_uring_setup(entries, params_addr)


class Entered(NamedTuple):
    """One call of the bare door and its outcome."""

    fd: int
    to_submit: int
    min_complete: int
    flags: int
    argp: c_void_p
    argsz: c_size_t
    result: int  # or the negative errno


class Enters(System):
    """
    Notes every enter, and answers the first ones itself.

    Attributes:
        answers: Negative errnos for the next calls, taken from the front.
        always: A negative errno for every call, 0 for none.
        log: What went through the bare door.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[int] = []
        self.always = 0
        self.log: list[Entered] = []
        self._real_syscall = self.bare_syscall
        self._real_errno = self.get_errno
        self._number = 0
        self.bare_syscall = self._enter
        self.get_errno = lambda: self._number

    def _enter(
        self,
        nr: int,
        fd: int,
        to_submit: int,
        min_complete: int,
        flags: int,
        argp: c_void_p,
        argsz: c_size_t,
        /,
    ) -> int:
        assert nr == k.NR_IO_URING_ENTER
        result = self.always or (self.answers.pop(0) if self.answers else 0)
        if not result:
            result = self._real_syscall(nr, fd, to_submit, min_complete, flags, argp, argsz)
            self._number = self._real_errno() if result < 0 else 0
            result = -self._number or result
        else:
            self._number = -result
        self.log.append(Entered(fd, to_submit, min_complete, flags, argp, argsz, result))
        return result if result >= 0 else -1


class PlainMapping(Mapping):
    """Ordinary memory where a ring would be."""

    def __init__(self, len_bytes: int) -> None:
        self.view = memoryview(bytearray(len_bytes))

    def unmap(self) -> None:
        """Nothing was mapped."""


# Where `plain_ring` puts the words; the arrays follow. [bytes]
SQ_OFFSETS = (0, 4, 8, 12, 16, 20, 0, 0, 0)
CQ_OFFSETS = (32, 36, 40, 44, 48, 64, 52, 0, 0)


def plain_ring(system: System, entries: int, cq_entries: int, start: int = 0) -> Ring:
    """Make a ring of ordinary memory whose indexes all stand at *start*."""
    ring = PlainMapping(64 + cq_entries * CQE.size)
    sqes = PlainMapping(entries * SQE.size)
    words = ring.view[:64].cast("I")
    for index in (0, 1, 8, 9):
        words[index] = start
    words[2], words[10] = entries - 1, cq_entries - 1
    params = (entries, cq_entries, DEFAULT_FLAGS, 0, 0, 0, 0, *SQ_OFFSETS, *CQ_OFFSETS)
    return Ring(system, 1 << 20, params, ring, sqes)


class TinyKernel(System):
    """
    Completes every request at once with its `len` as the result, and keeps what overflows.

    Attributes:
        ring: The ring that it serves, to be set by the test.
        take_max: The most requests that one enter consumes.
    """

    ring: Ring

    def __init__(self) -> None:
        super().__init__()
        self.take_max = 1 << 16
        self.overflow: list[bytes] = []
        self.bare_syscall = self._enter

    def _enter(
        self,
        nr: int,
        fd: int,
        to_submit: int,
        min_complete: int,
        flags: int,
        argp: c_void_p,
        argsz: c_size_t,
        /,
    ) -> int:
        del nr, fd, min_complete, flags, argp, argsz
        ring = self.ring
        self._flush()
        ready = (ring.sq_tail[0] - ring.sq_head[0]) % 2**32
        assert 0 <= to_submit <= ready <= ring.sq_entries
        count = min(to_submit, self.take_max)
        for _ in range(count):
            slot = ring.sq_head[0] % ring.sq_entries
            fields = SQE.unpack_from(ring.sqes, slot * SQE.size)
            self.overflow.append(CQE.pack(fields[6], fields[4], fields[0]))
            ring.sq_head[0] = (ring.sq_head[0] + 1) % 2**32
        self._flush()
        return count

    def _flush(self) -> None:
        ring = self.ring
        while self.overflow and (ring.cq_tail[0] - ring.cq_head[0]) % 2**32 < ring.cq_entries:
            start = ring.cq_tail[0] % ring.cq_entries * CQE.size
            ring.cqes[start : start + CQE.size] = self.overflow.pop(0)
            ring.cq_tail[0] = (ring.cq_tail[0] + 1) % 2**32
        bit = k.IORING_SQ_CQ_OVERFLOW if self.overflow else 0
        ring.sq_flags[0] = ring.sq_flags[0] & ~k.IORING_SQ_CQ_OVERFLOW | bit
