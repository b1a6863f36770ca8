"""Run the suites, print a table, fail on what is not explained."""

import argparse
import os
import sys
import textwrap
from pathlib import Path

from .factories import LOOPS, missing
from .judging import SHARE_MIN, Different, Verdict, judge, read_explained
from .running import Run, run_suite
from .suites import ROOT, SUITES, Suite, SuiteMissingError, find

__all__ = ["main"]

WIDTH = 80
ROW = "{:10}{:>10}{:>9}{:>9}{:>9}{:>9}{:>12}{:>12}"
CACHE = ROOT / "build" / "peers"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.peers",
        description="Run CPython's asyncio tests and uvloop's on our loop, and on its peers.",
    )
    parser.add_argument("--suite", choices=SUITES, action="append", help="default: both")
    parser.add_argument(
        "--loop", choices=LOOPS, action="append", help="default: all three; ours is judged"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PART",
        help="tests whose names contain it, as test_events or test_tcp.Test_AIO_TCP",
    )
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument(
        "--timeout", type=float, default=30.0, help="for one test, in seconds (default: 30)"
    )
    parser.add_argument(
        "--reuse", action="store_true", help="take what the peers passed from the last whole run"
    )
    parser.add_argument(
        "--details", action="store_true", help="print the tracebacks of what is unexplained"
    )
    parser.add_argument("--explained", action="store_true", help="print what is explained, too")
    return parser.parse_args(arguments)


def results_path(suite: Suite, loop: str) -> Path:
    python = ".".join(map(str, sys.version_info[:3]))
    return CACHE / f"{suite.name}-{python}-{loop}.json"


def run_or_load(suite: Suite, loop: str, options: argparse.Namespace) -> Run:
    path = results_path(suite, loop)
    if options.reuse and loop != "uringio" and path.exists():
        run = Run.load(path)
        run.tests = {
            name: one
            for name, one in run.tests.items()
            if not options.only or any(part in name for part in options.only)
        }
        return run
    run = run_suite(
        suite,
        loop,
        only=options.only,
        jobs=options.jobs,
        timeout=options.timeout,
        logs=path.with_suffix(".logs"),
    )
    if not options.only:
        run.save(path)
    return run


def try_again(suite: Suite, runs: dict[str, Run], verdict: Verdict, timeout: float) -> list[str]:
    """Run what is unexplained once more, one at a time; return what passes then."""
    steady = []
    for test in verdict.unexplained:
        module = f"{suite.prefix}{test.split('.', maxsplit=1)[0]}"
        alone = Suite(suite.name, suite.prefix, (module,), suite.path, suite.stand_in)
        outcome = run_suite(alone, "uringio", only=[test], jobs=1, timeout=timeout).tests.get(test)
        if outcome is not None and outcome.outcome == "passed":
            runs["uringio"].tests[test] = outcome
            steady.append(test)
    return steady


def print_table(runs: dict[str, Run], verdict: Verdict) -> None:
    head = ("loop", "making", "passed", "failed", "skipped", "hung", "of asyncio", "of uvloop")
    print(ROW.format(*head))
    for loop, run in runs.items():
        outcomes = [run.tests[test].outcome for test in verdict.loop_making if test in run.tests]
        shares = []
        for peer in ("asyncio", "uvloop"):
            owed = verdict.passed.get(peer)
            passed = verdict.passed[loop]
            shares.append(f"{len(owed & passed)}/{len(owed)}" if owed else "-")
        print(
            ROW.format(
                loop,
                len(verdict.loop_making),
                outcomes.count("passed"),
                outcomes.count("failed") + outcomes.count("error"),
                outcomes.count("skipped"),
                outcomes.count("hung") + outcomes.count("crashed"),
                *shares,
            )
        )


def print_tests(tests: list[str], runs: dict[str, Run], verdict: Verdict, details: bool) -> None:
    ours = runs["uringio"].tests
    for test in tests:
        one = ours.get(test)
        outcome = "not run" if one is None else one.outcome
        peers = ", ".join(verdict.missing.get(test, []))
        print(f"  {test}")
        lines = one.detail.strip().splitlines() if one is not None else []
        if details:
            print(textwrap.indent("\n".join(lines), "    | "))
        last = lines[-1] if lines else ""
        print("    " + textwrap.shorten(f"{outcome}: {last}", WIDTH - 4, placeholder=" ..."))
        if details and peers:
            print(f"    (passes on {peers})")


def print_explained(explained: list[Different], verdict: Verdict) -> None:
    for one in explained:
        tests = [test for test in verdict.missing if one.explains(test)]
        if tests:
            print(textwrap.fill(f"- {one.reason}", WIDTH, subsequent_indent="  "))
            for test in tests:
                print(f"    {test}{' (uvloop passes it)' * ('uvloop' in verdict.missing[test])}")


def judge_suite(suite: Suite, options: argparse.Namespace, loops: list[str]) -> bool:
    """Run one suite, print what came of it, return whether that is well."""
    runs = {loop: run_or_load(suite, loop, options) for loop in loops}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    print(f"\n{suite.name}'s tests on Python {sys.version.split(maxsplit=1)[0]}")
    for loop, run in runs.items():
        for where, what in run.troubles.items():
            print(f"  {loop}: {where}: {what.strip().splitlines()[-1]}")
    if "uringio" not in runs:
        for loop, run in runs.items():
            making = run.loop_making()
            print(f"  {loop}: {len(run.passed() & making)} of {len(making)} passed")
        return True
    explained = read_explained(suite.name, python)
    verdict = judge(runs, explained, whole=len(runs) > 1 and not options.only)
    again = try_again(suite, runs, verdict, options.timeout)
    if again:
        verdict = judge(runs, explained, whole=len(runs) > 1 and not options.only)
    print_table(runs, verdict)
    number = len(verdict.missing) - len(verdict.unexplained)
    if number:
        print(f"{number} differences are explained in tests/peers/explained.toml")
    if options.explained:
        print_explained(explained, verdict)
    if again:
        print(f"{len(again)} passed at the second attempt, alone:")
        for test in again:
            print(f"  {test}")
    if verdict.stale:
        print("Explained, but no longer different:")
        for pattern in verdict.stale:
            print(f"  {pattern}")
    if len(runs) == 1:
        ours = runs["uringio"].tests
        bad = {"failed", "error", "hung", "crashed"}
        failed = sorted(t for t in verdict.loop_making if ours[t].outcome in bad)
        print_tests(failed, runs, verdict, options.details)
    if verdict.unexplained:
        print(f"{len(verdict.unexplained)} that a peer passes and ours does not, unexplained:")
        print_tests(verdict.unexplained, runs, verdict, options.details)
    enough = "asyncio" not in runs or bool(options.only) or verdict.share("asyncio") >= SHARE_MIN
    if not enough:
        print(f"Fewer than {SHARE_MIN:.0%} of what asyncio's loop passes")
    return enough and not verdict.unexplained and not verdict.stale


def main(arguments: list[str]) -> int:
    """Return the exit status: 1 if something differs that nothing explains."""
    options = parse(arguments)
    loops = []
    for loop in options.loop or LOOPS:
        reason = missing(loop)
        if reason is None:
            loops.append(loop)
        else:
            print(f"{reason}: nothing is compared with it")
    well = True
    for name in options.suite or SUITES:
        try:
            suite = find(name, CACHE)
        except SuiteMissingError as error:
            print(f"{name}'s tests are skipped: {error}")
            continue
        well &= judge_suite(suite, options, loops)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
