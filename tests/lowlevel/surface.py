"""
The page docs/reference/surface.md: each number of io_uring's, and the test that shows its effect.

Written by `python tools/surface.py`; `test_coverage.py` holds the page against it.
"""

import importlib
import re
from enum import Enum
from pathlib import Path

from tests.lowlevel.golden_requests import REQUESTS
from tests.lowlevel.rig import PROVEN, name_of
from uringio import lowlevel
from uringio.lowlevel import Opcode, RegisterOp, Ring

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "surface.md"

# The modules whose tests note what they show.
MODULES = (
    "test_effects_control",
    "test_effects_files",
    "test_effects_names",
    "test_effects_sockets",
    "test_own_memory",
    "test_registrations",
    "test_ring",
    "test_sqpoll",
    "test_waits",
)

# Why there is no test of the effect: what machine it would take.
BOUND_TO_HARDWARE: dict[str, str] = {
    "Opcode.RECV_ZC": "needs a network card whose receive queue can be taken over",
    "RegisterOp.ZCRX_IFQ": "needs a network card whose receive queue can be taken over",
}

# Of the kernel's, and not yet reached from here.
NOT_YET: dict[str, str] = {}

# What Linux 6.18, the newest that these tests have met, does not know.
YOUNG = {
    "Opcode.NOP128",
    "Opcode.URING_CMD128",
    "RegisterOp.ZCRX_CTRL",
    "RegisterOp.BPF_FILTER",
    "SetupFlags.SQE_MIXED",
    "SetupFlags.SQ_REWIND",
}

# Registrations whose method is not called as they are.
METHODS: dict[str, str] = {
    "PBUF_RING": "Ring.setup_buf_ring",
    "UNREGISTER_PBUF_RING": "ProvidedBuffers.free",
    "PBUF_STATUS": "Ring.buf_ring_head",
    "PROBE": "Ring.opcodes",
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
    "BUFFERS2": "Ring.register_buffers_sparse",
    "EVENTFD_ASYNC": "Ring.register_eventfd",
}

# In the order of the page.
FIRST = ("Opcode", "RegisterOp", "SetupFlags", "EnterFlags", "Features", "SqeFlags", "CqeFlags")


def collect() -> None:
    """Import the modules whose tests note what they show."""
    for name in MODULES:
        importlib.import_module(f"tests.lowlevel.{name}")


def kinds() -> list[type[Enum]]:
    """List the public enumerations in the order of the page."""
    found = {
        name: value
        for name in lowlevel.__all__
        if isinstance(value := getattr(lowlevel, name), type) and issubclass(value, Enum)
    }
    return [found[name] for name in (*FIRST, *sorted(set(found) - set(FIRST)))]


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
        return ", ".join(by_opcode.get(member, ["`prep_rw`"]))
    method = METHODS.get(member.name, f"Ring.{member.name.lower()}")
    if method.startswith("Ring.") and not hasattr(Ring, method.removeprefix("Ring.")):
        method = f"Ring.register_{member.name.lower()}"
    if method.startswith("Ring.") and not hasattr(Ring, method.removeprefix("Ring.")):
        method = "Ring.register"
    return method


def evidence(member: Enum) -> str:
    """Name the test that shows the effect, or say why there is none."""
    name = name_of(member)
    if name in PROVEN:
        return ", ".join(sorted(PROVEN[name]))
    if name in YOUNG:
        return "Linux 6.18 lacks it; value and layout are pinned"
    return BOUND_TO_HARDWARE.get(name) or NOT_YET.get(name) or "value pinned"


def page() -> str:
    """Write the page."""
    collect()
    by_opcode = makers()
    lines = [
        "# The surface of io_uring",
        "",
        "Every number of the header that liburing 2.15 ships, as `uringio.lowlevel` names it,",
        "the Linux that brought it, what a program calls, and the test in tests/lowlevel that",
        "shows its effect on a real kernel. `value pinned`: the number is held against the",
        "compiler's header, and no test shows what it does yet. Written by",
        "`python tools/surface.py`.",
        "",
    ]
    for kind in kinds():
        members = list(kind)
        called = kind in {Opcode, RegisterOp}
        shown = sum(name_of(one) in PROVEN for one in members)
        lines += [f"## {kind.__name__}", "", f"{shown} of {len(members)} are shown.", ""]
        lines.append(
            "| name | value | since | meaning |" + (" call |" if called else "") + " test |"
        )
        lines.append("|---|--:|---|---|" + ("---|" if called else "") + "---|")
        for one in members:
            since, meaning = getattr(one, "since", ""), getattr(one, "meaning", "")
            row = f"| {one.name} | {one.value} | {since} | {meaning} |"
            if called:
                row += f" {function_of(one, by_opcode)} |"
            lines.append(f"{row} {evidence(one)} |")
        lines.append("")
    return "\n".join(lines)
