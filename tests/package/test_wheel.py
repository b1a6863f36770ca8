"""The wheel is all that a user needs: no compiler, no other package but the two declared."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.package.programs import ROOT, echoes, on_any_port, readme_blocks, running

PARTS = ("pyproject.toml", "README.md", "LICENSE", "src")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the source, so that nothing built earlier gets into it."""
    tree = tmp_path_factory.mktemp("tree")
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, tree / name, ignore=ignored)
        else:
            shutil.copy(source, tree / name)
    built = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tree / "dist", tree)
    if built.returncode != 0 and "setuptools" in built.stderr:
        pytest.skip(f"no setuptools to build with: {built.stderr.strip().splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    (found,) = (tree / "dist").iterdir()
    return found


def test_wheel_is_pure_and_complete(wheel: Path) -> None:
    """
    One `py3-none-any` wheel holds what it should, and nothing else.

    That is every module of the package, `py.typed`, and the C sources `uringio bench` compiles.
    """
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = ROOT / "src" / "uringio"
    sources = [path for kind in ("*.py", "*.c", "*.h") for path in package.rglob(kind)]
    expected = {str(path.relative_to(ROOT / "src")) for path in sources}
    assert held == expected | {"uringio/py.typed", "uringio_pytest.py"}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_wheel_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """With only the wheel and its dependencies, and nothing on PATH, the README's server runs."""
    environment = tmp_path / "env"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    folder = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout
    installed = run(
        sys.executable, "-m", "pip", "install", "--only-binary", ":all:",
        "--target", folder.strip(), wheel,
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr
    packages = {path.name for path in Path(folder.strip()).iterdir() if path.suffix != ".dist-info"}
    assert packages - {"bin", "__pycache__"} == {
        "uringio",
        "uringio_pytest.py",
        "h11",
        "attr",
        "attrs",
    }

    nothing = tmp_path / "nothing"
    nothing.mkdir()
    env = {"PATH": str(nothing), "HOME": str(tmp_path), "LANG": os.environ.get("LANG", "C.UTF-8")}
    with running(on_any_port(readme_blocks()[0]), env, str(python)) as address:
        assert echoes(address, b"no compiler" * 1000) == b"no compiler" * 1000
