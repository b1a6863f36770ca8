"""
Run the ring benchmark: `python -m bench.ring --help`.

Batches of requests on one ring: filled, submitted and waited for by one call, every completion's
user_data and result looked at. NOPs, and reads of 4 KiB that the page cache holds, at several
depths; ours beside the compiled binding `liburing` from the package index, in turns in one process.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from uringio.cli.bench import machine
from uringio.cli.bench.rounds import rotated, spread

_BYTES = 4096
_RATIO_MAX = 1.0
"""What ours may cost of the compiled binding, at depths where a system call is shared."""

if TYPE_CHECKING:
    from uringio.lowlevel import Batch

Run = Callable[[int, int, int], float]  # (file or -1, depth, operations) -> CPU ns per operation


def run_uringio(fd: int, depth: int, count: int) -> float:
    """
    Fill and wait by our ring; -1 for NOPs.
    """
    from uringio.lowlevel import Ring, allocate, prep_nop, prep_read

    memory = allocate(depth * _BYTES)
    addrs = [memory.addr + index * _BYTES for index in range(depth)]
    total = 0
    with Ring(depth, cq_entries=2 * depth) as ring:
        began = time.process_time_ns()
        for _ in range(count // depth):
            if fd < 0:
                for index in range(depth):
                    prep_nop(ring, user_data=index)
            else:
                for index, addr in enumerate(addrs):
                    prep_read(ring, fd, addr, index * _BYTES, len_bytes=_BYTES, user_data=index)
            for user_data, res, _ in ring.wait(depth):
                total += user_data + res
        taken_ns = time.process_time_ns() - began
    _check(total, fd, depth, count)
    return taken_ns / (count // depth * depth)


def _recorded(fd: int, addr: int, depth: int) -> Batch:
    from uringio.lowlevel import Batch, prep_nop, prep_read

    batch = Batch()
    for index in range(depth):
        if fd < 0:
            prep_nop(batch, user_data=index)
        else:
            at = index * _BYTES
            prep_read(batch, fd, addr + at, at, len_bytes=_BYTES, user_data=index)
    return batch


def run_batch(fd: int, depth: int, count: int) -> float:
    """
    Record the requests once, and put them as often as needed.
    """
    from uringio.lowlevel import Ring, allocate

    memory = allocate(depth * _BYTES)
    batch = _recorded(fd, memory.addr, depth)
    total = 0
    with Ring(depth, cq_entries=2 * depth) as ring:
        began = time.process_time_ns()
        for _ in range(count // depth):
            ring.put(batch)
            for user_data, res, _ in ring.wait(depth):
                total += user_data + res
        taken_ns = time.process_time_ns() - began
    _check(total, fd, depth, count)
    return taken_ns / (count // depth * depth)


def run_run(fd: int, depth: int, count: int) -> float:
    """
    The recorded requests again, their results in their order, without names beside them.
    """
    from uringio.lowlevel import Ring, allocate

    memory = allocate(depth * _BYTES)
    batch = _recorded(fd, memory.addr, depth)
    total = 0
    names = depth * (depth - 1) // 2
    with Ring(depth, cq_entries=2 * depth) as ring:
        began = time.process_time_ns()
        for _ in range(count // depth):
            for res in ring.run(batch):
                total += res
            total += names
        taken_ns = time.process_time_ns() - began
    _check(total, fd, depth, count)
    return taken_ns / (count // depth * depth)


def run_liburing(fd: int, depth: int, count: int) -> float:
    """
    The same by the compiled binding.
    """
    import liburing as lib

    buffers = [bytearray(_BYTES) for _ in range(depth)]
    flags = lib.IORING_SETUP_SINGLE_ISSUER | lib.IORING_SETUP_DEFER_TASKRUN
    ring, cqes = lib.Ring(), lib.Cqe()
    lib.io_uring_queue_init(depth, ring, flags)
    get_sqe, prep_nop, prep_read = (
        lib.io_uring_get_sqe,
        lib.io_uring_prep_nop,
        lib.io_uring_prep_read,
    )
    submit_and_wait, wait_nr = lib.io_uring_submit_and_wait, lib.io_uring_wait_cqe_nr
    advance = lib.io_uring_cq_advance
    total = 0
    try:
        began = time.process_time_ns()
        for _ in range(count // depth):
            if fd < 0:
                for index in range(depth):
                    sqe = get_sqe(ring)
                    prep_nop(sqe)
                    sqe.user_data = index
            else:
                for index, buffer in enumerate(buffers):
                    sqe = get_sqe(ring)
                    prep_read(sqe, fd, buffer, _BYTES, index * _BYTES)
                    sqe.user_data = index
            submit_and_wait(ring, depth)
            wait_nr(ring, cqes, depth)
            for index in range(depth):
                cqe = cqes[index]
                total += cqe.user_data + cqe.res
            advance(ring, depth)
        taken_ns = time.process_time_ns() - began
    finally:
        lib.io_uring_queue_exit(ring)
    _check(total, fd, depth, count)
    return taken_ns / (count // depth * depth)


RIVAL = "liburing"
CONTENDERS: dict[str, Run] = {
    "uringio": run_uringio,
    "uringio-batch": run_batch,
    "uringio-run": run_run,
    RIVAL: run_liburing,
}


def _check(total: int, fd: int, depth: int, count: int) -> None:
    each = depth * (depth - 1) // 2 + (0 if fd < 0 else depth * _BYTES)
    if total != count // depth * each:
        raise RuntimeError(f"results add up to {total}, not {count // depth * each}")


def main(argv: list[str] | None = None) -> int:
    """
    Measure, print, write the JSON.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.ring", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="operations per round")
    parser.add_argument("--rounds", type=int, default=15, help="at least 10 to be quoted")
    parser.add_argument("--depths", default="1,32,256")
    parser.add_argument("--json", type=Path, help="default: a new file in bench/results")
    options = parser.parse_args(argv)
    depths = [int(one) for one in options.depths.split(",")]
    described = machine.describe()
    print(machine.headline(described))
    able = []
    for name, run in CONTENDERS.items():
        try:
            run(-1, 4, 8)
        except (ImportError, AttributeError) as missing:
            print(f"skipped: {name}: {missing}")
        else:
            able.append(name)
    result: dict[str, object] = {"benchmark": "ring", "machine": described}
    with tempfile.TemporaryFile() as file:
        file.write(os.urandom(max(depths) * _BYTES))
        file.flush()
        for kind, fd in (("nop", -1), ("read", file.fileno())):
            for depth in depths:
                cell = f"{kind}-{depth}"
                result[cell] = _measure(cell, fd, depth, able, options.count, options.rounds)
    machine.save("ring", result, options.json)
    return 0


def _measure(
    cell: str, fd: int, depth: int, able: list[str], count: int, rounds: int
) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in able}
    for round_index in range(rounds):
        for name in rotated(able, round_index):
            gc.collect()  # nobody pays for the garbage of the contender before
            taken[name].append(CONTENDERS[name](fd, depth, count))
    for name in able:
        found = spread(taken[name])
        print(f"{cell:<10}{name:<14}{found.median:>8.0f} CPU ns [{found.low:.0f}-{found.high:.0f}]")
    for name in able if RIVAL in able else ():
        if name != RIVAL:
            pairs = zip(taken[name], taken[RIVAL], strict=True)
            ratio = spread([ours / theirs for ours, theirs in pairs])
            verdict = ""
            if depth > 1:
                verdict = "held" if ratio.median <= _RATIO_MAX else "EXCEEDED"
                verdict = f" of at most {_RATIO_MAX}: {verdict}"
            print(f"{cell:<10}{name} / {RIVAL}: {ratio.median:.2f}{verdict}")
    return taken


if __name__ == "__main__":
    raise SystemExit(main())
