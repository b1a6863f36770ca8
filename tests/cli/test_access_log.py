"""Lines on their way to the log: how many are kept, and what a slow log costs."""

import os
from collections.abc import Iterator

import pytest

import uringio
from uringio.cli.access_log import AccessLog, Answered


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Make a pipe and close what is left of it."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def answered(request: str) -> Answered:
    return Answered(0.0, "peer", request, 200, 1, 0.001)


def test_what_waits_is_bounded(backend: str, pipe: tuple[int, int]) -> None:
    """Long requests do not make a slow log grow without end; those left out are counted."""
    log = AccessLog(pipe[1])
    for _ in range(1500):
        log.add(answered("x" * 8000))
    kept = len(log._waiting)
    assert 1000 < kept < 1100
    lines = b""

    async def main() -> None:
        nonlocal lines

        async def read() -> None:
            nonlocal lines
            while b" were lost" not in lines[-100:]:
                lines += await uringio.offload(os.read, pipe[0], 1 << 16)

        async with uringio.TaskGroup() as group:
            group.start_soon(read)
            group.start_soon(log.flush)
        log.add(answered("again"))
        await log.flush()

    uringio.run(main, backend=backend)
    assert lines.count(b" 200 1 1.0ms\n") == kept
    assert lines.endswith(b"%d lines were lost: the log is too slow\n" % (1500 - kept))
    assert b'"again"' in os.read(pipe[0], 1000)
