"""Kernels to stand in for, as data."""

import errno
from dataclasses import dataclass
from typing import Final

from uringio._sys import constants as k

__all__ = ["PROFILES", "Profile", "profile_named"]

_OPCODES_5_10: Final = frozenset(range(34))  # to IORING_OP_TEE
_OPCODES_6_1: Final = frozenset(range(49))  # to IORING_OP_SENDMSG_ZC
_OPCODES_6_18: Final = frozenset(range(64))

_SETUP_5_10: Final = (1 << 7) - 1  # IOPOLL to R_DISABLED
_SETUP_5_19: Final = (1 << 12) - 1  # to CQE32
_SETUP_6_0: Final = (1 << 13) - 1  # to SINGLE_ISSUER
_SETUP_6_1: Final = (1 << 14) - 1  # to DEFER_TASKRUN
_SETUP_6_18: Final = (1 << 19) - 1

_FEATURES_5_10: Final = 0x7F  # to POLL_32BITS
_FEATURES_5_19: Final = 0xFFF  # EXT_ARG, NATIVE_WORKERS, RSRC_TAGS and CQE_SKIP too
_FEATURES_6_1: Final = 0x1FFF  # LINKED_FILE
_FEATURES_6_18: Final = (1 << 18) - 1


@dataclass(frozen=True, slots=True)
class Profile:
    """
    What one kernel has of io_uring.

    Attributes:
        name: The release.
        setup_flags: IORING_SETUP_* that are accepted; others are answered EINVAL.
        features: IORING_FEAT_* that are told.
        opcodes: Operations that are known; others are answered EINVAL.
        register_max: The highest opcode of io_uring_register(2).
        refused: Those below it that are answered EINVAL all the same, as a filter may.
        blocked: The errno of all three system calls, 0 where io_uring is allowed.
        busy_on_overflow: Whether a wait answers EBUSY while completions do not fit.
        backend: Which driver runs on it; ``"auto"``: the one that is chosen there.
    """

    name: str
    setup_flags: int
    features: int
    opcodes: frozenset[int]
    register_max: int
    refused: frozenset[int] = frozenset()
    blocked: int = 0
    busy_on_overflow: bool = False
    backend: str = "auto"

    def registers(self, opcode: int) -> bool:
        """Whether io_uring_register(2) knows *opcode*."""
        return opcode <= self.register_max and opcode not in self.refused

    @property
    def enter_flags(self) -> int:
        """IORING_ENTER_* that are accepted; with others the call is answered EINVAL."""
        flags = k.IORING_ENTER_GETEVENTS | k.IORING_ENTER_SQ_WAKEUP | k.IORING_ENTER_SQ_WAIT
        for known, more in (
            (self.features & k.IORING_FEAT_EXT_ARG, k.IORING_ENTER_EXT_ARG),
            (self.registers(k.IORING_REGISTER_RING_FDS), k.IORING_ENTER_REGISTERED_RING),
            (self.features & k.IORING_FEAT_MIN_TIMEOUT, k.IORING_ENTER_ABS_TIMER),
            (self.features & k.IORING_FEAT_MIN_TIMEOUT, k.IORING_ENTER_EXT_ARG_REG),
            (self.features & k.IORING_FEAT_NO_IOWAIT, k.IORING_ENTER_NO_IOWAIT),
        ):
            flags |= more if known else 0
        return flags


# Without these there is no driver; each is known to every kernel that has provided rings (5.19).
_NEEDED_OPCODES: Final = frozenset({
    k.IORING_OP_NOP, k.IORING_OP_FSYNC, k.IORING_OP_POLL_ADD, k.IORING_OP_SENDMSG,
    k.IORING_OP_RECVMSG, k.IORING_OP_TIMEOUT, k.IORING_OP_ACCEPT, k.IORING_OP_ASYNC_CANCEL,
    k.IORING_OP_CONNECT, k.IORING_OP_OPENAT, k.IORING_OP_CLOSE, k.IORING_OP_READ,
    k.IORING_OP_WRITE, k.IORING_OP_SEND, k.IORING_OP_RECV, k.IORING_OP_SHUTDOWN,
})  # fmt: skip
_NEEDED_FEATURES: Final = _FEATURES_5_10 | k.IORING_FEAT_EXT_ARG
_NEEDED_REGISTRATIONS: Final = frozenset({
    k.IORING_REGISTER_PBUF_RING, k.IORING_UNREGISTER_PBUF_RING
})  # fmt: skip


_LINUX_6_18: Final = Profile("6.18", _SETUP_6_18, _FEATURES_6_18, _OPCODES_6_18, 36)

# By name; the two that are "blocked" differ in how a filter says so.
PROFILES: Final[dict[str, Profile]] = {
    one.name: one
    for one in (
        _LINUX_6_18,
        Profile("6.1", _SETUP_6_1, _FEATURES_6_1, _OPCODES_6_1, 25),
        Profile(
            "6.0", _SETUP_6_0, _FEATURES_6_1, _OPCODES_6_1 - {k.IORING_OP_SENDMSG_ZC}, 25,
            busy_on_overflow=True,
        ),
        Profile(
            "5.19", _SETUP_5_19, _FEATURES_5_19, frozenset(range(47)), 24, busy_on_overflow=True
        ),
        # No release, but what the driver cannot do without, and nothing more.
        Profile(
            "plain", _SETUP_5_19, _NEEDED_FEATURES, _NEEDED_OPCODES, 24,
            refused=frozenset(range(25)) - _NEEDED_REGISTRATIONS, busy_on_overflow=True,
        ),
        Profile(
            "5.10", _SETUP_5_10, _FEATURES_5_10, _OPCODES_5_10, 12, busy_on_overflow=True
        ),
        Profile("blocked", 0, 0, frozenset(), 0, blocked=errno.EPERM),
        Profile("absent", 0, 0, frozenset(), 0, blocked=errno.ENOSYS),
        # No kernels, but what the drivers for other systems wait by.
        Profile("kqueue", 0, 0, frozenset(), 0, blocked=errno.ENOSYS, backend="kqueue"),
        Profile("poll", 0, 0, frozenset(), 0, blocked=errno.ENOSYS, backend="poll"),
    )
}  # fmt: skip


def profile_named(profile: str | Profile) -> Profile:
    """Return a profile by its name; raises ValueError."""
    if isinstance(profile, Profile):
        return profile
    try:
        return PROFILES[profile]
    except KeyError:
        raise ValueError(f"no profile {profile!r}; there are {', '.join(PROFILES)}") from None


assert k.IORING_SETUP_DEFER_TASKRUN & _SETUP_6_1
assert not k.IORING_SETUP_NO_SQARRAY & _SETUP_6_1
assert not k.IORING_SETUP_DEFER_TASKRUN & _SETUP_6_0
assert not k.IORING_SETUP_SINGLE_ISSUER & _SETUP_5_19
assert not k.IORING_SETUP_COOP_TASKRUN & _SETUP_5_10
