"""
A tree copied by `uringio cp`, `cp -a` and `shutil.copytree`: `python -m bench.copy_tree`.

The tree: 2 GiB in 20,000 files by default, most of them small, some large, some sparse; symbolic
and hard links, odd names, modes and times of all kinds, extended attributes where there are any. It
is made in a temporary folder and deleted at the end, as are the copies.

All contenders find the same state: the source in the page cache (all of it is read before each
run), nothing left to write back, and a target beside the source. No copy is deleted between runs:
some filesystems search around inodes that were deleted in the last minutes, so whoever creates
files after a deletion pays for it. What is timed is a whole process, from its start to its end;
that the data then reaches the disk is not.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from uringio.cli.bench import machine
from uringio.cli.bench.rounds import rotated, spread

_MIB = 1 << 20
_COPYTREE = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], symlinks=True)"
_ODD_NAMES = (
    b"two words",
    b"-rf",
    b"new\nline",
    b"not \xff utf-8",
    b"'quotes\"",
    b"\\",
    b"x" * 255,
)


@dataclass(frozen=True)
class Run:
    """
    One copy of the whole tree by one contender.
    """

    seconds: float
    user_seconds: float
    system_seconds: float

    @property
    def cpu_seconds(self) -> float:
        return self.user_seconds + self.system_seconds


_ROOT = Path(__file__).resolve().parent.parent


def main(argv: list[str] | None = None) -> int:
    """
    Measure, print, write the JSON. Returns 1 if a copy failed or is not identical.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.copy_tree", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--mib", type=int, default=2048, help="how much data in all")
    parser.add_argument(
        "--folder", type=Path, help="where to make the trees (default: a temporary)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--contenders", default="uringio,cp,copytree", help="names, with commas")
    parser.add_argument("--json", type=Path, help="default: a new file in bench/results")
    options = parser.parse_args(argv)
    names = options.contenders.split(",")
    if unknown := set(names) - set(commands()):
        parser.error(
            f"no contender {', '.join(sorted(unknown))}; there are {', '.join(commands())}"
        )
    with tempfile.TemporaryDirectory(prefix="copy-tree-", dir=options.folder) as folder:
        copies = 1 + options.rounds * len(names)
        need = copies * (int(options.mib * _MIB * 1.05) + options.files * 8192)
        if shutil.disk_usage(folder).free < need:
            print(f"{folder} has less than {need >> 20} MiB free", file=sys.stderr)
            return 1
        return race(os.fsencode(folder), names, options)


def commands() -> dict[str, list[str]]:
    """
    Return the contenders; source and target go behind.
    """
    ours = [sys.executable, "-m", "uringio", "cp"]
    return {
        "uringio": ours,
        "uringio-epoll": [*ours, "--backend=epoll"],
        "uringio-verify": [*ours, "--verify"],
        "cp": ["cp", "-a"],
        "copytree": [sys.executable, "-c", _COPYTREE],
    }


def race(folder: bytes, names: list[str], options: argparse.Namespace) -> int:
    """
    Run every contender in every round.
    """
    source = os.path.join(folder, b"source")
    described = machine.describe()
    print(machine.headline(described))
    began = time.perf_counter()
    make_tree(source, options.files, options.mib * _MIB, options.seed)
    expected = dict(identities(source))
    kinds = [identity[0] for identity in expected.values()]
    data = sum(os.lstat(path).st_size for path in names_in(source) if os.path.isfile(path))
    print(
        f"{kinds.count(stat.S_IFREG):,} files, {kinds.count(stat.S_IFDIR):,} folders, "
        f"{kinds.count(stat.S_IFLNK):,} links; {data / _MIB:,.0f} MiB with holes; "
        f"made in {time.perf_counter() - began:.0f} s; source in the page cache"
    )
    runs: dict[str, list[Run]] = {name: [] for name in names}
    failed = False
    for round_index in range(options.rounds):
        for name in rotated(names, round_index):
            target = os.path.join(folder, b"%d-%s" % (round_index, name.encode()))
            warm(source)
            os.sync()
            run, status = timed([*commands()[name], os.fsdecode(source), os.fsdecode(target)])
            if status:
                print(f"{name} failed with status {status}", file=sys.stderr)
                failed = True
            elif round_index == 0:
                faults = differences(expected, dict(identities(target)))
                told = ", ".join(f"{part} {count}" for part, count in faults.items())
                print(f"{name}: {'identical' if not faults else f'not kept: {told}'}")
                failed = failed or (bool(faults) and name != "copytree")
            runs[name].append(run)
    table(runs)
    result = {
        "machine": described,
        "files": options.files,
        "bytes": options.mib * _MIB,
        "runs": {name: [vars(run) for run in found] for name, found in runs.items()},
    }
    print(f"written to {machine.save('copy-tree', result, options.json)}")
    return int(failed)


def timed(command: list[str]) -> tuple[Run, int]:
    """
    Run *command* and account for its process, all threads and kernel workers included.

    Peak memory is not told: by the kernel's account a child has had what its parent had.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, env=machine.environment(), cwd=_ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    return Run(seconds, usage.ru_utime, usage.ru_stime), process.returncode


def table(runs: dict[str, list[Run]]) -> None:
    """
    Print medians, and ratios within rounds against `cp -a`.
    """
    print(f"{'':15} {'time s':>8} {'min..max':>13} {'CPU s':>7} {'user':>6} {'system':>7} "
          f"{'time/cp':>8} {'CPU/cp':>7}")  # fmt: skip
    base = runs.get("cp", [])
    for name, found in runs.items():
        time_ = spread([run.seconds for run in found])
        cpu = spread([run.cpu_seconds for run in found]).median
        user = spread([run.user_seconds for run in found]).median
        system = spread([run.system_seconds for run in found]).median
        ratios = f"{'':>8} {'':>7}"
        if base:
            pairs = list(zip(found, base, strict=True))
            by_time = spread([ours.seconds / theirs.seconds for ours, theirs in pairs]).median
            by_cpu = spread(
                [ours.cpu_seconds / theirs.cpu_seconds for ours, theirs in pairs]
            ).median
            ratios = f"{by_time:8.2f} {by_cpu:7.2f}"
        print(
            f"{name:15} {time_.median:8.2f} {f'{time_.low:.2f}..{time_.high:.2f}':>13} {cpu:7.2f} "
            f"{user:6.2f} {system:7.2f} {ratios}"
        )


# --- the tree ------------------------------------------------------------------------------------


def make_tree(top: bytes, count: int, size: int, seed: int) -> None:
    """
    Make *count* files of *size* bytes in all, and what else a tree may hold.
    """
    rng = random.Random(seed)
    stuff = rng.randbytes(8 * _MIB)
    folders = [top]
    os.mkdir(top)
    for number in range(max(count // 50, 4)):
        folder = os.path.join(rng.choice(folders[-40:]), b"folder-%d" % number)
        os.mkdir(folder)
        folders.append(folder)
    names = [os.path.join(rng.choice(folders), b"file-%d" % number) for number in range(count)]
    for index, name in enumerate(_ODD_NAMES):
        names[index] = os.path.join(rng.choice(folders), name)
    # Lognormal, as sizes of files are; the rest of the data goes into a few large files.
    median = min(8192.0, size / count / 4)
    sizes = [int(rng.lognormvariate(math.log(median), 1.8)) for _ in range(count)]
    sizes[: count // 100] = [0] * (count // 100)
    large = max(count // 1000, 1)
    rest = max(size - sum(sizes[large:]), 0)
    sizes[-large:] = [rest // large] * large
    for name, length in zip(names, sizes, strict=True):
        with open(name, "wb", buffering=0) as file:
            rest = length
            while rest > 0:
                at = rng.randrange(4 * _MIB)
                rest -= file.write(stuff[at : at + min(rest, 4 * _MIB)])
    for number in range(max(count // 1000, 1)):  # sparse
        with open(os.path.join(rng.choice(folders), b"sparse-%d" % number), "wb") as file:
            for at in (0, 5 * _MIB, 50 * _MIB):
                file.seek(at)
                file.write(stuff[:5000])
            file.truncate(64 * _MIB)
    for number in range(count // 100):
        os.symlink(rng.choice(names), os.path.join(rng.choice(folders), b"link-%d" % number))
        os.link(names[rng.randrange(count)], os.path.join(rng.choice(folders), b"twin-%d" % number))
    for name in rng.sample(names, count // 100):
        try:
            os.setxattr(name, b"user.note", rng.randbytes(20))
        except OSError:
            break
    for name in names:
        os.chmod(name, rng.choice((0o644, 0o644, 0o600, 0o755, 0o444, 0o640)))
        times = rng.randrange(10**9, 17 * 10**8), rng.randrange(10**9, 17 * 10**8)
        os.utime(name, ns=(times[0] * 10**9 + 1, times[1] * 10**9 + rng.randrange(10**9)))
    for folder in reversed(folders):
        os.chmod(folder, rng.choice((0o755, 0o700, 0o555 if os.geteuid() == 0 else 0o750)))
        os.utime(folder, ns=(10**18, rng.randrange(10**18)))


def names_in(top: bytes) -> Iterator[bytes]:
    yield top
    for folder, folders, others in os.walk(top):
        for name in [*folders, *others]:
            yield os.path.join(folder, name)


def warm(top: bytes) -> None:
    """
    Read every file, so that all of it is in the page cache.
    """
    buffer = bytearray(_MIB)
    for path in names_in(top):
        if stat.S_ISREG(os.lstat(path).st_mode):
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def identities(top: bytes) -> Iterator[tuple[bytes, tuple[object, ...]]]:
    """
    Yield, by relative path, all that a copy should have kept.
    """
    first_names: dict[int, bytes] = {}
    for path in sorted(names_in(top)):
        name = os.path.relpath(path, top)
        status = os.lstat(path)
        content: object = None
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            content = os.readlink(path)
        elif kind == stat.S_IFREG:
            with open(path, "rb") as file:
                content = hash(file.read())
        attributes = sorted(
            (one, os.getxattr(path, one, follow_symlinks=False))
            for one in os.listxattr(path, follow_symlinks=False)
        )
        twin_of = first_names.setdefault(status.st_ino, name) if kind != stat.S_IFDIR else name
        yield (
            name,
            (
                kind, stat.S_IMODE(status.st_mode), status.st_mtime_ns,
                (status.st_uid, status.st_gid), content, attributes, twin_of,
                kind == stat.S_IFREG and status.st_blocks * 512 * 2 < status.st_size,
            ),
        )  # fmt: skip


_PARTS = ("kind", "mode", "time", "owner", "bytes", "attributes", "hard link", "holes")


def differences(
    expected: dict[bytes, tuple[object, ...]], found: dict[bytes, tuple[object, ...]]
) -> dict[str, int]:
    """
    Return how often each part of a name's identity differs.
    """
    counts = {"names": len(expected.keys() ^ found.keys())}
    for name in expected.keys() & found.keys():
        for part, ours, theirs in zip(_PARTS, expected[name], found[name], strict=True):
            counts[part] = counts.get(part, 0) + (ours != theirs)
    return {part: count for part, count in counts.items() if count}


if __name__ == "__main__":
    sys.exit(main())
