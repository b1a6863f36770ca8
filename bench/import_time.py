"""
What `import uringio` adds to starting Python: `python -m bench.import_time`.

Processes with and without the import take turns; the difference is formed within each pair. Printed
beside it: whether the import pulls in modules that cost much and are not needed by most programs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from uringio.cli.bench import machine
from uringio.cli.bench.rounds import rotated, spread

_BUDGET_MS = 60.0
_UNWANTED = ("asyncio", "h11", "ssl")
_PROGRAMS = {"bare": "pass", "import": "import uringio"}


def main(argv: list[str] | None = None) -> int:
    """
    Measure, print, write the JSON. Returns 1 if the import fails.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.import_time", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="default: a new file in bench/results")
    options = parser.parse_args(argv)
    rounds = min(max(options.rounds, 1), 1000)
    described = machine.describe()
    print(machine.headline(described))
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, uringio; print(*sys.modules)"],
        env=machine.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if loaded.returncode:
        print("import uringio fails:", loaded.stderr.strip().splitlines()[-1], file=sys.stderr)
        return 1
    modules = set(loaded.stdout.split())
    taken_ms: dict[str, list[float]] = {name: [] for name in _PROGRAMS}
    # One round ahead of those that count: it writes the bytecode and warms the page cache.
    for round_index in range(rounds + 1):
        for name in rotated(list(_PROGRAMS), round_index):
            milliseconds = _start_ms(_PROGRAMS[name])
            if round_index:
                taken_ms[name].append(milliseconds)
    bare, loading = spread(taken_ms["bare"]), spread(taken_ms["import"])
    pairs = zip(taken_ms["import"], taken_ms["bare"], strict=True)
    added = spread([with_import - without for with_import, without in pairs])
    unwanted = sorted(modules.intersection(_UNWANTED))
    print(f"bare python {bare.median:.1f} ms, with import uringio {loading.median:.1f} ms")
    print(f"uringio modules loaded: {sum(name.startswith('uringio') for name in modules)}")
    print(f"unwanted modules loaded: {', '.join(unwanted) or 'none'}")
    verdict = "held" if added.median <= _BUDGET_MS else "EXCEEDED"
    print(
        f"budget import {added.median:.1f} ms [{added.low:.1f}-{added.high:.1f}], "
        f"of at most {_BUDGET_MS:g}: {verdict}"
    )
    result = {
        "benchmark": "import_time",
        "machine": described,
        "milliseconds": taken_ms,
        "added_ms": added.as_dict(),
        "unwanted": unwanted,
    }
    machine.save("import_time", result, options.json)
    return 0


def _start_ms(program: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program], env=machine.environment(), timeout=60, check=True
    )
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    raise SystemExit(main())
