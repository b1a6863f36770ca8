"""Run every target for its share of the time: ``python -m fuzz --seconds 60``."""

import argparse
import sys
import time
import traceback

from fuzz.engine import corpus, fuzz, names, target


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Run the fuzz targets.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="by default all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    options = parser.parse_args(arguments)
    chosen = options.targets or names()
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        parser.error(f"no target {unknown[0]!r}; there are {', '.join(names())}")
    failed = 0
    for name in chosen:
        run = target(name)
        for path in (*corpus(name), *corpus(name, "regressions")):
            run(path.read_bytes())
        began = time.monotonic()
        count, broken = fuzz(name, options.seconds / len(chosen))
        print(f"{name}: {count} inputs in {time.monotonic() - began:.1f} s", flush=True)
        if broken is not None:
            failed += 1
            print(f"{name} fails; the input is kept in {broken}", flush=True)
            try:
                run(broken.read_bytes())
            except Exception:
                traceback.print_exc()
    print(f"{len(chosen)} targets, {failed} of them failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
