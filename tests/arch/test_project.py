"""The promises of pyproject.toml and README.md that other files must keep."""

import tomllib

from tests.arch import source


def project() -> dict[str, object]:
    text = (source.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]


def test_required_dependencies_are_two() -> None:
    """Nothing but h11 and attrs is ever installed beside the library."""
    dependencies = project()["dependencies"]
    assert isinstance(dependencies, list)
    names = {one.split(">")[0].split("=")[0].strip() for one in dependencies}
    assert names == {"h11", "attrs"}


def test_package_is_typed_and_pure() -> None:
    """
    The wheel says that it is typed, and holds nothing that was compiled.

    The C sources are the physical limit that `uringio bench` compares with, and its load client: it
    compiles them where there is a compiler, and the library never looks at them.
    """
    files = {path.suffix for path in source.tracked_files() if source.SRC in path.parents}
    assert (source.SRC / source.PACKAGE / "py.typed").is_file()
    assert files <= {".py", ".typed", ".md", ".c", ".h"}
    bench = source.SRC / source.PACKAGE / "cli" / "bench"
    sources = {path for path in source.tracked_files() if source.SRC in path.parents}
    assert all(bench in path.parents for path in sources if path.suffix in {".c", ".h"})


def test_configuration_has_one_file() -> None:
    """Tools read pyproject.toml and nothing beside it."""
    others = {
        "setup.py", "setup.cfg", "tox.ini", "pytest.ini", ".pytest.ini", "mypy.ini", ".mypy.ini",
        "pyrightconfig.json", "ruff.toml", ".ruff.toml", ".coveragerc", "MANIFEST.in",
    }  # fmt: skip
    assert {one for one in others if (source.ROOT / one).exists()} == set()


def test_readme_opens_with_the_two_commands() -> None:
    """The first code block of the README is `make run` and `make test`; CI runs the same verbs."""
    readme = (source.ROOT / "README.md").read_text(encoding="utf-8")
    first = readme.split("```")[1]
    commands = [line.split("#")[0].strip() for line in first.splitlines()[1:] if line.strip()]
    assert commands == ["make run", "make test"]
    ci = (source.ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in ci
