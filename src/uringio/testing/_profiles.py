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
        blocked: The errno of all three system calls, 0 where io_uring is allowed.
        busy_on_overflow: Whether a wait answers EBUSY while completions do not fit.
        backend: Which driver runs on it; ``"auto"``: the one that is chosen there.
    """

    name: str
    setup_flags: int
    features: int
    opcodes: frozenset[int]
    register_max: int
    blocked: int = 0
    busy_on_overflow: bool = False
    backend: str = "auto"


_LINUX_6_18: Final = Profile("6.18", _SETUP_6_18, _FEATURES_6_18, _OPCODES_6_18, 36)

# By name; the two that are "blocked" differ in how a filter says so.
PROFILES: Final[dict[str, Profile]] = {
    one.name: one
    for one in (
        _LINUX_6_18,
        Profile("6.1", _SETUP_6_1, _FEATURES_6_1, _OPCODES_6_1, 25),
        Profile("6.0", _SETUP_6_0, _FEATURES_6_1, _OPCODES_6_1, 25, busy_on_overflow=True),
        Profile(
            "5.19", _SETUP_5_19, _FEATURES_5_19, frozenset(range(47)), 24, busy_on_overflow=True
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
