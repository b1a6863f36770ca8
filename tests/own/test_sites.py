"""Warnings of what was forgotten name the line that it comes from, in development mode only."""

import pytest

from tests.fresh import FreshPython

PROGRAM = """
import uringio

def here():
    return uringio.BufferPool(1 << 20).allocate(100)

async def main():
    buffer = here()  # the line in `here` is meant, 5
    async with await uringio.listen_tcp("127.0.0.1", 0) as door:
        near = await uringio.connect_tcp(*door.local_address)  # 10
        far = await door.accept()  # 11
        del near, far, buffer

uringio.run(main, backend={backend!r})
"""


@pytest.mark.parametrize("development", [True, False])
def test_the_line_is_named(fresh_python: FreshPython, backend: str, development: bool) -> None:
    """A stream connected, one accepted and a pool's buffer, each with its own line or with none."""
    options = ["-X", "dev"] if development else ["-W", "always"]
    errors = fresh_python(PROGRAM.format(backend=backend), options=options).check().stderr
    assert errors.count("a stream on fd") == 2
    assert errors.count("was dropped without release") == 1
    for words in (
        ", allocated at <string>:5",
        ", opened at <string>:10",
        ", opened at <string>:11",
    ):
        assert (words in errors) is development, errors
