"""
Run the echo load benchmark: `python -m bench.echo --help`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

if not __package__:  # started as `python bench/echo`
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from bench import machine
from bench.echo import report
from bench.echo.contenders import CONTENDERS, FALLBACKS, Contender, by_name, default_names
from bench.echo.load import client_command
from bench.echo.sample import HEAPS, Cell, MissingError, Sample, SampleError, Setup, take
from bench.rounds import rotated

_FULL_SIZES = "64,1k,16k,64k"
_FULL_CONNECTIONS = "1,50,500"
_OVERHEAD_SECONDS = 0.45
"""What a sample takes beside its windows: two processes started, connected and ended."""


def main(argv: list[str] | None = None) -> int:
    """
    Measure every cell, print the tables, write the JSON. Returns 1 if a contender broke.
    """
    options = _options(argv)
    cells = [Cell(size, count) for size in options.sizes for count in options.connections]
    cpus = options.cpus or _two_cpus()
    samples: list[Sample] = []
    broken: dict[str, str] = {}
    described = machine.describe()
    print(machine.headline(described))
    with tempfile.TemporaryDirectory(prefix="echo-") as build:
        client_kind, client = client_command(options.client, Path(build))
        setup = Setup(
            client=tuple(client),
            server_cpu=cpus[0],
            client_cpu=cpus[1],
            warm_ms=round(options.warm * 1000),
            measure_ms=round(options.seconds * 1000),
            spin=options.spin,
        )
        print(
            f"server on CPU {cpus[0]}, {client_kind} client on CPU {cpus[1]}"
            f"{' (busy polling)' if options.spin else ''}, one message in flight per connection"
        )
        if cpus[0] == cpus[1]:
            print("only one processor: server and client share it, latencies mean little")
        try:
            contenders = _able(setup, options.contenders, broken)
            count = len(cells) * len(options.heap) * len(contenders) * options.rounds
            minutes = count * (options.warm + options.seconds + _OVERHEAD_SECONDS) / 60
            print(f"{options.rounds} rounds of {options.seconds:g} s, about {minutes:.1f} min\n")
            for cell in cells:
                taken = _run_cell(setup, cell, options.heap, contenders, options.rounds, broken)
                samples.extend(taken)
                _print_cell(taken, cell, options.heap)
        except KeyboardInterrupt:
            print("\ninterrupted: what was measured so far is saved")
            broken["run"] = "interrupted"
    for line in (*report.LEGEND, *report.budget_lines(samples)):
        print(line)
    result = {
        "benchmark": "echo",
        "machine": described,
        "client": client_kind,
        "spin": options.spin,
        "warm_seconds": options.warm,
        "seconds": options.seconds,
        "rounds": options.rounds,
        "broken": broken,
        "samples": [asdict(sample) for sample in samples],
        "ratios": _all_ratios(samples, cells, options.heap),
    }
    print("written:", _shown(machine.save("echo", result, options.json)))
    for name, reason in broken.items():
        print(f"broken: {name}: {reason}", file=sys.stderr)
    return 1 if broken else 0


def _run_cell(
    setup: Setup,
    cell: Cell,
    heaps: list[str],
    contenders: list[Contender],
    rounds: int,
    broken: dict[str, str],
) -> list[Sample]:
    taken: list[Sample] = []
    for round_index in range(rounds):
        for heap in heaps:
            for contender in rotated(contenders, round_index):
                if contender.name in broken:
                    continue
                _progress(f"{cell}  round {round_index + 1}/{rounds}  {heap}  {contender.name}")
                try:
                    taken.append(take(setup, contender, heap, cell, round_index))
                except SampleError as failure:
                    broken[contender.name] = f"{cell}, {heap}: {failure}"
    _progress("")
    return taken


def _able(setup: Setup, contenders: list[Contender], broken: dict[str, str]) -> list[Contender]:
    """
    Return the contenders that echo at all; say why the others do not take part.
    """
    able = []
    quick = Setup(setup.client, setup.server_cpu, setup.client_cpu, 10, 10, setup.spin)
    for contender in contenders:
        _progress(f"trying {contender.name}")
        try:
            tried = take(quick, contender, "fresh", Cell(1000, 3), 0)
        except MissingError as reason:
            _progress("")
            print(f"skipped: {contender.name}: {reason}"[:100])
            continue
        except SampleError as failure:
            broken[contender.name] = str(failure)
            continue
        finally:
            _progress("")
        if contender.is_ours and not tried.ring and not contender.options:
            print(f"note: {contender.name} has no ring here: it runs on its fallback")
        able.append(contender)
    return able


def _print_cell(samples: list[Sample], cell: Cell, heaps: list[str]) -> None:
    for heap in heaps:
        table = report.of_cell(samples, cell, heap)
        if not table:
            continue
        print(f"-- {cell} connections, {heap} heap ".ljust(99, "-"))
        order = [c.name for c in CONTENDERS if c.name in table]
        table = {name: table[name] for name in order}
        ours = [c.name for c in CONTENDERS if c.is_ours and c.name in table]
        rivals = [name for name in order if name not in ours]
        for line in report.figures(table):
            print(line)
        if rivals:
            print()
            for line in report.comparison(table, ours or rivals, rivals):
                print(line)
        for line in report.between_backends(table):
            print(line)
        print(flush=True)


def _all_ratios(
    samples: list[Sample], cells: list[Cell], heaps: list[str]
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for cell in cells:
        for heap in heaps:
            table = report.of_cell(samples, cell, heap)
            for name in table:
                for rival in table:
                    found = report.ratios(table, name, rival, report.cpu)
                    if name != rival and found is not None:
                        rows.append(
                            {
                                "size_bytes": cell.size_bytes,
                                "connections": cell.connections,
                                "heap": heap,
                                "contender": name,
                                "rival": rival,
                                "cpu_ratio": found.as_dict(),
                            }
                        )
    return rows


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.echo",
        description="TCP echo: server CPU per message, throughput and latency, against rivals.",
    )
    parser.add_argument(
        "--sizes", type=_sizes, default="64", help="message sizes, such as 64,1k,64k"
    )
    parser.add_argument("--connections", type=_counts, default="50", help="such as 1,50,500")
    parser.add_argument(
        "--full",
        action="store_true",
        help=f"sizes {_FULL_SIZES} and connections {_FULL_CONNECTIONS}",
    )
    parser.add_argument("--rounds", type=_count, default=10, help="at least 10 to be quoted")
    parser.add_argument("--seconds", type=_seconds, default=0.5, help="measured window of a sample")
    parser.add_argument("--warm", type=_seconds, default=0.2, help="warm-up before it")
    parser.add_argument(
        "--contenders",
        type=_contenders,
        help=f"default: {default_names(FALLBACKS[0])}",
    )
    parser.add_argument(
        "--backend",
        choices=FALLBACKS,
        default=FALLBACKS[0],
        help="what the native form runs on beside io_uring, where no contenders are named",
    )
    parser.add_argument("--heap", type=_heaps, default=",".join(HEAPS), help="fresh,steady")
    parser.add_argument("--client", choices=("auto", "c", "python"), default="auto")
    parser.add_argument("--spin", action="store_true", help="the client polls busily")
    parser.add_argument("--cpus", type=_cpus, help="SERVER,CLIENT processor numbers")
    parser.add_argument("--json", type=Path, help="default: a new file in bench/results")
    options = parser.parse_args(argv)
    if options.contenders is None:
        options.contenders = by_name(default_names(options.backend))
    if options.full:
        options.sizes, options.connections = _sizes(_FULL_SIZES), _counts(_FULL_CONNECTIONS)
    return options


def _bounded(text: str, low: float, high: float) -> float:
    value = float(text)
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text} is not within {low:g} and {high:g}")
    return value


def _sizes(text: str) -> list[int]:
    units = {"k": 1 << 10, "m": 1 << 20}
    sizes = []
    for part in text.lower().split(","):
        unit = units.get(part[-1:], 1)
        sizes.append(int(_bounded(part.rstrip("km"), 1, (16 << 20) / unit)) * unit)
    return sizes


def _counts(text: str) -> list[int]:
    return [int(_bounded(part, 1, 10_000)) for part in text.split(",")]


def _count(text: str) -> int:
    return int(_bounded(text, 1, 1000))


def _seconds(text: str) -> float:
    return _bounded(text, 0.01, 60)


def _heaps(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in HEAPS:
            raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(HEAPS)}")
    return names


def _contenders(text: str) -> list[Contender]:
    try:
        return by_name(text)
    except ValueError as unknown:
        raise argparse.ArgumentTypeError(str(unknown)) from None


def _cpus(text: str) -> tuple[int, int]:
    server, client = text.split(",")
    return int(server), int(client)


def _two_cpus() -> tuple[int, int]:
    available = sorted(os.sched_getaffinity(0))
    # The last two: the first often serves the machine's interrupts.
    return available[-1], available[-2 if len(available) > 1 else -1]


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(machine.ROOT))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    started = time.monotonic()
    status = main()
    print(f"took {time.monotonic() - started:.0f} s")
    raise SystemExit(status)
