"""Every public name has one public home, and is there."""

import ast
import importlib
from collections import defaultdict

import pytest

from tests.arch import source

MODULES = source.modules()

# The command is public as a program; its modules are no API.
COMMAND = ("uringio.cli", "uringio.__main__")


def is_public(name: str) -> bool:
    """A module is public when no part of its name says otherwise."""
    return not any(part.startswith("_") for part in name.split(".")) and not name.startswith(
        COMMAND
    )


PUBLIC = sorted(name for name in MODULES if is_public(name))


def exported(name: str) -> list[str]:
    """Read `__all__` of a public module."""
    return list(importlib.import_module(name).__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_module_says_what_it_exports(name: str) -> None:
    """`__all__` is there, without repeats or private names, and each name in it resolves."""
    module = importlib.import_module(name)
    names = exported(name)
    assert len(names) == len(set(names))
    assert [one for one in names if one.startswith("_") and not one.startswith("__")] == []
    assert [one for one in names if not hasattr(module, one)] == []


def test_every_exported_object_has_one_home() -> None:
    """
    No function or class is exported by two public modules.

    The package's own `__init__` is the front door: it repeats names of other modules on purpose.
    A room's `__init__` likewise repeats those of its own modules.
    """
    homes: dict[int, list[str]] = defaultdict(list)
    for name in PUBLIC:
        if name == source.PACKAGE:
            continue
        module = importlib.import_module(name)
        for one in exported(name):
            value = getattr(module, one)
            if isinstance(value, type) or callable(value):
                homes[id(value)].append(f"{name}.{one}")
    doubled = [
        found
        for found in homes.values()
        if len(found) > 1 and len({one.split(".")[1] for one in found}) > 1
    ]
    assert doubled == []


def test_no_class_name_is_defined_by_two_public_modules() -> None:
    """Two public classes of one name would be told apart only by their modules."""
    homes: dict[str, list[str]] = defaultdict(list)
    for name in PUBLIC:
        for node in MODULES[name].tree().body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(name)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_front_door_defines_nothing() -> None:
    """`uringio/__init__.py` re-exports and holds no logic but the lazy lookup of names."""
    defined = [
        node.name
        for node in MODULES[source.PACKAGE].tree().body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name not in {"__getattr__", "__dir__"}
    ]
    assert defined == []
