"""Run a snippet in an interpreter of its own."""

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FreshRun:
    """What a snippet left behind."""

    stdout: str
    stderr: str
    returncode: int

    def check(self) -> "FreshRun":
        """Raise with everything it printed unless it ended well."""
        if self.returncode != 0:
            raise AssertionError(f"exit status {self.returncode}\n{self.stdout}\n{self.stderr}")
        return self


def package_path() -> str:
    """Find the folder that holds the package under test, wherever it is installed."""
    spec = importlib.util.find_spec("uringio")
    assert spec is not None, "uringio is not importable"
    assert spec.submodule_search_locations
    return str(Path(next(iter(spec.submodule_search_locations))).parent)


class FreshPython:
    """
    Run Python code in a subprocess, with the package importable.

    The child is a session of its own, so that signals sent to it (or to its group) stay there, and
    so that nothing it started outlives the call.
    """

    def __call__(
        self,
        code: str,
        *argv: str,
        timeout_s: float = 50.0,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = ("-W", "error", "-X", "faulthandler"),
        cwd: Path | None = None,
    ) -> FreshRun:
        """
        Run *code* and wait for its end.

        Args:
            code: A snippet; its common indentation is removed.
            argv: Becomes `sys.argv[1:]`.
            timeout_s: After this the child and its group are killed and the test fails.
            env: Variables to add to the environment.
            options: Interpreter options; by default a warning is an error.
            cwd: Where it runs; by default here.
        """
        process = subprocess.Popen(
            [sys.executable, *options, "-c", textwrap.dedent(code), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(env),
            cwd=cwd,
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _kill_group(process.pid)
            stdout, stderr = process.communicate()
            message = f"still running after {timeout_s} s\nstdout:\n{stdout}\nstderr:\n{stderr}"
            raise AssertionError(message) from None
        finally:
            _kill_group(process.pid)
        return FreshRun(stdout, stderr, process.returncode)

    @staticmethod
    def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return an environment in which a child finds the package."""
        path = os.pathsep.join(
            part for part in (package_path(), os.environ.get("PYTHONPATH", "")) if part
        )
        return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(extra or {})}


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
