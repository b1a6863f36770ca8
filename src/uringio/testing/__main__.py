"""`python -m uringio.testing MODULE:FUNCTION --seed N`: have a simulated run again."""

import argparse
import os
import pkgutil
import sys
from collections.abc import Awaitable, Callable

from ._aio import run_asyncio
from ._faults import FaultPlan, plan_of
from ._kernel import SimKernel
from ._minimising import minimise
from ._profiles import PROFILES
from ._running import run

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run an async function without arguments on simulated kernels; 0 unless one fails."""
    parser = argparse.ArgumentParser(
        prog="python -m uringio.testing",
        description="Run an async function on a simulated kernel.",
    )
    parser.add_argument("program", metavar="MODULE:FUNCTION", help="an async function")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds to run")
    parser.add_argument("--profile", default="6.18", choices=sorted(PROFILES))
    parser.add_argument(
        "--faults",
        default="",
        help="such as short=0.1,delay=0.2,recv#3=104 or short@17; storm",
    )
    parser.add_argument("--asyncio", action="store_true", help="run it on asyncio's loop")
    parser.add_argument("--trace", action="store_true", help="print the last events as well")
    parser.add_argument(
        "--minimise", action="store_true", help="of the first that fails, find the faults it takes"
    )
    options = parser.parse_args(arguments)
    sys.path.insert(0, os.getcwd())
    program = _found(options.program)
    plan = plan_of(options.faults)
    for seed in range(options.seed, options.seed + options.seeds):
        if options.minimise and _minimised(program, seed, options.profile, plan, options.trace):
            return 1
        kernel = SimKernel(seed, options.profile, plan)
        try:
            if options.asyncio:
                run_asyncio(_awaited, program, kernel=kernel)
            else:
                run(program, kernel=kernel)
        finally:
            if options.trace:
                sys.stdout.writelines(f"{line}\n" for line in kernel.trace.tail)
            sys.stdout.write(
                f"seed {seed}: trace {kernel.trace_hash()}, {kernel.op_count} operations, "
                f"{kernel.faults.total} faults, {kernel.clock.elapsed_ns / 1e9:.6f} s simulated\n"
            )
    return 0


def _minimised(
    program: Callable[[], Awaitable[object]],
    seed: int,
    profile: str,
    plan: FaultPlan,
    with_trace: bool,
) -> bool:
    """Say with how few faults a program fails; False if it does not."""
    found = minimise(program, seed=seed, profile=profile, faults=plan)
    if found is None:
        return False
    write = sys.stdout.write
    if with_trace:
        sys.stdout.writelines(f"{line}\n" for line in found.trace)
    write(f"seed {seed} fails: {found.error!r}\n")
    write(
        f"{found.fault_count_before} faults before, {found.fault_count} left after {found.runs} "
        "runs:\n"
    )
    sys.stdout.writelines(f"  {one}\n" for one in found.story)
    write(f"see it again: {found.command}\n")
    return True


async def _awaited(program: Callable[[], Awaitable[object]]) -> object:
    return await program()


def _found(name: str) -> Callable[[], Awaitable[object]]:
    found: Callable[[], Awaitable[object]] = pkgutil.resolve_name(name)
    return found


if __name__ == "__main__":
    sys.exit(main())
