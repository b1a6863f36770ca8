"""A kernel in miniature that has what Linux 6.18 lacks: mixed sizes, rewound queues."""

import errno
import os
from ctypes import c_size_t, c_void_p

from tests.ring.stand_ins import PlainMapping
from uringio._sys import constants as k
from uringio._sys.layouts import CQE, PARAMS, PROBE_HEAD, PROBE_OP, SQE_FULL
from uringio._sys.system import System

# Where the words, the index array of up to 16 slots, and the completions are. [bytes]
_SQ_OFFSETS = (0, 4, 16, 24, 36, 32, 64, 0, 0)
_CQ_OFFSETS = (8, 12, 20, 28, 44, 128, 40, 0, 0)
_WIDE = {k.IORING_OP_NOP128, k.IORING_OP_URING_CMD128}
_LINKS = k.IOSQE_IO_LINK | k.IOSQE_IO_HARDLINK


class YoungKernel(System):
    """
    Completes every request inside the call, in order, and breaks chains as the kernel does.

    A NOP with a result has that; what is 128 bytes long is refused where the kernel refuses it.

    Attributes:
        take_max: The most slots that one enter consumes.
        commands: The 80 bytes of every URING_CMD128 that was taken.
        taken: (opcode, user_data) of all requests, those included that padded the queue's end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.take_max = 1 << 16
        self.commands: list[bytes] = []
        self.taken: list[tuple[int, int]] = []
        self.bare_syscall = self._enter

    def io_uring_setup(self, entries: int, params_addr: int) -> int:
        """Describe queues that `map_ring` will make."""
        params = self.memory_at(params_addr, PARAMS.size)
        values = PARAMS.unpack(params)
        self.entries, self.cq_entries, self.flags = entries, values[1], values[2]
        features = (1 << 18) - 1 & ~k.IORING_FEAT_NO_IOWAIT
        PARAMS.pack_into(
            params, 0, entries, values[1], self.flags, 0, 0, features, 0, *_SQ_OFFSETS,
            *_CQ_OFFSETS,
        )  # fmt: skip
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def map_ring(self, fd: int, offset: int, len_bytes: int) -> PlainMapping:
        """Give ordinary memory."""
        made = PlainMapping(max(len_bytes, 4096))
        if offset == k.IORING_OFF_SQES:
            self.sqes = made.view
        else:
            self.ring, self.words = made.view, made.view[:64].cast("I")
            self.words[4], self.words[5] = self.entries - 1, self.cq_entries - 1
        return made

    def io_uring_register(self, fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        """Tell that every operation is known."""
        assert opcode == k.IORING_REGISTER_PROBE
        raw = self.memory_at(arg_addr, PROBE_HEAD.size + nr_args * PROBE_OP.size)
        PROBE_HEAD.pack_into(raw, 0, k.IORING_OP_URING_CMD128, k.IORING_OP_URING_CMD128 + 1)
        for op in range(k.IORING_OP_URING_CMD128 + 1):
            at = PROBE_HEAD.size + op * PROBE_OP.size
            PROBE_OP.pack_into(raw, at, op, k.IO_URING_OP_SUPPORTED)
        return 0

    def _enter(
        self, nr: int, fd: int, to_submit: int, least: int, flags: int, argp: c_void_p,
        argsz: c_size_t, /,
    ) -> int:  # fmt: skip
        words, mask = self.words, self.entries - 1
        rewound = self.flags & k.IORING_SETUP_SQ_REWIND
        if rewound:
            assert (words[0], words[1]) == (0, 0), "head and tail of a rewound queue stay zero"
            start = 0
        else:
            start = words[0]
            assert to_submit <= (words[1] - start) % 2**32
        left = min(to_submit, self.take_max)
        at, chained, broken = start, False, False
        while left:
            slot = at & mask
            sqe = self.sqes[slot * 64 : slot * 64 + 64]
            fields = SQE_FULL.unpack(sqe)
            opcode, sqe_flags, user_data = sqe[0], sqe[1], fields[6]
            used, result = 1, 0
            if opcode in _WIDE:
                if not self.flags & k.IORING_SETUP_SQE_MIXED or left < 2 or slot == mask:
                    result = -errno.EINVAL
                else:
                    used = 2
            if not chained:
                broken = False
            if broken:
                result = -errno.ECANCELED
            elif used == 2 and opcode == k.IORING_OP_URING_CMD128:
                self.commands.append(bytes(self.sqes[slot * 64 + 48 : slot * 64 + 128]))
            elif opcode == k.IORING_OP_NOP and fields[5] & k.IORING_NOP_INJECT_RESULT:
                result = fields[4] - (1 << 32) if fields[4] >> 31 else fields[4]
            broken = broken or (result < 0 and not sqe_flags & k.IOSQE_IO_HARDLINK)
            chained = bool(sqe_flags & _LINKS)
            self.taken.append((opcode, user_data))
            if not (result >= 0 and sqe_flags & k.IOSQE_CQE_SKIP_SUCCESS):
                self._post(user_data, result)
            at += used
            left -= used
        if not rewound:
            words[0] = at % 2**32
        return at - start

    def _post(self, user_data: int, result: int) -> None:
        tail = self.words[3]
        assert (tail - self.words[2]) % 2**32 < self.cq_entries
        CQE.pack_into(self.ring, 128 + tail % self.cq_entries * 16, user_data, result, 0)
        self.words[3] = (tail + 1) % 2**32
