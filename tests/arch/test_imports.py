"""
The walls between rooms, as docs/internals/architecture.md draws them.

Each room may import itself and what its row allows; every import counts, also inside a function
and under TYPE_CHECKING. The tables below are the only place where a wall is opened.
"""

import ast
import sys

import pytest

from tests.arch import source

MODULES = source.modules()

# Room -> the rooms, or single modules, it may import beside itself. None: anything.
ROOMS: dict[str, frozenset[str] | None] = {
    "errors": frozenset(),
    "_sys": frozenset({"errors"}),
    "_ring": frozenset({"_sys", "errors"}),
    "_own": frozenset({"errors", "_sys.memory"}),
    "_driver": frozenset({"_sys", "errors"}),  # and _ring, for the modules in RING_MODULES
    "_run": frozenset({"_driver", "errors"}),
    "streams": frozenset({"_own", "_driver", "errors"}),
    **{
        surface: frozenset({"_own", "_driver", "errors", "streams", "clock", "offloading"})
        for surface in ("net", "files", "fs", "buffers", "sync", "signals", "process")
    },
    **{
        # What every other surface room may wait with.
        surface: frozenset({"_driver", "errors"})
        for surface in ("clock", "offloading", "outcomes")
    },
    "aio": frozenset({"_driver", "_own", "errors"}),
    "proto": frozenset({"errors", "streams"}),
    "lowlevel": frozenset({"_sys", "_ring", "_driver", "_own", "errors"}),
    "probing": frozenset({"_sys", "_ring", "_driver", "lowlevel", "errors"}),
    "testing": None,
    "check": frozenset(),
    "cli": None,
    "": None,  # uringio/__init__.py: re-exports
}

# Modules outside `_ring` that may import it: the io_uring driver in its parts.
RING_MODULES = "_driver.uring"

# Rooms that nothing but themselves may import, not even those that may import anything.
NEVER_IMPORTED = {"testing"}

# Foreign modules that have one home.
FOREIGN_HOMES: dict[str, frozenset[str]] = {
    **{
        name: frozenset({"_sys"})
        for name in ("ctypes", "_ctypes", "mmap", "socket", "_socket", "select", "selectors")
    },
    "asyncio": frozenset({"aio"}),
}

# Rooms that may import distributions from the package index.
THIRD_PARTY_HOMES = frozenset({"proto", "cli", "testing", "check"})

# (module, imported module) -> why this import under TYPE_CHECKING opens no wall.
ANNOTATION_ONLY: dict[tuple[str, str], str] = {
    **{
        (f"uringio.fs.{name}", "uringio._sys.pairs"): "what `System.folder_pair` returns"
        for name in ("_tree", "_replica")
    },
    **{
        ("uringio.aio.socket_calls", name): "asyncio's signatures of ``sock_*``"
        for name in ("socket", "_typeshed")
    },
    ("uringio.aio.send_file", "socket"): "asyncio's signature of ``sock_sendfile``",
}


def room_of(module: str) -> str:
    """Name the room of a module of the package; "" is the package's own `__init__`."""
    parts = module.split(".")
    room = parts[1] if len(parts) > 1 else ""
    return "cli" if room == "__main__" else room


def offence(importer: str, imported: source.Import) -> str | None:
    """Say why *importer* may not have this import, or None if it may."""
    room = room_of(importer)
    target = imported.target
    if imported.type_checking and (importer, target) in ANNOTATION_ONLY:
        return None
    top = target.split(".")[0]
    if top != source.PACKAGE:
        homes = FOREIGN_HOMES.get(top)
        if homes is not None and room not in homes and ROOMS[room] is not None:
            return f"only {sorted(homes)} may import {top}"
        if homes is None and top not in sys.stdlib_module_names and room not in THIRD_PARTY_HOMES:
            return f"{top} is third-party; only {sorted(THIRD_PARTY_HOMES)} may import such"
        return None
    target_room = room_of(target)
    if target_room == room:
        return None
    if target_room in NEVER_IMPORTED:
        return f"nothing imports {target_room}"
    allowed = ROOMS[room]
    if allowed is None:
        return None
    inner = target.removeprefix(source.PACKAGE + ".")
    if target_room == "_ring" and importer.startswith(f"{source.PACKAGE}.{RING_MODULES}"):
        return None
    if target_room in allowed or inner in allowed:
        return None
    return f"room {room!r} may import {sorted(allowed)}"


def offences(module: source.Module, known: set[str]) -> list[str]:
    """List every import of *module* that breaks a wall."""
    found = source.imports(module.tree(), module.name, module.is_package, known)
    return [
        f"{module.path.name}:{one.line}: {module.name} imports {one.target}: {why}"
        for one in found
        if (why := offence(module.name, one)) is not None
    ]


def parse(text: str, name: str = "uringio.net") -> list[source.Import]:
    return source.imports(ast.parse(text), name, False, {"uringio", "uringio._run", "uringio.net"})


def test_modules_are_found() -> None:
    """The walk sees the package at all; without this, all below would pass on nothing."""
    assert "uringio" in MODULES
    assert "uringio.errors" in MODULES


@pytest.mark.parametrize("name", sorted(MODULES))
def test_module_belongs_to_a_room(name: str) -> None:
    """A module outside the table would be under no rule."""
    assert room_of(name) in ROOMS


@pytest.mark.parametrize("name", sorted(MODULES))
def test_module_imports_only_what_its_room_may(name: str) -> None:
    """Every import of this module is in its room's row."""
    assert offences(MODULES[name], set(MODULES)) == []


def test_annotation_only_entries_are_used() -> None:
    """An exception that no longer excuses anything is removed."""
    used = {
        (name, one.target)
        for name, module in MODULES.items()
        for one in source.imports(module.tree(), name, module.is_package, set(MODULES))
        if one.type_checking
    }
    assert set(ANNOTATION_ONLY) <= used


@pytest.mark.parametrize(
    "text",
    [
        "from uringio import _run",
        "from uringio._run import task",
        "import uringio._run.task",
        "from . import _run",
        "from ._run import task",
        "def f():\n    from . import _run",
        "if TYPE_CHECKING:\n    from . import _run",
        "import importlib\nimportlib.import_module('uringio._run')",
        "import importlib\nimportlib.import_module('._run', __package__)",
        "class C:\n    async def f(self):\n        import uringio._run",
        "try:\n    pass\nexcept OSError:\n    import uringio._run",
        "import asyncio",
        "from ctypes import util",
        "import h11",
        "from . import testing",
        "from uringio import run",
        "def f():\n    __import__('socket')",
    ],
)
def test_walls_see_every_form_of_import(text: str) -> None:
    """Each spelling of a forbidden import is an offence, for a module of the surface."""
    assert [why for one in parse(text) if (why := offence("uringio.net", one))]


@pytest.mark.parametrize(
    ("importer", "target"),
    [
        ("uringio.net", "uringio.streams"),
        ("uringio.net", "uringio._driver.op"),
        ("uringio._driver.uring", "uringio._ring.queue"),
        ("uringio._own.buffer", "uringio._sys.memory"),
        ("uringio.aio.loop", "asyncio"),
        ("uringio.proto.http1", "h11"),
        ("uringio", "uringio._run"),
        ("uringio.net", "collections.abc"),
    ],
)
def test_walls_have_doors(importer: str, target: str) -> None:
    """The rule forbids only what the table does not allow."""
    assert offence(importer, source.Import(target, 1, False, False)) is None


@pytest.mark.parametrize(
    ("importer", "target"),
    [
        ("uringio._driver.epoll", "uringio._ring.queue"),
        ("uringio._own.buffer", "uringio._sys.system"),
        ("uringio.errors", "uringio._sys"),
        ("uringio.aio.loop", "uringio._run.task"),
        ("uringio.aio.loop", "socket"),
        ("uringio.net", "uringio.files"),
        ("uringio.streams", "uringio.net"),
        ("uringio._run.task", "uringio.net"),
        ("uringio.cli", "uringio.testing"),
        ("uringio", "uringio.testing"),
        ("uringio", "h11"),
        ("uringio.lowlevel", "uringio._run"),
        ("uringio.net", "uringio.probing"),
    ],
)
def test_walls_stand(importer: str, target: str) -> None:
    """Imports that the table forbids are offences."""
    assert offence(importer, source.Import(target, 1, False, False)) is not None


def test_computed_imports_are_refused() -> None:
    """A dynamic import of a computed name would pass any wall."""
    with pytest.raises(source.DynamicImportError):
        parse("import importlib\nimportlib.import_module(name)")
