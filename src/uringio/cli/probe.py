"""
``uringio probe``: what io_uring can do here, for people and for programs.

For people: at most 100 columns, fewer where the terminal is narrower, the answer first.  For
programs: one JSON object, whose members are those of `uringio.probing.Report` and are described in
docs/probe.md; `SCHEMA` grows by one whenever a member goes or changes its meaning, not when one is
added.
"""

import importlib.metadata
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from uringio.probing import Limit, Machine, Refusal, Report, RingReport
from uringio.probing import probe as look

from .surface import as_members, sections

__all__ = ["SCHEMA", "as_json", "as_text", "probe", "status_of"]

SCHEMA: Final = 1

_COLUMNS_MAX: Final = 100
_COLUMNS_MIN: Final = 50
_LABEL_COLUMNS: Final = 17


def probe(*, is_json: bool) -> int:
    """Print what io_uring can do here, and return the exit status; see `status_of`."""
    report = look()
    if is_json:
        text = as_json(report)
    else:
        columns = shutil.get_terminal_size((_COLUMNS_MAX, 24)).columns
        text = as_text(report, min(max(columns, _COLUMNS_MIN), _COLUMNS_MAX))
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # A pager that was left early.  The interpreter would flush once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status_of(report)


def status_of(report: Report) -> int:
    """0: io_uring works.  1: it does not, and programs run without.  2: they do not run."""
    if report.backend is None:
        return 2
    return 0 if report.works else 1


# --- for programs --------------------------------------------------------------------------------


def as_json(report: Report) -> str:
    """Write the report as one JSON object."""
    ring = report.ring
    members = {
        "schema": SCHEMA,
        "uringio": _version(),
        "works": report.works,
        "backend": report.backend,
        "backend_reason": report.backend_reason,
        "refusal": None if report.refusal is None else report.refusal._asdict(),
        "machine": report.machine._asdict(),
        "ring": None
        if ring is None
        else {
            **ring._asdict(),
            "features": [one._asdict() for one in ring.features],
            "operations": [one._asdict() for one in ring.operations],
        },
        "limits": {
            "open_files": report.open_files._asdict(),
            "locked_memory_bytes": report.locked_memory._asdict(),
            "workers": None if report.workers is None else report.workers._asdict(),
        },
        "surface": None if report.surface is None else as_members(report.surface),
    }
    return json.dumps(members, indent=2)


# --- for people ----------------------------------------------------------------------------------


def as_text(report: Report, columns: int) -> str:
    """Write the report in lines of at most *columns* characters."""
    told: list[tuple[str, Iterable[tuple[str, str]]]] = [
        ("Machine", _machine(report.machine)),
        ("Backend", _backend(report)),
    ]
    if report.ring is not None:
        told += [
            ("Ring", _ring(report.ring)),
            ("Features that uringio uses", _features(report.ring)),
            ("Operations that uringio uses", _operations(report.ring)),
        ]
    if report.surface is not None:
        told += sections(report.surface, report.machine.kernel)
    told.append(("Limits", _limits(report)))
    lines = [f"uringio {_version() or ''}".rstrip(), ""]
    lines += textwrap.wrap(_answer(report), columns)
    if report.refusal is not None:
        lines += _refusal(report.refusal, columns)
    for title, rows in told:
        lines += ["", title]
        for label, value in rows:
            lines += _row(label, value, columns)
    return "\n".join(lines)


def _row(label: str, value: str, columns: int) -> list[str]:
    indent = " " * (2 + _LABEL_COLUMNS)
    return textwrap.wrap(
        value,
        columns,
        initial_indent=f"  {label:<{_LABEL_COLUMNS - 1}} ",
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _answer(report: Report) -> str:
    if report.works:
        return "io_uring works here."
    if report.backend is not None:
        return f"io_uring does not work here. Programs run on {report.backend} instead."
    return "io_uring does not work here, and programs fail as they begin."


def _refusal(refusal: Refusal, columns: int) -> Iterator[str]:
    yield ""
    yield "Why"
    yield from _paragraph(refusal.explanation, columns)
    yield from _paragraph(f"What failed: {refusal.message} ({refusal.error}).", columns)
    if refusal.remedies:
        yield ""
        yield "What to do"
    for remedy in refusal.remedies:
        yield from textwrap.wrap(
            remedy,
            columns,
            initial_indent="  - ",
            subsequent_indent="    ",
            break_on_hyphens=False,
            break_long_words=False,
        )


def _paragraph(text: str, columns: int) -> list[str]:
    return textwrap.wrap(
        text, columns, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )


def _machine(machine: Machine) -> Iterator[tuple[str, str]]:
    yield "kernel", f"{machine.system} {machine.kernel}, {machine.architecture}"
    yield "C library", machine.libc or "unknown"
    yield "Python", machine.python
    if machine.container is not None:
        yield "container", machine.container
    if machine.system != "Linux":
        return
    yield (
        "seccomp",
        {None: "unknown", "filter": "a filter is in force"}.get(
            machine.seccomp, str(machine.seccomp)
        ),
    )
    yield "sysctl", _sysctl(machine)


def _sysctl(machine: Machine) -> str:
    setting = machine.sysctl_disabled
    if setting is None:
        return "kernel.io_uring_disabled cannot be read (Linux has it since 6.6)"
    who = {0: "everybody", 1: f"root and group {machine.sysctl_group}", 2: "nobody"}
    if setting == 1 and (machine.sysctl_group or -1) < 0:
        who[1] = "root"
    return f"kernel.io_uring_disabled = {setting}: {who.get(setting, '?')} may use io_uring"


def _backend(report: Report) -> Iterator[tuple[str, str]]:
    yield "chosen", report.backend or "none"
    yield "because", report.backend_reason


def _ring(ring: RingReport) -> Iterator[tuple[str, str]]:
    newest = "the newest" if ring.rung == 1 else f"as of Linux {ring.rung_since}"
    yield "set-up", f"set {ring.rung} of {ring.rungs}, {newest}"
    yield "flags", ", ".join(ring.flags)
    yield "queues", f"{ring.submission_slots} submissions, {ring.completion_slots} completions"


def _features(ring: RingReport) -> Iterator[tuple[str, str]]:
    for feature in ring.features:
        words = feature.purpose
        if not feature.here:
            words = f"missing (Linux {feature.since}): {words}; without it: {feature.otherwise}"
        yield _short(feature.name), words


def _short(name: str) -> str:
    for prefix in ("IORING_FEAT_", "IORING_REGISTER_", "IORING_SETUP_", "IORING_OP_"):
        name = name.removeprefix(prefix)
    return name


def _operations(ring: RingReport) -> Iterator[tuple[str, str]]:
    yield "used", ", ".join(_short(one.name) for one in ring.operations if one.here)
    label = "missing"
    instead = {
        "thread": "a worker thread makes the system call",
        "copy": "the kernel copies what it would not have",
        "none": "what needs it fails",
    }
    for one in ring.operations:
        if not one.here:
            yield label, f"{_short(one.name)}: {instead[one.otherwise]}"
            label = ""
    if label:
        yield label, "none"


def _limits(report: Report) -> Iterator[tuple[str, str]]:
    yield "open files", _limit(report.open_files, _count)
    yield "locked memory", _limit(report.locked_memory, _size)
    if report.workers is not None:
        bounded, unbounded = report.workers
        yield (
            "kernel workers",
            f"{_count(bounded)} for files, {_count(unbounded)} for all else, in each thread",
        )


def _limit(limit: Limit, written: Callable[[int], str]) -> str:
    if limit.soft is None:
        return "without limit"
    if limit.soft == limit.hard:
        return written(limit.soft)
    most = "without limit" if limit.hard is None else f"to {written(limit.hard)}"
    return f"{written(limit.soft)}, which a process may raise {most}"


def _count(value: int) -> str:
    return f"{value:,}"


def _size(value: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= unit:
            return f"{value / unit:.1f} {name}".replace(".0 ", " ")
    return f"{value} bytes"


def _version() -> str | None:
    try:
        return importlib.metadata.version("uringio-ctypes")
    except importlib.metadata.PackageNotFoundError:
        return None
