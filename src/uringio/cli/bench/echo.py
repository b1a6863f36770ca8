"""
The run of `uringio bench`: cells, rounds, contenders; tables as they come, files at the end.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from . import machine, regression, tables
from .charts import write_charts
from .compiling import CompileError, client_command, compiler_version
from .options import Options, options
from .result import Result, ResultError, load
from .rivals import CONTENDERS, AbsentError, Contender
from .rounds import rotated
from .sample import Cell, MissingError, Sample, SampleError, Setup, take
from .syscalls import absence
from .writing import write_files

_OVERHEAD_SECONDS = 0.45
"""What a sample takes beside its windows: two processes started, connected and ended."""
_COUNTING = -1
"""The round of samples that are taken for their count of system calls."""


def main(argv: Sequence[str]) -> int:
    """
    Read the arguments, measure, or read, and show; the exit status of the command.

    Raises:
        SystemExit: The arguments are wrong, or help was asked for.
    """
    return bench(options(argv))


def bench(options: Options) -> int:
    """
    Measure, or read, and show; the exit status of the command.
    """
    if options.is_list:
        return _list(options)
    try:
        baseline = None if options.baseline is None else regression.stored(options.baseline, "echo")
        result = _measured(options) if options.report is None else _shown_again(options.report)
    except (ResultError, CompileError) as failure:
        print(f"uringio bench: {failure}", file=sys.stderr)
        return 2
    for line in (*tables.LEGEND, *map(str, tables.verdicts(result))):
        print(line)
    is_worse = baseline is not None and _compare(baseline, result, options.tolerance)
    if options.save_baseline is not None:
        regression.save(options.save_baseline, "echo", result.machine, result.ratios())
        print(f"written: {options.save_baseline}")
    _write(options, result)
    for name, reason in result.broken.items():
        print(f"broken: {name}: {reason}", file=sys.stderr)
    return 1 if result.broken or is_worse else 0


def _list(options: Options) -> int:
    asked_for = {one.name for one in options.contenders}
    with tempfile.TemporaryDirectory(prefix="uringio-bench-") as folder:
        for contender in CONTENDERS:
            try:
                contender.command(Path(folder), options.cpus[0], 1)
            except AbsentError as reason:
                told = str(reason)
            else:
                told = "takes part" if contender.name in asked_for else "by --contenders"
            print(f"{contender.name:<24}{told}"[: tables.WIDTH])
    return 0


def _shown_again(path: Path) -> Result:
    result = load(path)
    print(machine.headline(result.machine))
    for cell in result.cells():
        for heap in result.heaps:
            tables.print_lines(tables.of_cell(result, cell, heap))
    return result


def _measured(options: Options) -> Result:
    began = time.monotonic()
    result = Result(
        machine={**machine.describe(), "compiler": compiler_version()},
        client="",
        spin=options.spin,
        server_cpu=options.cpus[0],
        client_cpu=options.cpus[1],
        warm_seconds=options.warm,
        seconds=options.seconds,
        rounds=options.rounds,
        heaps=options.heap,
    )
    print(machine.headline(result.machine))
    with tempfile.TemporaryDirectory(prefix="uringio-bench-") as folder:
        build = Path(folder)
        result.client, client = client_command(options.client, build)
        setup = Setup(
            build=build,
            client=tuple(client),
            server_cpu=options.cpus[0],
            client_cpu=options.cpus[1],
            warm_ms=round(options.warm * 1000),
            measure_ms=round(options.seconds * 1000),
            spin=options.spin,
        )
        _introduce(result)
        try:
            _run(setup, options, result)
        except KeyboardInterrupt:
            _progress("")
            print("\ninterrupted: what was measured so far is saved")
            result.broken["run"] = "interrupted"
    print(f"took {time.monotonic() - began:.0f} s")
    return result


def _introduce(result: Result) -> None:
    print(
        f"server on CPU {result.server_cpu}, {result.client} client on CPU {result.client_cpu}"
        f"{' (busy polling)' if result.spin else ''}"
    )
    if result.server_cpu == result.client_cpu:
        print("only one processor: server and client share it, latencies mean little")


def _run(setup: Setup, options: Options, result: Result) -> None:
    contenders = _able(setup, options.contenders, result)
    counts = options.syscalls
    reason = absence() if counts else None
    if reason is not None:
        print(f"system calls are not counted: {reason}")
        result.skipped["system calls"] = reason
        counts = False
    cells = [
        Cell(size, count, depth)
        for size in options.sizes
        for count in options.connections
        for depth in options.in_flight
    ]
    count = len(cells) * len(options.heap) * len(contenders) * (options.rounds + counts)
    minutes = count * (options.warm + options.seconds + _OVERHEAD_SECONDS) / 60
    print(
        f"{options.rounds} rounds of {options.seconds:g} s, about {minutes:.1f} min\n", flush=True
    )
    for cell in cells:
        for index in range(options.rounds):
            result.samples += _round(setup, cell, contenders, index, result)
        if counts:
            result.counted += _round(setup, cell, contenders, _COUNTING, result)
        for heap in options.heap:
            tables.print_lines(tables.of_cell(result, cell, heap))


def _able(setup: Setup, contenders: list[Contender], result: Result) -> list[Contender]:
    """
    Return the contenders that echo at all; say why the others do not take part.
    """
    able: list[Contender] = []
    quick = Setup(setup.build, setup.client, setup.server_cpu, setup.client_cpu, 10, 10, setup.spin)
    for contender in contenders:
        _progress(f"trying {contender.name}")
        try:
            tried = take(quick, contender, "fresh", Cell(1000, 3), 0)
        except MissingError as missing:
            result.skipped[contender.name] = str(missing)
        except SampleError as failure:
            result.broken[contender.name] = str(failure)
        else:
            able.append(contender)
            if contender.is_ours and not tried.ring and not contender.options:
                _progress("")
                print(f"note: {contender.name} has no ring here: it runs on its fallback")
        finally:
            _progress("")
    for name, why in result.skipped.items():
        print(f"skipped: {name}: {why}")
    return able


def _round(
    setup: Setup, cell: Cell, contenders: list[Contender], index: int, result: Result
) -> list[Sample]:
    taken: list[Sample] = []
    counts = index == _COUNTING
    title = "counting" if counts else f"round {index + 1}/{result.rounds}"
    for heap in result.heaps:
        for contender in rotated(contenders, max(index, 0)):
            if contender.name in result.broken:
                continue
            _progress(f"{cell}  {title}  {heap}  {contender.name}")
            try:
                taken.append(take(setup, contender, heap, cell, index, counts=counts))
            except SampleError as failure:
                result.broken[contender.name] = f"{cell}, {heap}: {failure}"
    _progress("")
    return taken


def _compare(baseline: regression.Baseline, result: Result, tolerance: float) -> bool:
    is_worse, lines = regression.report(baseline, result.ratios(), result.machine, tolerance)
    tables.print_lines(lines)
    return is_worse


def _write(options: Options, result: Result) -> None:
    from .page import write_page

    write_files(
        "echo",
        result.as_json(),
        options.out,
        options.report,
        lambda folder, stem: write_charts(result, folder, stem),
        lambda charts, path: write_page(result, charts, path),
    )


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
