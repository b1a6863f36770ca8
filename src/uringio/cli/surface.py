"""What this kernel's io_uring has and lacks: grouped for people, by name for programs."""

import re
from collections.abc import Iterator
from typing import Final

from uringio.lowlevel import (
    CqeFlags,
    EnterFlags,
    Features,
    Opcode,
    RegisterOp,
    SetupFlags,
    SqeFlags,
)
from uringio.probing import Member, Surface

__all__ = ["OPERATIONS", "REGISTRATIONS", "as_members", "sections"]

Rows = list[tuple[str, str]]

# What belongs together, for people; whatever is in no row is in the last.
OPERATIONS: Final[dict[str, str]] = {
    "bytes": (
        "READ WRITE READV WRITEV READ_FIXED WRITE_FIXED READV_FIXED WRITEV_FIXED READ_MULTISHOT "
        "SPLICE TEE"
    ),
    "files": (
        "OPENAT OPENAT2 CLOSE STATX FSYNC SYNC_FILE_RANGE FALLOCATE FTRUNCATE FADVISE PIPE "
        "GETXATTR FGETXATTR SETXATTR FSETXATTR"
    ),
    "names": "RENAMEAT UNLINKAT LINKAT SYMLINKAT MKDIRAT",
    "sockets": (
        "SOCKET BIND LISTEN ACCEPT CONNECT SHUTDOWN SEND SENDMSG SEND_ZC SENDMSG_ZC RECV RECVMSG "
        "RECV_ZC"
    ),
    "waiting": (
        "POLL_ADD POLL_REMOVE EPOLL_WAIT EPOLL_CTL TIMEOUT TIMEOUT_REMOVE LINK_TIMEOUT FUTEX_WAIT "
        "FUTEX_WAITV FUTEX_WAKE WAITID"
    ),
    "other": "",
}
REGISTRATIONS: Final[dict[str, str]] = {
    "files": (
        "FILES FILES2 UNREGISTER_FILES FILES_UPDATE FILES_UPDATE2 FILE_ALLOC_RANGE RING_FDS "
        "UNREGISTER_RING_FDS USE_REGISTERED_RING"
    ),
    "memory": (
        "BUFFERS BUFFERS2 UNREGISTER_BUFFERS BUFFERS_UPDATE CLONE_BUFFERS PBUF_RING "
        "UNREGISTER_PBUF_RING PBUF_STATUS MEM_REGION ZCRX_IFQ ZCRX_CTRL"
    ),
    "rights": ("PERSONALITY UNREGISTER_PERSONALITY RESTRICTIONS ENABLE_RINGS BPF_FILTER"),
    "waiting": "EVENTFD EVENTFD_ASYNC UNREGISTER_EVENTFD CLOCK NAPI UNREGISTER_NAPI",
    "workers": "IOWQ_AFF UNREGISTER_IOWQ_AFF IOWQ_MAX_WORKERS",
    "other": "",
}

_HOW: Final = {
    "query": "because the kernel says so itself (IORING_REGISTER_QUERY)",
    "register_probe": "because the kernel names its operations, and all else was tried",
    "trial": "because all of it was tried",
}
# Kind -> its name in JSON, one of it for people, several.
_KINDS: Final[dict[type[Member], tuple[str, str, str]]] = {
    Opcode: ("operation", "operation", "operations"),
    RegisterOp: ("registration", "registration", "registrations"),
    SetupFlags: ("setup_flag", "set-up flag", "set-up flags"),
    EnterFlags: ("enter_flag", "flag of entering", "flags of entering"),
    SqeFlags: ("sqe_flag", "flag of requests", "flags of requests"),
    CqeFlags: ("cqe_flag", "flag of completions", "flags of completions"),
    Features: ("feature", "feature", "features"),
}


# --- for people ----------------------------------------------------------------------------------


def sections(surface: Surface, release: str) -> Iterator[tuple[str, Rows]]:
    """
    Say what the kernel has, and what it lacks, in sections of labelled rows.

    Args:
        release: The running kernel's, to tell what is yet to come from what was left out.
    """
    if surface.opcodes:
        title = f"Operations of this kernel: {len(surface.opcodes)} of {len(Opcode)}"
        yield title, _grouped({one.name for one in surface.opcodes}, OPERATIONS)
    if surface.register_ops:
        title = f"Registrations of this kernel: {len(surface.register_ops)} of {len(RegisterOp)}"
        yield title, _grouped({one.name for one in surface.register_ops}, REGISTRATIONS)
    rows = [(label, _names(flags)) for label, flags in _flags(surface) if flags]
    if rows:
        yield "Flags of this kernel", rows
    yield "What this kernel lacks", [*_lacking(surface, release), ("known", _HOW[surface.source])]


def _flags(
    surface: Surface,
) -> Iterator[tuple[str, SetupFlags | EnterFlags | SqeFlags | CqeFlags | Features]]:
    yield "set-up", surface.setup_flags
    yield "entering", surface.enter_flags
    yield "requests", surface.sqe_flags
    yield "completions", surface.cqe_flags
    yield "features", surface.features


def _names(flags: SetupFlags | EnterFlags | SqeFlags | CqeFlags | Features) -> str:
    return ", ".join(_name(one) for one in flags)


def _name(one: Member) -> str:
    # A flag that nobody has a name for has none.
    return one.name or hex(one)


def _grouped(here: set[str], groups: dict[str, str]) -> Rows:
    rows: Rows = []
    told = set[str]()
    for label, names in groups.items():
        some = [name for name in names.split() if name in here] or sorted(here - told)
        told.update(some)
        if some:
            rows.append((label, ", ".join(some)))
    return rows


def _lacking(surface: Surface, release: str) -> Rows:
    by_release: dict[tuple[int, ...], dict[type[Member], list[str]]] = {}
    for one in surface.lacks():
        kinds = by_release.setdefault(_version(one.since), {})
        kinds.setdefault(type(one), []).append(_name(one))
    rows: Rows = []
    for since, kinds in sorted(by_release.items()):
        words = "; ".join(
            f"{_KINDS[kind][1 if len(names) == 1 else 2]} {', '.join(names)}"
            for kind, names in kinds.items()
        )
        label = "Linux " + ".".join(map(str, since))
        if since <= _version(release):
            words += " (older than this kernel: it was built without, or a filter is in force)"
        rows.append((label, words))
    if surface.newer_opcodes or surface.newer_register_ops:
        rows.append(("uringio", _unknown(surface)))
    return rows or [("nothing", "it has all that this version of uringio has a name for")]


def _unknown(surface: Surface) -> str:
    parts = [
        f"{what} {', '.join(map(str, numbers))}"
        for what, numbers in (
            ("operations", surface.newer_opcodes),
            ("registrations", surface.newer_register_ops),
        )
        if numbers
    ]
    return f"a newer one has names for {' and '.join(parts)}, which this kernel has"


def _version(release: str) -> tuple[int, ...]:
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


# --- for programs --------------------------------------------------------------------------------


def as_members(surface: Surface) -> dict[str, object]:
    """Write it as members of a JSON object; docs/probe.md describes them."""
    return {
        "source": surface.source,
        "opcodes": [one.name for one in sorted(surface.opcodes)],
        "register_ops": [one.name for one in sorted(surface.register_ops)],
        "setup_flags": [_name(one) for one in surface.setup_flags],
        "enter_flags": [_name(one) for one in surface.enter_flags],
        "sqe_flags": [_name(one) for one in surface.sqe_flags],
        "cqe_flags": [_name(one) for one in surface.cqe_flags],
        "features": [_name(one) for one in surface.features],
        "newer_opcodes": list(surface.newer_opcodes),
        "newer_register_ops": list(surface.newer_register_ops),
        "lacks": [
            {"kind": _KINDS[type(one)][0], "name": _name(one), "since": one.since}
            for one in surface.lacks()
        ],
    }
