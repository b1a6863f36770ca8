"""
Where the suites are: CPython's with the interpreter, uvloop's on the package index.

uvloop's tests need a package ``uvloop`` with its ``_testbase``, which makes loops.  Where they are
to run on another loop, a stand-in of that name makes that one: so the programs that the tests run
in processes of their own are on the chosen loop, too, and nothing has to be built.
"""

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SUITES", "UVLOOP", "Suite", "SuiteMissingError", "find"]

SUITES = ("cpython", "uvloop")
UVLOOP = "0.23.0"

ROOT = Path(__file__).parents[2]
STAND_IN = '''
"""Stands in for uvloop: its tests run on the loop that the environment names."""

import os

from tests.peers.factories import loop_class

Loop = loop_class(os.environ["PEERS_LOOP"])
new_event_loop = Loop
'''


class SuiteMissingError(Exception):
    """The suite cannot be had here; the message says why."""


@dataclass(frozen=True)
class Suite:
    """
    One suite of tests.

    Attributes:
        prefix: What all its modules' names begin with.
        modules: Their names.
        path: What goes in front of `sys.path`.
        stand_in: The same, on any other loop than uvloop.
    """

    name: str
    prefix: str
    modules: tuple[str, ...]
    path: tuple[str, ...]
    stand_in: tuple[str, ...]


def find(name: str, cache: Path) -> Suite:
    """
    Return the suite *name*.

    Args:
        name: One of `SUITES`.
        cache: A folder to keep in what is fetched.

    Raises:
        SuiteMissingError: It is not there, and cannot be fetched.
    """
    return _cpython() if name == "cpython" else _uvloop(cache)


def _cpython() -> Suite:
    try:
        found = importlib.util.find_spec("test.test_asyncio")
    except ImportError:
        found = None
    if found is None or not found.submodule_search_locations:
        raise SuiteMissingError(
            f"{sys.executable} has no package `test` (some distributions pack it by itself, as "
            "libpython3-testsuite)"
        )
    folder = Path(found.submodule_search_locations[0])
    prefix = "test.test_asyncio."
    modules = tuple(f"{prefix}{path.stem}" for path in _by_size(folder))
    return Suite("cpython", prefix, modules, (str(ROOT),), ())


def _uvloop(cache: Path) -> Suite:
    folder = cache / f"uvloop-{UVLOOP}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = Path(scratch) / "made"
            _unpack(_download(Path(scratch)), made)
            shutil.move(made, folder)
    prefix = "uvloop_tests."
    # Only what runs on asyncio's loop as well says what a loop has to do.
    modules = tuple(
        f"{prefix}{path.stem}"
        for path in _by_size(folder / "uvloop_tests")
        if "AIOTestCase)" in path.read_text(encoding="utf-8")
    )
    return Suite("uvloop", prefix, modules, (str(folder), str(ROOT)), (str(folder / "stand_in"),))


def _by_size(folder: Path) -> list[Path]:
    """The test modules in *folder*, those first that probably take longest."""
    return sorted(folder.glob("test_*.py"), key=lambda path: -path.stat().st_size)


def _download(scratch: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    fetch = [*pip, "--no-deps", "--no-binary", ":all:", "--dest", str(scratch)]
    # pip asks the package for its metadata, for which it may have to fetch what would build it.
    for way in ([], ["--no-build-isolation"]):
        done = subprocess.run(
            [*fetch, *way, f"uvloop=={UVLOOP}"], capture_output=True, text=True, check=False
        )
        archives = list(scratch.glob("uvloop-*.tar.gz"))
        if archives:
            return archives[0]
    raise SuiteMissingError(f"pip cannot fetch uvloop {UVLOOP}: {done.stderr.strip()[-500:]}")


def _unpack(archive: Path, target: Path) -> None:
    top = f"uvloop-{UVLOOP}/"
    places = {
        f"{top}tests/": "uvloop_tests/",
        f"{top}uvloop/_testbase.py": "stand_in/uvloop/_testbase.py",
    }
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            for source, place in places.items():
                if member.isfile() and member.name.startswith(source):
                    path = target / (place + member.name.removeprefix(source))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    content = tar.extractfile(member)
                    assert content is not None
                    path.write_bytes(content.read())
    (target / "stand_in" / "uvloop" / "__init__.py").write_text(STAND_IN, encoding="utf-8")
