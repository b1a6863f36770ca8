"""
The arguments of `uringio bench`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from .rivals import FALLBACKS, Contender, by_name, default_names
from .sample import HEAPS
from .suites import summary

_FULL_SIZES = "64,1k,16k,64k"
_FULL_CONNECTIONS = "1,50,500"
CPUS_HELP = "SERVER,CLIENT processors"
_DESCRIPTION = """\
Compare uringio with its rivals on TCP echo: the CPU that the server spends per
message, throughput, latency and system calls. Rivals that are not installed are
skipped; the [bench] extra brings them all.
"""
_EPILOG = """\
Writes JSON, charts (where matplotlib is installed) and a page that shows it all.
Exit status: 0 measured, 1 a contender broke, or a ratio is worse than the baseline
says, 2 it could not begin.
"""


class Options(argparse.Namespace):
    """
    What was asked for.
    """

    sizes: list[int]
    connections: list[int]
    in_flight: list[int]
    rounds: int
    seconds: float
    warm: float
    contenders: list[Contender]
    heap: list[str]
    client: str
    spin: bool
    cpus: tuple[int, int]
    syscalls: bool
    out: Path | None
    baseline: Path | None
    tolerance: float
    report: Path | None
    save_baseline: Path | None
    is_list: bool
    full: bool
    quick: bool
    backend: str


def options(argv: Sequence[str]) -> Options:
    """
    Read the arguments.

    Raises:
        SystemExit: They are wrong, or help was asked for.
    """
    parser = argparse.ArgumentParser(
        prog="uringio bench",
        usage="%(prog)s [SUITE] [options]",
        description=_DESCRIPTION,
        epilog=f"{_EPILOG}\n{summary()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    load = parser.add_argument_group("what is measured")
    load.add_argument("--sizes", type=_sizes, help="message sizes, such as 64,1k,64k (default: 64)")
    load.add_argument("--connections", type=_counts, help="such as 1,50,500 (default: 50)")
    load.add_argument(
        "--in-flight",
        type=_depths,
        default=[1],
        help="messages in flight on each connection, such as 1,16 (default: 1)",
    )
    load.add_argument(
        "--full",
        action="store_true",
        help=f"sizes {_FULL_SIZES} and connections {_FULL_CONNECTIONS}: hours",
    )
    load.add_argument("--contenders", type=_contenders, help="by name, uvloop-* for several")
    load.add_argument(
        "--list", dest="is_list", action="store_true", help="tell who could take part here, and end"
    )
    load.add_argument(
        "--backend",
        choices=FALLBACKS,
        default=FALLBACKS[0],
        help="what the native form runs on beside io_uring, where no contenders are named",
    )
    load.add_argument("--heap", type=heap_modes, default=list(HEAPS), help="fresh,steady")
    how = parser.add_argument_group("how")
    how.add_argument("--rounds", type=counted_rounds, help="at least 10 to be quoted (default: 10)")
    how.add_argument("--seconds", type=seconds_given, help="window of a sample (default: 0.5)")
    how.add_argument("--warm", type=seconds_given, help="warm-up before it (default: 0.2)")
    how.add_argument("--quick", action="store_true", help="3 rounds of 0.2 s, to see that it works")
    how.add_argument("--client", choices=("auto", "c", "python"), default="auto")
    how.add_argument("--spin", action="store_true", help="the client polls busily")
    how.add_argument("--cpus", type=two_cpus_of, default=two_cpus(), help=CPUS_HELP)
    how.add_argument(
        "--no-syscalls",
        dest="syscalls",
        action="store_false",
        help="do not count system calls in a round of their own",
    )
    add_results_group(parser)
    given = parser.parse_args(argv, Options())
    _fill(given)
    return given


def add_results_group(parser: argparse.ArgumentParser) -> None:
    """
    Add the arguments that say where results go and what they are compared with.
    """
    where = parser.add_argument_group("results")
    where.add_argument(
        "--out", type=Path, metavar="DIR", help="where JSON, charts and page go; made if need be"
    )
    where.add_argument(
        "--report", type=Path, metavar="FILE", help="measure nothing: show the JSON of a run again"
    )
    where.add_argument(
        "--baseline",
        type=Path,
        metavar="FILE",
        help="what ratios may not be worse than: by --save-baseline, or the JSON of a run",
    )
    where.add_argument(
        "--tolerance",
        type=_share,
        default=0.05,
        help="by how much a ratio may be worse (default: %(default)s)",
    )
    where.add_argument(
        "--save-baseline",
        type=Path,
        metavar="FILE",
        help="write a file for --baseline: ratios and machine, nothing more",
    )


def _fill(given: Options) -> None:
    defaults: dict[str, object] = {
        "sizes": _sizes(_FULL_SIZES if given.full else "64"),
        "connections": _counts(_FULL_CONNECTIONS if given.full else "50"),
        "rounds": 3 if given.quick else 10,
        "seconds": 0.2 if given.quick else 0.5,
        "warm": 0.1 if given.quick else 0.2,
        "contenders": by_name(default_names(given.backend)),
    }
    for name, default in defaults.items():
        if getattr(given, name) is None:
            setattr(given, name, default)


def bounded(text: str, low: float, high: float) -> float:
    """
    Return the number that *text* is; raises `argparse.ArgumentTypeError` if it is out of range.
    """
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text} is not within {low:g} and {high:g}")
    return value


def _sizes(text: str) -> list[int]:
    units = {"k": 1 << 10, "m": 1 << 20}
    sizes: list[int] = []
    for part in text.lower().split(","):
        unit = units.get(part[-1:], 1)
        sizes.append(int(bounded(part.rstrip("km"), 1, (16 << 20) / unit)) * unit)
    return sizes


def _counts(text: str) -> list[int]:
    return [int(bounded(part, 1, 10_000)) for part in text.split(",")]


def counted_connections(text: str) -> int:
    """
    Read one number of connections.
    """
    return int(bounded(text, 10, 1_000_000))


def _depths(text: str) -> list[int]:
    return [int(bounded(part, 1, 1024)) for part in text.split(",")]


def counted_rounds(text: str) -> int:
    """
    Read a number of rounds.
    """
    return int(bounded(text, 1, 1000))


def seconds_given(text: str) -> float:
    """
    Return a time to measure for.
    """
    return bounded(text, 0.01, 60)


def _share(text: str) -> float:
    return bounded(text, 0, 10)


def heap_modes(text: str) -> list[str]:
    """
    Return keys of `HEAPS`.
    """
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


def two_cpus_of(text: str) -> tuple[int, int]:
    """
    Read the processors of server and client.
    """
    available = os.sched_getaffinity(0)
    try:
        server, client = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not two processors, such as 1,0") from None
    if not {server, client} <= available:
        raise argparse.ArgumentTypeError(f"{text} is not within {sorted(available)}")
    return server, client


def two_cpus() -> tuple[int, int]:
    """
    Return the processors of server and client where none are named.
    """
    available = sorted(os.sched_getaffinity(0))
    # The last two: the first often serves the machine's interrupts.
    return available[-1], available[-2 if len(available) > 1 else -1]
