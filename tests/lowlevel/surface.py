"""
The page docs/reference/surface.md: each number of io_uring's, and the test that shows its effect.

Written by `python tools/surface.py`; `test_coverage.py` holds the page against it.  What a test
shows is noted by the decorators of `rig.py`.
"""

import importlib
import re
from enum import Enum
from pathlib import Path

from tests.lowlevel.golden_requests import REQUESTS
from tests.lowlevel.rig import PROVEN, REFUSED, SILENT, name_of
from uringio import lowlevel
from uringio.lowlevel import Opcode, RegisterOp, Ring

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "surface.md"
FOLDER = Path(__file__).resolve().parent

# The kernel on which the page was written, and that all its tests have met.
SEEN_ON = (6, 18)

NIC = "needs a network card whose receive queue can be taken over"
# Why no effect is shown on any kernel: what machine it would take.  All else is seen.
BOUND_TO_HARDWARE: dict[str, str] = {
    "Opcode.RECV_ZC": NIC,
    "RegisterOp.ZCRX_IFQ": NIC,
    "ZcrxAreaFlags.DMABUF": NIC,
    "CqeFlags.TSTAMP_HW": "needs a network card that takes times; the machine's own are seen",
    "UringCmdFlags.FIXED": "needs the driver of an NVMe disk, or of one in user space",
    "BlockUringOp.ZONE_RESET_ALL": "needs a disk with zones",
    "SetupFlags.HYBRID_IOPOLL": "needs a disk whose driver polls",
}

# What the header has, and the kernel takes from nobody.
NEVER: dict[str, str] = {"PollFlags.ADD_LEVEL": "POLL_ADD refuses it"}

# Registrations whose method is not called as they are.
METHODS: dict[str, str] = {
    "PBUF_RING": "Ring.setup_buf_ring",
    "UNREGISTER_PBUF_RING": "ProvidedBuffers.free",
    "PBUF_STATUS": "Ring.buf_ring_head",
    "PERSONALITY": "Ring.register_personality",
    "MEM_REGION": "Ring.setup_reg_wait",
    "ENABLE_RINGS": "Ring.enable",
    "CLONE_BUFFERS": "Ring.clone_buffers",
    "RESIZE_RINGS": "Ring.resize_rings",
    "SEND_MSG_RING": "register_sync_msg",
    "QUERY": "query",
    "RING_FDS": "Ring.register_ring_fd",
    "UNREGISTER_RING_FDS": "Ring.unregister_ring_fd",
    "FILES2": "Ring.register_files",
    "FILES_UPDATE2": "Ring.register_files_update",
    "BUFFERS2": "Ring.register_buffers, Ring.register_buffers_sparse",
    "EVENTFD_ASYNC": "Ring.register_eventfd",
    "ZCRX_IFQ": "Ring.register_ifq",
    "ZCRX_CTRL": "ZeroCopyQueue.flush, ZeroCopyQueue.export",
}

# What carries the flags of a kind; a member's own stands before its kind's.
CARRIERS: dict[str, str] = {
    "SetupFlags": "Ring(flags=)",
    "SetupFlags.CQSIZE": "Ring(cq_entries=)",
    "SetupFlags.CLAMP": "every Ring",
    "SetupFlags.ATTACH_WQ": "Ring(workers_of=)",
    "SetupFlags.SQ_AFF": "Ring(sq_thread_cpu=)",
    "SetupFlags.NO_MMAP": "Ring(memory=)",
    "SetupFlags.SQE_MIXED": "prep_nop128, prep_uring_cmd128",
    "EnterFlags": "Ring.wait",
    "EnterFlags.SQ_WAIT": "Ring.wait_for_room",
    "EnterFlags.SQ_WAKEUP": "Ring.submit",
    "EnterFlags.GETEVENTS": "Ring.submit, Ring.wait, Ring.take",
    "EnterFlags.REGISTERED_RING": "Ring.register_ring_fd",
    "EnterFlags.EXT_ARG": "Ring.wait(timeout_ns=)",
    "EnterFlags.ABS_TIMER": "Ring.wait(until_ns=)",
    "EnterFlags.EXT_ARG_REG": "Ring.wait_registered",
    "EnterFlags.NO_IOWAIT": "Ring.iowait",
    "Features": "Ring.features",
    "SqeFlags": "flags= of every prep_*",
    "SqeFlags.BUFFER_SELECT": "buf_group= of prep_recv and others",
    "CqeFlags": "Completion.flags",
    "CqeFlags.BUFFER": "Completion.buffer_id",
    "CqeFlags.MORE": "Completion.more",
    "CqeFlags.F_32": "Ring.wait_big",
    "CqeFlags.SKIP": "Ring.wait_big",
    "CqeFlags.TSTAMP_HW": "BigCompletion.flags",
    "AcceptFlags": "prep_accept(ioprio=)",
    "AcceptFlags.MULTISHOT": "prep_multishot_accept",
    "BlockUringOp.DISCARD": "prep_cmd_discard",
    "BlockUringOp.ZONE_RESET_ALL": "prep_cmd_zone_reset_all",
    "BpfCommand": "Ring.register_bpf_filter, register_task_bpf_filter",
    "BpfFilterFlags": "Ring.register_bpf_filter(flags=)",
    "CancelFlags": "prep_cancel64, prep_cancel_fd, Ring.register_sync_cancel",
    "CloneBuffersFlags": "Ring.clone_buffers",
    "CqRingFlags": "Ring.eventfd_enabled",
    "FixedFdFlags": "prep_fixed_fd_install",
    "FsyncFlags": "prep_fsync",
    "Futex2Flags": "prep_futex_wait, prep_futex_wake",
    "MemRegionFlags": "Ring.setup_reg_wait",
    "MsgRingCommand.DATA": "prep_msg_ring",
    "MsgRingCommand.SEND_FD": "prep_msg_ring_fd",
    "MsgRingFlags": "prep_msg_ring_fd",
    "MsgRingFlags.FLAGS_PASS": "prep_msg_ring_cqe_flags",
    "NopFlags": "prep_nop",
    "NotifUsage": "Completion.res",
    "PbufRingFlags.INC": "Ring.setup_buf_ring(incremental=)",
    "PbufRingFlags.MMAP": "Ring.setup_buf_ring(mapped=)",
    "PollFlags": "prep_poll_add",
    "PollFlags.ADD_MULTI": "prep_poll_multishot",
    "PollFlags.UPDATE_EVENTS": "prep_poll_update",
    "PollFlags.UPDATE_USER_DATA": "prep_poll_update",
    "ProbeFlags": "Ring.opcodes",
    "QueryOp.SCQ": "query_queues",
    "QueryOp.ZCRX": "query_zero_copy",
    "QueryOp.OPCODES": "query",
    "RecvSendFlags": "prep_recv(ioprio=), prep_send(ioprio=)",
    "RecvSendFlags.RECV_MULTISHOT": "prep_recv_multishot",
    "RecvSendFlags.FIXED_BUF": "prep_send_zc_fixed",
    "RecvSendFlags.SEND_ZC_REPORT_USAGE": "prep_send_zc(zc_flags=)",
    "RecvSendFlags.BUNDLE": "prep_send_bundle, prep_recv(ioprio=)",
    "RegWaitFlags": "WaitRegion.set",
    "RegionFlags": "Ring.setup_reg_wait",
    "RestrictionOp": "Ring.register_restrictions",
    "RsrcFlags": "Ring.register_files_sparse, Ring.register_buffers_sparse",
    "RwAttrFlags": "Ring.fill",
    "SocketUringOp": "prep_cmd_sock",
    "SocketUringOp.TX_TIMESTAMP": "prep_uring_cmd",
    "SocketUringOp.GETSOCKNAME": "prep_cmd_getsockname",
    "SpliceFlags": "prep_splice",
    "SqRingFlags": "Ring.take, Ring.wait",
    "TimeoutFlags": "prep_timeout",
    "TimeoutFlags.UPDATE": "prep_timeout_update",
    "TimeoutFlags.LINK_TIMEOUT_UPDATE": "prep_timeout_update",
    "UringCmdFlags": "prep_uring_cmd",
    "WorkerKind": "Ring.register_iowq_max_workers",
    "ZcrxAreaFlags": "DmaBuf",
    "ZcrxControl.EXPORT": "ZeroCopyQueue.export",
    "ZcrxControl.FLUSH_RQ": "ZeroCopyQueue.flush",
    "ZcrxFeatures": "query_zero_copy",
    "ZcrxRegFlags": "Ring.register_ifq(flags=)",
    "ZcrxRegFlags.IMPORT": "Ring.import_ifq",
}

# In the order of the page.
FIRST = ("Opcode", "RegisterOp", "SetupFlags", "EnterFlags", "Features", "SqeFlags", "CqeFlags")


def collect() -> None:
    """Import the modules whose tests note what they show."""
    for path in sorted(FOLDER.glob("test_*.py")):
        if path.stem != "test_coverage":
            importlib.import_module(f"tests.lowlevel.{path.stem}")


def kinds() -> list[type[Enum]]:
    """List the public enumerations in the order of the page."""
    found = {
        name: value
        for name in lowlevel.__all__
        if isinstance(value := getattr(lowlevel, name), type) and issubclass(value, Enum)
    }
    return [found[name] for name in (*FIRST, *sorted(set(found) - set(FIRST)))]


def members() -> list[Enum]:
    """List the page's rows."""
    return [one for kind in kinds() for one in kind]


def makers() -> dict[int, list[str]]:
    """Tell for each operation which `prep_*` functions fill it, by what they were seen to write."""
    found: dict[int, list[str]] = {}
    for call, _, first, _ in REQUESTS:
        name = re.findall(r"prep_\w+", call)[0]
        word = first.split()[0]
        opcode = 0 if word == "0" else int(word[:2], 16)
        if name != "prep_rw" and name not in found.setdefault(opcode, []):
            found[opcode].append(name)
    return found


def function_of(member: Enum, by_opcode: dict[int, list[str]]) -> str:
    """Name what a program calls."""
    if isinstance(member, Opcode):
        return ", ".join(by_opcode.get(member, ["prep_rw"]))
    if not isinstance(member, RegisterOp):
        return CARRIERS.get(name_of(member)) or CARRIERS[type(member).__name__]
    method = METHODS.get(member.name, f"Ring.{member.name.lower()}")
    if method.startswith("Ring.") and not hasattr(Ring, method.removeprefix("Ring.")):
        method = f"Ring.register_{member.name.lower()}"
    if method.startswith("Ring.") and not hasattr(Ring, method.removeprefix("Ring.")):
        method = "Ring.register"
    return method


def is_later(member: Enum) -> bool:
    """Whether it came after the kernel on which the page was written."""
    since: str = member.since  # type: ignore[attr-defined]
    first, second = since.split(".")
    return (int(first), int(second)) > SEEN_ON


def status(member: Enum) -> str:
    """Tell what was seen of it on the kernel of the page, or why nothing was."""
    name = name_of(member)
    if name in PROVEN:
        return "seen"
    if name in SILENT:
        return "taken; its effect shows to no program here"
    if name in NEVER:
        return f"refused: {NEVER[name]}"
    if is_later(member):
        return f"refused: it came with Linux {member.since}"  # type: ignore[attr-defined]
    return f"refused: {BOUND_TO_HARDWARE[name]}" if name in BOUND_TO_HARDWARE else ""


def shown_by(member: Enum) -> list[str]:
    """Name the tests that show its effect, or else that pin what the kernel says to it."""
    name = name_of(member)
    return sorted(PROVEN.get(name) or SILENT.get(name) or REFUSED.get(name) or ())


def page() -> str:
    """Write the page."""
    collect()
    by_opcode = makers()
    rows = members()
    seen = sum(name_of(one) in PROVEN for one in rows)
    on = ".".join(map(str, SEEN_ON))
    lines = [
        "# The surface of io_uring",
        "",
        "Every number of the header that liburing 2.15 ships, as `uringio.lowlevel` names it, the",
        "first Linux that has it, what a program calls or where it finds the flag, the tests in",
        f"tests/lowlevel that show it, and what was seen of it on Linux {on}. *Seen* means an",
        "effect: bytes moved, a file renamed, a process reaped, an order changed, an errno that",
        "the flag alone brings about. What is *refused* has its errno pinned by the test. Written",
        "by `python tools/surface.py`; the tests hold it to what it says.",
        "",
        f"{seen} of {len(rows)} are seen. Bound to a machine of their own are:",
        "",
        *(f"- `{name}` {why}" for name, why in sorted(BOUND_TO_HARDWARE.items())),
        "",
    ]
    for kind in kinds():
        shown = sum(name_of(one) in PROVEN for one in kind)
        lines += [f"## {kind.__name__}", "", f"{shown} of {len(list(kind))} are seen.", ""]
        lines.append(f"| name | value | since | meaning | call | test | Linux {on} |")
        lines.append("|---|--:|---|---|---|---|---|")
        for one in kind:
            since, meaning = getattr(one, "since", ""), getattr(one, "meaning", "")
            call, tests = function_of(one, by_opcode), ", ".join(shown_by(one))
            lines.append(
                f"| {one.name} | {one.value} | {since} | {meaning} | {call} | {tests} "
                f"| {status(one)} |"
            )
        lines.append("")
    return "\n".join(lines)
