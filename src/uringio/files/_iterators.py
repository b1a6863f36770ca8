"""Iterating over a file."""

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from ._reading import ReadFile

__all__ = ["Chunks", "Lines"]


class Lines:
    """The lines of a file, in turn; made by `File.lines`."""

    __slots__ = ("_file",)

    def __init__(self, file: "ReadFile") -> None:
        self._file = file

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        line = await self._file.read_line()
        if not line:
            raise StopAsyncIteration
        return line


class Chunks:
    """The bytes of a file, in turn; made by `File.chunks`."""

    __slots__ = ("_file", "_max_bytes")

    def __init__(self, file: "ReadFile", max_bytes: int) -> None:
        if max_bytes < 1:
            raise ValueError(f"a chunk has from 1 byte up, not {max_bytes}")
        self._file = file
        self._max_bytes = max_bytes

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._file.read(self._max_bytes)
        if not chunk:
            raise StopAsyncIteration
        return chunk
