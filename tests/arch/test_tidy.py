"""Small habits that a linter does not know."""

import ast
import re

import pytest

from tests.arch import source

MODULES = source.modules()
FILES = source.tracked_files()

LINE_LENGTH_MAX = 100
MODULE_LINES_MAX = 600
# Module -> why it may be longer, up to the hard limit.
LONG_MODULES: dict[str, str] = {
    "uringio._driver.uring": "one maker: its closures share cells, which is what makes them quick",
}
MODULE_LINES_HARD_MAX = 700

# Drawers for leftovers: a module is named for the idea it holds.
BANNED_MODULES = {"util", "utils", "utilities", "helper", "helpers", "common", "misc", "shared"}

# Where one checkout or one home folder happened to be. In pieces: this file is read as well.
MACHINE_PATH = re.compile(
    r"(?<![\w.~*-])/(?:wo{}rk\b|ro{}ot\b|ho{}me/\w+|tm{}p/v/|op{}t/py\w*)".replace("{}", "")
)

TEXT_SUFFIXES = {".py", ".md", ".toml", ".c", ".h", ".txt", ".pyi", ".json", ".sh", ""}


def relative(path: object) -> str:
    return str(path).removeprefix(f"{source.ROOT}/")


TEXTS = {relative(path): path for path in FILES if path.suffix in TEXT_SUFFIXES}


@pytest.mark.parametrize("name", sorted(name for name in TEXTS if name.endswith((".py", ".c"))))
def test_lines_are_short(name: str) -> None:
    """No line of code is longer than a screen is wide; the formatter leaves strings alone."""
    lines = TEXTS[name].read_text(encoding="utf-8").splitlines()
    assert [n for n, line in enumerate(lines, 1) if len(line) > LINE_LENGTH_MAX] == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_module_is_one_idea_long(name: str) -> None:
    """A module that outgrows the limit is split, or says why not."""
    count = len(MODULES[name].text().splitlines())
    assert count <= (MODULE_LINES_HARD_MAX if name in LONG_MODULES else MODULE_LINES_MAX)


def test_modules_are_named_for_an_idea() -> None:
    """No module of code or tests is a drawer."""
    drawers = [
        name
        for name in TEXTS
        if name.endswith(".py")
        and {part.removesuffix(".py").strip("_") for part in name.split("/")} & BANNED_MODULES
    ]
    assert drawers == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_library_does_not_print(name: str) -> None:
    """Only the command writes to the user's terminal."""
    if name.startswith(("uringio.cli", "uringio.__main__")):
        return
    calls = [
        node.lineno
        for node in ast.walk(MODULES[name].tree())
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert calls == []


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_file_names_no_machine(name: str) -> None:
    """Nothing tracked holds an absolute path of the machine it was written on."""
    found = MACHINE_PATH.findall(TEXTS[name].read_text(encoding="utf-8"))
    assert found == []


def test_machine_paths_are_recognised() -> None:
    """The pattern sees a path wherever it stands, and leaves addresses and globs alone."""
    slash = "/"
    for path in ("work/main", "root", "tmp/v/3.11", "home/me"):
        assert MACHINE_PATH.search(f"see {slash}{path} there"), path
    for text in ("GET /docs/index.md", "net/work", "/workers", "~/.cache", "/tmp/", "/dev/null"):
        assert not MACHINE_PATH.search(text), text


@pytest.mark.parametrize("name", sorted(MODULES))
def test_module_says_what_it_is_for(name: str) -> None:
    """Every module that holds code opens with a docstring."""
    tree = MODULES[name].tree()
    assert not tree.body or ast.get_docstring(tree)
