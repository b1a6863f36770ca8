"""
Why io_uring cannot be had here, and what to do about it.

The kernel answers with one errno for several causes: EPERM is the sysctl, a seccomp filter or a
security module; ENOSYS an old kernel, one built without, or a filter again.  What else can be read
without rights (the sysctl, the process's seccomp mode, the release) tells them apart.

Sources: io_uring_setup(2), seccomp(2), proc_pid_status(5), and the kernel's
Documentation/admin-guide/sysctl/kernel.rst on ``io_uring_disabled`` and ``io_uring_group``.
"""

import errno
import os
import re
import resource
from collections.abc import Callable
from typing import Final, NamedTuple

from uringio._sys.system import System
from uringio.errors import RingError

__all__ = ["Refusal", "Surroundings", "explain", "look_around"]

_CAP_IPC_LOCK: Final = 14
_CAP_SYS_ADMIN: Final = 21
_OLDEST: Final = (5, 19)
_OLDEST_TEXT: Final = "Linux 5.19"

_SYSCALLS: Final = "io_uring_setup, io_uring_enter and io_uring_register"


class Refusal(NamedTuple):
    """
    Why io_uring does not work.

    Attributes:
        cause: ``"sysctl"``, ``"seccomp"``, ``"policy"`` (a security module), ``"absent"`` (not in
            this kernel), ``"too_old"``, ``"memory"``, ``"locked_memory"``, ``"descriptors"`` or
            ``"unknown"``.
        errno: The kernel's answer.
        error: Its name, such as ``"EPERM"``.
        message: What failed, for people.
        explanation: Why, for people.
        remedies: What would help, the best first.
    """

    cause: str
    errno: int
    error: str
    message: str
    explanation: str
    remedies: tuple[str, ...]


class Surroundings(NamedTuple):
    """
    What decides about io_uring from outside; None is: could not be read.

    Attributes:
        release: The kernel's, such as ``"6.12.9"``.
        sysctl_disabled: ``kernel.io_uring_disabled``; also None before Linux 6.6 and where the
            kernel was built without io_uring.
        sysctl_group: ``kernel.io_uring_group``, -1 for none.
        seccomp: ``"off"``, ``"strict"`` or ``"filter"``.
        is_admin: Whether this process has CAP_SYS_ADMIN.
        groups: The groups it is in.
        container: The engine that runs it, as far as that can be seen.
        locked_bytes: The limit of locked memory, None for none, or for one that does not bind,
            since this process has CAP_IPC_LOCK.
        system: Its name, as `os.uname` tells.
    """

    release: str
    sysctl_disabled: int | None = None
    sysctl_group: int | None = None
    seccomp: str | None = None
    is_admin: bool = False
    groups: frozenset[int] = frozenset()
    container: str | None = None
    locked_bytes: int | None = None
    system: str = "Linux"

    @property
    def version(self) -> tuple[int, int]:
        """The release's first two numbers, (0, 0) where it has none."""
        match = re.match(r"(\d+)\.(\d+)", self.release)
        return (int(match[1]), int(match[2])) if match else (0, 0)


class _Words(NamedTuple):
    cause: str
    explanation: str
    remedies: tuple[str, ...]


# --- looking -------------------------------------------------------------------------------------


def look_around(system: System) -> Surroundings:
    """Read what can be read; nothing is raised."""
    status = dict(
        line.split(":", 1)
        for line in (system.text_of("/proc/self/status") or "").splitlines()
        if ":" in line
    )
    capabilities = int(status.get("CapEff", "0").strip() or "0", 16)
    locked_bytes, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    may_lock = capabilities >> _CAP_IPC_LOCK & 1 or locked_bytes == resource.RLIM_INFINITY
    return Surroundings(
        release=os.uname().release,
        sysctl_disabled=_number(system, "/proc/sys/kernel/io_uring_disabled"),
        sysctl_group=_number(system, "/proc/sys/kernel/io_uring_group"),
        seccomp={"0": "off", "1": "strict", "2": "filter"}.get(status.get("Seccomp", "").strip()),
        is_admin=bool(capabilities >> _CAP_SYS_ADMIN & 1),
        groups=frozenset({os.getegid(), *os.getgroups()}),
        container=_container(),
        locked_bytes=None if may_lock else locked_bytes,
        system=os.uname().sysname,
    )


def _number(system: System, path: str) -> int | None:
    try:
        return int(system.text_of(path) or "")
    except ValueError:
        return None


def _container() -> str | None:
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    if os.path.exists("/.dockerenv"):
        return "docker"
    if os.path.exists("/run/.containerenv"):
        return "podman"
    return os.environ.get("container") or None  # noqa: SIM112  systemd's name for it


# --- explaining ----------------------------------------------------------------------------------


def explain(error: OSError, around: Surroundings) -> Refusal:
    """Say why *error* came when a ring was made or used, and what to do."""
    number = error.errno or 0
    say = _EXPLAINERS.get(number, _unknown)
    words = say(around)
    name = errno.errorcode.get(number, str(number))
    message = str(error)
    if isinstance(error, RingError):
        # The remedies here know more than its own.
        message = str(error.strerror).removesuffix(f". {error.remedy}")
    return Refusal(words.cause, number, name, message, words.explanation, words.remedies)


def _forbidden(around: Surroundings) -> _Words:
    """EPERM: by the sysctl, by a filter, or by a security module."""
    if around.sysctl_disabled == 2:
        return _Words(
            "sysctl",
            "The administrator has switched io_uring off for everybody: the sysctl "
            "kernel.io_uring_disabled is 2.",
            (
                "As root on the host: sysctl -w kernel.io_uring_disabled=0.",
                "To keep it: 'kernel.io_uring_disabled = 0' in a file in /etc/sysctl.d.",
            ),
        )
    if around.sysctl_disabled == 1 and not around.is_admin and not _is_member(around):
        return _not_a_member(around)
    if around.seccomp == "filter":
        return _filtered(around, "refuses")
    return _policy(around)


def _is_member(around: Surroundings) -> bool:
    return around.sysctl_group in around.groups


def _not_a_member(around: Surroundings) -> _Words:
    everybody = "As root on the host, for everybody: sysctl -w kernel.io_uring_disabled=0."
    group = around.sysctl_group
    if group is None or group < 0:
        return _Words(
            "sysctl",
            "Only root may use io_uring: the sysctl kernel.io_uring_disabled is 1, and "
            "kernel.io_uring_group names no group.",
            (
                "As root on the host, for a group of yours: sysctl -w kernel.io_uring_group=GID.",
                everybody,
            ),
        )
    return _Words(
        "sysctl",
        f"Only root and the group with the number {group} may use io_uring: the sysctl "
        f"kernel.io_uring_disabled is 1, kernel.io_uring_group is {group}.",
        (f"Add this user to group {group}, and log in again.", everybody),
    )


def _filtered(around: Surroundings, does: str) -> _Words:
    profile = f"Whoever starts this process may allow {_SYSCALLS} in its seccomp profile."
    engine = (
        "Docker, Podman: --security-opt seccomp=PROFILE.json with such a profile; "
        "--security-opt seccomp=unconfined shows whether that is it."
    )
    cluster = "Kubernetes: securityContext.seccompProfile of type Localhost with such a profile."
    where = "Container engines install such filters by default."
    remedies: tuple[str, ...] = (
        profile, engine, cluster, "systemd: SystemCallFilter=@aio.",
    )  # fmt: skip
    if around.container is not None:
        where = f"This is a container ({around.container}), where such filters are the default."
        remedies = (profile, cluster if around.container == "kubernetes" else engine)
    return _Words(
        "seccomp", f"A seccomp filter {does} the io_uring system calls. {where}", remedies
    )


def _policy(around: Surroundings) -> _Words:
    return _Words(
        "policy",
        "No sysctl and no seccomp filter that can be seen from here forbids io_uring: a security "
        "module of the kernel (SELinux, AppArmor) or a sandbox does.",
        ("Look for the denial in the kernel's log (journalctl -k, or ausearch -m avc).",),
    )


def _missing(around: Surroundings) -> _Words:
    """ENOSYS: an old kernel, one without, a filter, or a ring that lacks what we need."""
    if around.system != "Linux":
        return _Words("absent", f"Only Linux has io_uring, and this is {around.system}.", ())
    if (0, 0) < around.version < _OLDEST:
        return _too_old(around)
    if around.seccomp == "filter":
        return _filtered(around, "hides")
    if around.sysctl_disabled is not None:
        # The sysctl is there, so io_uring is; and what it lacks, no release from 5.19 lacks.
        return _Words(
            "unknown",
            "This kernel has io_uring, but it cannot be used as uringio needs it; what failed "
            "is said above.",
            (f"A newer kernel; uringio is tested from {_OLDEST_TEXT} on.",),
        )
    return _Words(
        "absent",
        f"This kernel (Linux {around.release}) has no io_uring: it was built without, or it is a "
        "sandbox that imitates a kernel.",
        ("A kernel with CONFIG_IO_URING=y; those of distributions have it.",),
    )


def _too_old(around: Surroundings) -> _Words:
    return _Words(
        "too_old",
        f"Linux {around.release} is too old: uringio needs io_uring as of {_OLDEST_TEXT}.",
        (f"{_OLDEST_TEXT} or newer; 6.1 and newer are quicker.",),
    )


def _unfit(around: Surroundings) -> _Words:
    """EINVAL: none of the set-up flags that we know was taken."""
    if (0, 0) < around.version < _OLDEST:
        return _too_old(around)
    return _Words(
        "unknown",
        f"Linux {around.release} refuses a ring as uringio asks for it, which no release from "
        f"{_OLDEST_TEXT} on should.",
        ("Please report it, with this output.",),
    )


def _no_memory(around: Surroundings) -> _Words:
    # KERNEL 5.12 to 6.13: rings do not count as locked memory; before and after they do.
    counts = not (5, 12) <= around.version < (6, 14)
    if counts and around.locked_bytes is not None:
        return _Words(
            "locked_memory",
            f"Rings count as locked memory here, of which this user may have {around.locked_bytes} "
            "bytes. All processes of the user share them, and what a process that has just ended "
            "held may count for a moment more.",
            (
                "Raise the limit: ulimit -l, LimitMEMLOCK= in a systemd unit, --ulimit memlock=.",
                "Have fewer rings: one per thread that runs uringio.",
            ),
        )
    return _Words(
        "memory",
        "The kernel has no memory for a ring; perhaps the limit of the control group is reached.",
        ("Free memory, or raise the limit of the control group (systemd: MemoryMax=).",),
    )


def _no_descriptor(around: Surroundings) -> _Words:
    return _Words(
        "descriptors",
        "This process has as many descriptors open as it may have.",
        (
            "Raise the limit: ulimit -n, LimitNOFILE= in a systemd unit, --ulimit nofile=.",
            "Look for what is left open: ls -l /proc/PID/fd.",
        ),
    )


def _no_file(around: Surroundings) -> _Words:
    return _Words(
        "descriptors",
        "The whole system has as many files open as it may have.",
        ("Raise the limit: sysctl -w fs.file-max=NUMBER.",),
    )


def _unknown(around: Surroundings) -> _Words:
    return _Words(
        "unknown",
        "This answer is not one that io_uring is known to give.",
        ("Please report it, with this output.",),
    )


_EXPLAINERS: Final[dict[int, Callable[[Surroundings], _Words]]] = {
    errno.EPERM: _forbidden,
    errno.EACCES: _forbidden,
    errno.ENOSYS: _missing,
    errno.EINVAL: _unfit,
    errno.ENOMEM: _no_memory,
    errno.EMFILE: _no_descriptor,
    errno.ENFILE: _no_file,
}
