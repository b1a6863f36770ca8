"""
The real kernel, with less of io_uring than it has.

`made_older` stands between the library and the kernel, which then answers as one of the profiles
that simulated kernels have: set-up flags, features, registrations and flags of enter that the
profile does not know are refused as an older kernel refuses them.  An operation that it does not
know gets an opcode that no kernel knows, in its slot, right before it is handed over: so it is the
kernel itself that completes it with EINVAL.

Whatever runs on the driver can so be tried on every rung, sockets and files being real.
"""

import errno
from _thread import get_ident
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import memmove, set_errno, string_at
from dataclasses import replace
from typing import Any, Final, TypeVar

from uringio._sys import constants as k
from uringio._sys import system as seam
from uringio._sys.layouts import PARAMS, PROBE_HEAD, PROBE_OP, RSRC_UPDATE
from uringio._sys.system import Mapping, System
from uringio.testing import PROFILES, Profile

__all__ = ["RUNGS", "in_place", "made_older", "without"]

S = TypeVar("S", bound=System)

_NO_OPCODE: Final = 255
_FLAGS, _FEATURES, _SQ_HEAD = 2, 5, 7  # in PARAMS

_NEWEST: Final = PROFILES["6.18"]
# With a part missing; and with QUERY, which would tell of the whole.
_ALMOST: Final = replace(_NEWEST, refused=frozenset({k.IORING_REGISTER_QUERY}))

# What the driver can do without, one by one.
_WITHOUT_OPCODES: Final = {
    name.lower(): getattr(k, f"IORING_OP_{name}")
    for name in (
        "SEND_ZC", "SENDMSG_ZC", "READV", "WRITEV", "FALLOCATE", "FTRUNCATE", "OPENAT2", "STATX",
        "RENAMEAT", "UNLINKAT", "MKDIRAT", "SYMLINKAT", "LINKAT", "FIXED_FD_INSTALL",
    )
}  # fmt: skip
_WITHOUT_REGISTRATIONS: Final = {
    "index": {k.IORING_REGISTER_RING_FDS, k.IORING_UNREGISTER_RING_FDS},
    "probe": {k.IORING_REGISTER_PROBE},
    "registered_memory": {k.IORING_REGISTER_BUFFERS2, k.IORING_REGISTER_BUFFERS_UPDATE},
    "registered_files": {k.IORING_REGISTER_FILES, k.IORING_REGISTER_FILES_UPDATE},
}
_WITHOUT_FEATURES: Final = {"iowait_flag": k.IORING_FEAT_NO_IOWAIT}


def _all_rungs() -> Iterator[tuple[str, Profile]]:
    for name in ("6.1", "6.0", "5.19", "plain"):
        yield f"uring-{name}", PROFILES[name]
    for name, opcode in _WITHOUT_OPCODES.items():
        yield f"uring-no-{name}", replace(_ALMOST, opcodes=_ALMOST.opcodes - {opcode})
    for name, registrations in _WITHOUT_REGISTRATIONS.items():
        yield f"uring-no-{name}", replace(_ALMOST, refused=_ALMOST.refused | registrations)
    for name, feature in _WITHOUT_FEATURES.items():
        yield f"uring-no-{name}", replace(_ALMOST, features=_ALMOST.features & ~feature)


# The rungs of the ladder, from what all kernels below 6.6 lack to single parts that are missing.
RUNGS: Final = dict(_all_rungs())


class _Older:
    """What stands in for some methods of a system."""

    def __init__(self, system: System, profile: Profile) -> None:
        self._profile = profile
        self._enter_flags = profile.enter_flags
        self._lacks_opcodes = bool(_NEWEST.opcodes - profile.opcodes)
        self._nr_enter = system.nr_enter
        self._setup = system.io_uring_setup
        self._map = system.map_ring
        self._register = system.io_uring_register
        self._enter = system.bare_syscall
        self._rings: dict[int, _Slots] = {}  # by descriptor
        self._indexes: dict[tuple[int, int], int] = {}  # thread and registered index -> descriptor

    def setup(self, entries: int, params_addr: int) -> int:
        if self._profile.blocked:
            return -self._profile.blocked
        wanted = PARAMS.unpack(string_at(params_addr, PARAMS.size))
        if wanted[_FLAGS] & ~self._profile.setup_flags:
            return -errno.EINVAL
        fd = self._setup(entries, params_addr)
        if fd >= 0:
            params = list(PARAMS.unpack(string_at(params_addr, PARAMS.size)))
            params[_FEATURES] &= self._profile.features
            memmove(params_addr, PARAMS.pack(*params), PARAMS.size)
            self._rings[fd] = _Slots(params)
        return fd

    def map_ring(self, fd: int, offset: int, len_bytes: int) -> Mapping:
        mapping = self._map(fd, offset, len_bytes)
        if fd in self._rings:
            if offset == k.IORING_OFF_SQES:
                self._rings[fd].sqes = mapping
            else:
                self._rings[fd].ring = mapping
        return mapping

    def register(self, fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        if self._profile.blocked:
            return -self._profile.blocked
        plain = opcode & ~k.IORING_REGISTER_USE_REGISTERED_RING
        by_index = opcode != plain and not self._profile.features & k.IORING_FEAT_REG_REG_RING
        if by_index or not self._profile.registers(plain):
            return -errno.EINVAL
        result = self._register(fd, opcode, arg_addr, nr_args)
        if plain == k.IORING_REGISTER_RING_FDS and result > 0:
            index, _ = RSRC_UPDATE.unpack(string_at(arg_addr, RSRC_UPDATE.size))
            self._indexes[get_ident(), index] = fd
        if plain == k.IORING_REGISTER_PROBE and result == 0:
            self._forget_opcodes(arg_addr)
        return result

    def _forget_opcodes(self, addr: int) -> None:
        _, count = PROBE_HEAD.unpack(string_at(addr, PROBE_HEAD.size))
        for at in range(count):
            place = addr + PROBE_HEAD.size + at * PROBE_OP.size
            opcode, _ = PROBE_OP.unpack(string_at(place, PROBE_OP.size))
            if opcode not in self._profile.opcodes:
                memmove(place, PROBE_OP.pack(opcode, 0), PROBE_OP.size)

    def enter(self, nr: int, fd: int, count: int, wait_count: int, flags: int, *rest: Any) -> int:
        if nr == self._nr_enter:
            if flags & ~self._enter_flags:
                set_errno(errno.EINVAL)
                return -1
            if count and self._lacks_opcodes:
                if flags & k.IORING_ENTER_REGISTERED_RING:
                    slots = self._rings.get(self._indexes.get((get_ident(), fd), -1))
                else:
                    slots = self._rings.get(fd)
                if slots is not None:
                    slots.spoil(self._profile.opcodes)
        return self._enter(nr, fd, count, wait_count, flags, *rest)


class _Slots:
    """Where the slots of a ring are that the kernel has not seen."""

    def __init__(self, params: Sequence[int]) -> None:
        self._mask = params[0] - 1
        self._slot_bytes = 128 if params[_FLAGS] & k.IORING_SETUP_SQE128 else 64
        self._head, self._tail = params[_SQ_HEAD], params[_SQ_HEAD + 1]
        self.ring: Mapping | None = None
        self.sqes: Mapping | None = None

    def spoil(self, known: frozenset[int]) -> None:
        """Give those slots whose opcode is not known one that is unknown everywhere."""
        if not self.ring or not self.sqes or not self.ring.addr or not self.sqes.addr:
            return  # unmapped: the kernel will say what is wrong
        head, tail = self._word(self._head), self._word(self._tail)
        for index in range(head, head + ((tail - head) & 0xFFFFFFFF)):
            opcode = self.sqes.view[at := (index & self._mask) * self._slot_bytes]
            if opcode not in known:
                self.sqes.view[at] = _NO_OPCODE

    def _word(self, offset: int) -> int:
        assert self.ring is not None
        return int.from_bytes(self.ring.view[offset : offset + 4], "little")


def without(rung: str, what: str, *opcodes: int, registration: int = -1) -> str:
    """Say that a rung is without *what*, or nothing where it has all that is named."""
    profile = RUNGS.get(rung, _NEWEST)
    lacking = not profile.opcodes.issuperset(opcodes)
    if registration >= 0:
        lacking = lacking or not profile.registers(registration)
    return f"{rung} is without {what}" if lacking else ""


def made_older(system: S, profile: Profile | None) -> S:
    """Leave *system* no more of io_uring than *profile* has, all of it for None; returns it."""
    if profile is not None:
        older = _Older(system, profile)
        system.io_uring_setup = older.setup  # type: ignore[method-assign]
        system.map_ring = older.map_ring  # type: ignore[method-assign]
        system.io_uring_register = older.register  # type: ignore[method-assign]
        system.bare_syscall = older.enter
    return system


@contextmanager
def in_place(rung: str) -> Iterator[None]:
    """Have every loop of this process run on a rung, until this is left; "": on all there is."""
    before = seam.real_system()
    seam._real = made_older(System(), RUNGS[rung]) if rung else before
    try:
        yield
    finally:
        seam._real = before


if __name__ == "__main__":
    print(*RUNGS, sep="\n")  # noqa: T201 - for `make ladder`
