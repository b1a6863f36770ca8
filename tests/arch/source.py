"""
Read the package as text: its modules, and what each imports.

Nothing here imports the package, so a wall is checked even in a module that cannot be imported on
this machine.
"""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
PACKAGE = "uringio"


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    name: str
    path: Path
    is_package: bool

    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def tree(self) -> ast.Module:
        return ast.parse(self.text(), str(self.path))


@dataclass(frozen=True)
class Import:
    """One imported module, with the line that imports it."""

    target: str
    line: int
    type_checking: bool
    in_function: bool


def modules() -> dict[str, Module]:
    """Find every module of the package, by dotted name."""
    found = {}
    for path in sorted((SRC / PACKAGE).rglob("*.py")):
        parts = list(path.relative_to(SRC).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        if is_package:
            parts.pop()
        name = ".".join(parts)
        found[name] = Module(name, path, is_package)
    return found


def tracked_files() -> list[Path]:
    """List what git tracks or would track; every file where this is no git checkout."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0:
        names = [name.decode() for name in listing.stdout.split(b"\0") if name]
        return [path for name in names if (path := ROOT / name).is_file()]
    hidden = (".venv", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and not any(part.startswith(hidden) for part in path.relative_to(ROOT).parts[:-1])
    ]


def imports(tree: ast.Module, name: str, is_package: bool, known: set[str]) -> list[Import]:
    """
    List what the module *name* imports, wherever in it the import stands.

    Args:
        tree: The module, parsed.
        name: Its dotted name, to resolve relative imports.
        is_package: Whether it is an `__init__`.
        known: All module names; tells `from a import b` the module from `from a import b` the name.
    """
    return list(_walk(tree, name if is_package else name.rpartition(".")[0], known))


class DynamicImportError(Exception):
    """An import whose target is computed, so that no reader can tell what it imports."""


def _walk(
    node: ast.AST, package: str, known: set[str], typing: bool = False, function: bool = False
) -> Iterator[Import]:
    if isinstance(node, ast.If) and _tests_type_checking(node.test):
        for child in node.body:
            yield from _walk(child, package, known, True, function)
        for child in node.orelse:
            yield from _walk(child, package, known, typing, function)
        return
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, node.lineno, typing, function)
    elif isinstance(node, ast.ImportFrom):
        base = _absolute(node, package)
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            yield Import(inner if inner in known else base, node.lineno, typing, function)
    elif isinstance(node, ast.Call) and _imports_by_call(node.func):
        target = node.args[0] if node.args else None
        if not (isinstance(target, ast.Constant) and isinstance(target.value, str)):
            message = f"line {node.lineno}: import of a computed name"
            raise DynamicImportError(message)
        # A relative name counts from the module's own package, the only use we allow.
        value = target.value
        yield Import(package + value if value.startswith(".") else value, node.lineno, typing, True)
    inside = function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, package, known, typing, inside)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if node.level == 0:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - (node.level - 1)]
    return ".".join([*base, node.module] if node.module else base)


def _tests_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _imports_by_call(func: ast.expr) -> bool:
    return (isinstance(func, ast.Name) and func.id in {"__import__", "import_module"}) or (
        isinstance(func, ast.Attribute) and func.attr == "import_module"
    )
