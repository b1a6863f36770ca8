"""
Run the benchmark of static files: `python -m bench.static --help`.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from bench.static.contenders import CONTENDERS, Contender
from bench.static.sample import HEAPS, MissingError, Sample, SampleError, Setup, take
from uringio.cli.bench import machine
from uringio.cli.bench.rounds import Spread, rotated, spread

_OVERHEAD_SECONDS = 1.0
"""What a sample takes beside its windows: a server started and ended."""

Table = dict[str, dict[int, Sample]]


def main(argv: list[str] | None = None) -> int:
    """
    Measure, print the tables, write the JSON. Returns 1 if a contender broke.
    """
    options = _options(argv)
    if shutil.which("wrk") is None:
        print("there is no wrk on PATH", file=sys.stderr)
        return 1
    available = sorted(os.sched_getaffinity(0))
    server_cpu, client_cpu = available[-1], available[-2 if len(available) > 1 else -1]
    described = machine.describe()
    print(machine.headline(described))
    print(
        f"server on CPU {server_cpu}, wrk -t1 -c{options.connections} on CPU {client_cpu}; "
        f"{options.rounds} rounds of {options.seconds} s"
    )
    samples: list[Sample] = []
    broken: dict[str, str] = {}
    contenders: list[Contender] = options.contenders
    with tempfile.TemporaryDirectory(prefix="static-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for size in options.sizes:
            (folder / f"{size}.bin").write_bytes(random.Random(size).randbytes(size))
        setup = Setup(folder, server_cpu, client_cpu, options.warm, options.seconds)
        count = len(options.sizes) * len(options.heap) * len(contenders) * options.rounds
        minutes = count * (options.warm + options.seconds + _OVERHEAD_SECONDS) / 60
        print(f"about {minutes:.0f} min\n", flush=True)
        try:
            for index in range(options.rounds):
                for size in options.sizes:
                    for heap in options.heap:
                        for contender in rotated(contenders, index):
                            if contender.name in broken:
                                continue
                            try:
                                samples.append(
                                    take(setup, contender, size, options.connections, heap, index)
                                )
                            except MissingError as reason:
                                print(f"skipped: {contender.name}: {reason}"[:100])
                                contenders = [one for one in contenders if one is not contender]
                            except SampleError as failure:
                                broken[contender.name] = f"{size} bytes, {heap}: {failure}"
        except KeyboardInterrupt:
            print("\ninterrupted: what was measured so far is shown")
            broken["run"] = "interrupted"
    for size in options.sizes:
        for heap in options.heap:
            _print(samples, size, heap)
    result = {
        "benchmark": "static",
        "machine": described,
        "warm_seconds": options.warm,
        "seconds": options.seconds,
        "rounds": options.rounds,
        "connections": options.connections,
        "broken": broken,
        "samples": [asdict(sample) for sample in samples],
    }
    print("written:", machine.save("static", result, options.json).name)
    for name, reason in broken.items():
        print(f"broken: {name}: {reason}", file=sys.stderr)
    return 1 if broken else 0


def _print(samples: Sequence[Sample], size: int, heap: str) -> None:
    table: Table = {}
    for sample in samples:
        if (sample.size_bytes, sample.heap) == (size, heap):
            table.setdefault(sample.contender, {})[sample.round] = sample
    order = [one.name for one in CONTENDERS if one.name in table]
    ours = [one.name for one in CONTENDERS if one.is_ours and one.name in table]
    if not order:
        return
    shown = f"{size >> 20} MiB" if size >= 1 << 20 else f"{size / 1024:g} KiB"
    print(f"-- {shown}, {heap} heap ".ljust(99, "-"))
    print(
        f"{'':<18}{'requests per CPU s':>24}{'CPU us':>10}{'req/s':>9}{'kernel':>8}{'busy':>6}"
        f"{'errors':>8}"
    )
    for name in order:
        taken = list(table[name].values())
        rate = spread([1e6 / sample.cpu_us_per_request for sample in taken])
        print(
            f"{name:<18}{rate.median:>10.0f} {f'[{rate.low:.0f}-{rate.high:.0f}]':>13}"
            f"{_mid(taken, lambda s: s.cpu_us_per_request):>10.1f}"
            f"{_mid(taken, lambda s: s.requests_per_second):>9.0f}"
            f"{_mid(taken, lambda s: s.system_ns / max(1, s.user_ns + s.system_ns)):>8.0%}"
            f"{_mid(taken, lambda s: s.cpu_ns / 1e9 / s.seconds):>6.0%}"
            f"{sum(sample.errors for sample in taken):>8}"
        )
    print(
        f"\n{'requests per server CPU second, as a ratio':<50}" + "".join(f"{n:>22}" for n in ours)
    )
    for rival in order:
        cells = []
        for name in ours:
            found = None if name == rival else _ratio(table, name, rival)
            cells.append("-" if found is None else _shown(found))
        print(f"{'  to ' + rival:<50}" + "".join(f"{cell:>22}" for cell in cells))
    print(flush=True)


def _ratio(table: Table, name: str, rival: str) -> Spread | None:
    mine, theirs = table[name], table[rival]
    values = [
        theirs[index].cpu_us_per_request / mine[index].cpu_us_per_request
        for index in sorted(mine.keys() & theirs.keys())
    ]
    return spread(values) if values else None


def _shown(found: Spread) -> str:
    return f"{found.median:.2f} [{found.low:.2f}-{found.high:.2f}]"


def _mid(samples: Sequence[Sample], measure: Callable[[Sample], float]) -> float:
    return median(map(measure, samples))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.static",
        description="Static files over HTTP/1.1: requests per server CPU second, against rivals.",
    )
    parser.add_argument("--sizes", type=_sizes, default="1k,1m", help="default: %(default)s")
    parser.add_argument("--connections", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=2, help="measured window of a sample")
    parser.add_argument("--warm", type=int, default=1, help="warm-up before it")
    parser.add_argument(
        "--contenders",
        type=_contenders,
        default=",".join(contender.name for contender in CONTENDERS),
        help="default: %(default)s",
    )
    parser.add_argument("--heap", type=_heaps, default=",".join(HEAPS), help="fresh,steady")
    parser.add_argument("--json", type=Path, help="default: a new file in bench/results")
    return parser.parse_args(argv)


def _sizes(text: str) -> list[int]:
    units = {"k": 1 << 10, "m": 1 << 20}
    return [int(part.rstrip("km")) * units.get(part[-1:], 1) for part in text.lower().split(",")]


def _heaps(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - HEAPS.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
    return names


def _contenders(text: str) -> list[Contender]:
    known = {contender.name: contender for contender in CONTENDERS}
    names = text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(
            f"unknown: {', '.join(unknown)}; known: {', '.join(known)}"
        )
    return [known[name] for name in names]


if __name__ == "__main__":
    started = time.monotonic()
    status = main()
    print(f"took {time.monotonic() - started:.0f} s")
    raise SystemExit(status)
