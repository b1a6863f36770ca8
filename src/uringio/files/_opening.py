"""Opening: what a mode means, and the operation that it becomes."""

import os
from collections.abc import Callable
from typing import Final, Literal, TypeAlias, cast, overload

from uringio._driver import current
from uringio._driver.op import Op
from uringio._driver.path_ops import AnyPath, open_op
from uringio.errors import UnsupportedError

from ._file import File
from ._flags import Resolve
from ._open_file import OpenFile
from ._reading import ReadFile
from ._writing import WriteFile

__all__ = ["open_file"]

# Kind -> flags without "+": how it is created, what happens to what is there.
_KINDS: Final = {
    "r": 0,
    "w": os.O_CREAT | os.O_TRUNC,
    "a": os.O_CREAT | os.O_APPEND,
    "x": os.O_CREAT | os.O_EXCL,
}


# As the builtin takes them: letters in any order.
ReadMode: TypeAlias = Literal["r", "rb", "br"]
WriteMode: TypeAlias = Literal["w", "wb", "bw", "a", "ab", "ba", "x", "xb", "bx"]

_ANY_PATH: Final = Resolve(0)


@overload
def open_file(  # type: ignore[overload-overlap]  # a mode in a str may be anything
    path: AnyPath,
    mode: ReadMode = "rb",
    *,
    folder: OpenFile | None = None,
    flags: int = 0,
    permissions: int = 0o666,
    direct: bool = False,
    resolve: Resolve = _ANY_PATH,
) -> Op[ReadFile]: ...
@overload
def open_file(  # type: ignore[overload-overlap]
    path: AnyPath,
    mode: WriteMode,
    *,
    folder: OpenFile | None = None,
    flags: int = 0,
    permissions: int = 0o666,
    direct: bool = False,
    resolve: Resolve = _ANY_PATH,
) -> Op[WriteFile]: ...
@overload
def open_file(
    path: AnyPath,
    mode: str,
    *,
    folder: OpenFile | None = None,
    flags: int = 0,
    permissions: int = 0o666,
    direct: bool = False,
    resolve: Resolve = _ANY_PATH,
) -> Op[File]: ...
def open_file(
    path: AnyPath,
    mode: str = "rb",
    *,
    folder: OpenFile | None = None,
    flags: int = 0,
    permissions: int = 0o666,
    direct: bool = False,
    resolve: Resolve = _ANY_PATH,
) -> Op[File] | Op[ReadFile] | Op[WriteFile]:
    """
    Open a file.

    Returns:
        What the mode allows: a `ReadFile`, a `WriteFile`, or with ``+`` a `File`, which is both.

    Args:
        path: Where; relative to *folder*, else to the working directory.
        mode: As with the builtin: ``rb``, ``wb``, ``ab``, ``xb``, each also with ``+``.
        folder: An open folder.
        flags: More ``os.O_*``; the descriptor is closed on exec whatever they say.
        permissions: Of a file that is created, before the umask.
        direct: O_DIRECT: transfers bypass the page cache, and memory, offsets and sizes must be
            aligned; see `aligned_buffer`.
        resolve: What the path may lead through.

    Raises:
        OpError: The kernel refused, such as `FileNotFoundError`, `PermissionError`.  With
            *resolve*, `BlockingIOError` means that names were changed meanwhile: try again.
        ValueError: No such mode, or the path holds a NUL.
        ClosedError: *folder* was closed, before the call or during it.

    Cancellation: a descriptor that was opened all the same is closed.

    Source: openat(2); openat2(2) with *resolve*.
    """
    flags |= _flags_of(mode)
    finish: Callable[[object], File] = _opened
    if direct:
        if not hasattr(os, "O_DIRECT"):
            raise UnsupportedError("direct=True", "a system that has O_DIRECT")
        flags |= os.O_DIRECT
        finish = _opened_direct_to_append if flags & os.O_APPEND else _opened_direct
    driver = current.driver()
    if folder is None:
        op = open_op(path, flags, permissions, finish, resolve=resolve)
        op.home = driver
        return op
    op = open_op(path, flags, permissions, finish, folder_fd=folder.fileno(), resolve=resolve)
    return folder.hand_out(op)


def _flags_of(mode: str) -> int:
    letters = set(mode)
    kinds = letters & _KINDS.keys()
    if len(letters) != len(mode) or len(kinds) != 1 or letters - kinds - {"b", "+"}:
        raise ValueError(
            f"a mode is one of r, w, a, x, with b and + if wanted, not {mode!r}; files are bytes"
        )
    kind = kinds.pop()
    if "+" in letters:
        return _KINDS[kind] | os.O_RDWR
    return _KINDS[kind] | (os.O_RDONLY if kind == "r" else os.O_WRONLY)


def _opened(fd: object) -> File:
    return File(cast("int", fd))


def _opened_direct(fd: object) -> File:
    return File(cast("int", fd), direct=True)


def _opened_direct_to_append(fd: object) -> File:
    return File(cast("int", fd), direct=True, appends=True)
