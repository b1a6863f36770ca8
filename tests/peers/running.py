"""
Run a suite on a loop: a process per module, a new one behind each test that hangs or crashes.

The processes write what they do into a file, which is looked at a few times a second: neither a
pipe nor a thread in the child, which its tests might trip over.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .suites import ROOT, Suite

__all__ = ["Outcome", "Run", "run_suite"]

_LOOK_SECONDS = 0.1
_LOAD_SECONDS_MAX = 60.0
_STALLS_MAX = 40


@dataclass
class Outcome:
    """
    What came of one test.

    Attributes:
        outcome: passed, failed, error, skipped, hung or crashed.
        detail: The traceback, or the reason.
        loops: How many loops it made.
    """

    outcome: str
    detail: str = ""
    loops: int = 0
    seconds: float = 0.0


@dataclass
class Run:
    """What came of a suite on a loop; `troubles` are those of modules and classes."""

    suite: str
    loop: str
    python: str
    tests: dict[str, Outcome] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)

    def passed(self) -> set[str]:
        return {name for name, one in self.tests.items() if one.outcome == "passed"}

    def loop_making(self) -> set[str]:
        return {name for name, one in self.tests.items() if one.loops}

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Run":
        saved = json.loads(path.read_text(encoding="utf-8"))
        saved["tests"] = {name: Outcome(**one) for name, one in saved["tests"].items()}
        return cls(**saved)


def run_suite(
    suite: Suite,
    loop: str,
    *,
    only: Sequence[str] = (),
    jobs: int,
    timeout: float,
    logs: Path | None = None,
) -> Run:
    """
    Run *suite* on *loop*.

    Args:
        suite: The suite.
        loop: One of `factories.LOOPS`.
        only: Parts of names; a test that has none of them is left out.
        jobs: Processes at a time. [count]
        timeout: How long a test may take. [seconds]
        logs: Where what the tests print is kept; it is thrown away otherwise.
    """
    run = Run(suite.name, loop, f"{sys.version_info.major}.{sys.version_info.minor}")
    modules = list(suite.modules)
    stems = {module: module.removeprefix(suite.prefix) for module in modules}
    if only:  # a module that no part names may still have tests that one does
        named = [m for m in modules if any(part.split(".")[0] in stems[m] for part in only)]
        modules = named or modules
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(jobs) as pool:
        workers = [
            pool.submit(_run_module, suite, module, loop, list(only), timeout, Path(scratch), logs)
            for module in modules
        ]
        for module, worker in zip(modules, workers, strict=True):
            tests, troubles = worker.result()
            run.tests.update(tests)
            run.troubles.update({f"{stems[module]}: {k}": v for k, v in troubles.items()})
    return run


def _run_module(
    suite: Suite,
    module: str,
    loop: str,
    only: list[str],
    timeout: float,
    scratch: Path,
    logs: Path | None,
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Run the module's tests, in as many processes as it takes."""
    results = scratch / f"{module}.results"
    results.touch()
    path = [*(suite.stand_in if loop != "uvloop" else ()), *suite.path]
    order = {
        "suite": suite.name,
        "module": module,
        "prefix": suite.prefix,
        "loop": loop,
        "only": only,
        "path": path,
        "results": str(results),
    }
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([*path, str(ROOT / "src")])
    environment.pop("PYTHONASYNCIODEBUG", None)
    environment.pop("PYTHONWARNINGS", None)
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
    log = os.devnull if logs is None else logs / f"{module}.log"
    tests: dict[str, Outcome] = {}
    troubles: dict[str, str] = {}
    for attempt in range(_STALLS_MAX):
        with (
            Path(log).open("ab" if attempt else "wb") as output,
            tempfile.TemporaryDirectory(dir=scratch) as folder,
        ):
            child = subprocess.Popen(
                [
                    sys.executable,
                    str(Path(__file__).with_name("child.py")),
                    json.dumps({**order, "done": sorted(tests)}),
                ],
                cwd=folder,
                env={**environment, "TMPDIR": folder},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                stalled = _watch(child, results, timeout)
            finally:
                _end(child)
        begun, loops = _collect(results, tests, troubles)
        if begun is not None:
            outcome = "hung" if stalled else "crashed"
            tests[begun] = Outcome(outcome, f"exit status {child.returncode}", loops=loops)
            results.write_text("", encoding="utf-8")
        elif child.returncode != 0 or stalled:
            troubles["process"] = f"exit status {child.returncode}; see the log"
            break
        else:
            break
    return tests, troubles


def _watch(child: subprocess.Popen[bytes], results: Path, timeout: float) -> bool:
    """Wait until the process ends, which is False, or makes no progress for too long."""
    size = -1
    since = time.monotonic()
    while child.poll() is None:
        now = time.monotonic()
        seen = results.stat().st_size
        if seen != size:
            size, since = seen, now
        if now - since > (timeout if size else max(timeout, _LOAD_SECONDS_MAX)):
            return True
        time.sleep(_LOOK_SECONDS)
    return False


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the process and those that its tests left behind."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def _collect(
    results: Path, tests: dict[str, Outcome], troubles: dict[str, str]
) -> tuple[str | None, int]:
    """Take over what was written; return the test that has not ended, and the loops it made."""
    begun = None
    loops = 0
    for line in results.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # torn by a crash, or by a child of the test that wrote as well
        outcome, name = record["outcome"], record.pop("test", None)
        if outcome == "begun":
            begun, loops = name, 0
        elif outcome == "looping":
            loops = 1
        elif outcome == "set-up":
            troubles[name] = record["detail"]
        else:
            tests[name] = Outcome(**record)
            begun = None if begun == name else begun
    return begun, loops
