"""Numbers that differ between systems: those of this one, those of the others, and their homes."""

import ast
import re
import socket
import sys
from pathlib import Path

import pytest

import uringio
from uringio._driver import sockets
from uringio._sys import numbers
from uringio._sys.numbers import FILE_NUMBERS, FileNumbers

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="these are Linux's")

# <sys/fcntl.h> of each: AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW, AT_REMOVEDIR.
GOLDEN_FILE_NUMBERS = {
    "linux": (-100, 0x100, 0x400, 0x200),
    "freebsd": (-100, 0x200, 0x400, 0x800),
    "darwin": (-2, 0x20, 0x40, 0x80),
    "netbsd": (-100, 0x200, 0x400, 0x800),
    "openbsd": (-100, 0x02, 0x04, 0x08),
    "dragonfly": (0xFFFAFDCD - (1 << 32), 1, 8, 2),
}

# What one system calls so may be another thing elsewhere, so it is written down in `_sys` alone.
DIFFERS = re.compile(r"_*(AF|SOL|SO|MSG|SCM_RIGHTS|AT|IPV6)_[A-Z0-9_]+")
LITERAL = re.compile(r"-?[0-9x|<() ]+")
# Names that only look like it, the same number everywhere, and what is only used on Linux.
OTHERWISE = {
    "AT_CURRENT_POSITION", "AT_ONCE_BYTES_MAX", "AT_POSITION", "SOL_UDP", "SO_ATTACH_FILTER",
}  # fmt: skip
SOCKET_NAMES = [
    name for name in numbers.__all__ if re.match(r"(SOL|SO|MSG|IPV6|TCP|SCM|IPPROTO)_", name)
]


def test_names_of_files_have_each_systems_numbers() -> None:
    """As its header has them."""
    golden = {system: FileNumbers(*row) for system, row in GOLDEN_FILE_NUMBERS.items()}
    assert golden == FILE_NUMBERS


@linux_only
@pytest.mark.parametrize("name", SOCKET_NAMES)
def test_sockets_have_the_numbers_of_the_c_module(name: str) -> None:
    """What is written out for Linux is what the interpreter was compiled with."""
    if name == "SO_NOSIGPIPE":
        assert numbers.SO_NOSIGPIPE == -1
    else:
        assert getattr(numbers, name) == getattr(socket, name)


@linux_only
def test_this_system() -> None:
    """Linux waits by epoll, and has a ring go on after a short send."""
    assert (numbers.SYSTEM, numbers.IS_LINUX, numbers.NATIVE_POLLER) == ("linux", True, "epoll")
    assert sockets.SEND_ALL_FLAGS == socket.MSG_NOSIGNAL | socket.MSG_WAITALL


def test_numbers_that_differ_have_one_home() -> None:
    """No room above `_sys` writes one down: there it would be Linux's on every system."""
    top = Path(uringio.__file__).parent
    found = []
    for path in top.rglob("*.py"):
        room = path.relative_to(top).parts[0]
        if room in {"_sys", "_ring", "lowlevel", "testing", "probing"}:  # Linux's, or simulated
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets = node.targets if isinstance(node, ast.Assign) else []
            if isinstance(node, ast.AnnAssign):
                targets = [node.target]
            for target in targets:
                if not isinstance(target, ast.Name) or not DIFFERS.fullmatch(target.id):
                    continue
                if target.id.lstrip("_") in OTHERWISE:
                    continue
                assert isinstance(node, ast.Assign | ast.AnnAssign)
                if node.value is not None and LITERAL.fullmatch(ast.unparse(node.value)):
                    found.append(f"{path.relative_to(top)}:{node.lineno}: {target.id}")
    assert found == []
