"""The echo program that is the contract of the surface, word for word."""

import pytest

from tests.fresh import FreshPython
from tests.package.programs import echoes, on_any_port, readme_blocks, running
from tests.surface.schedulers import Scheduler

PROGRAM = """\
import uringio

async def echo(stream):
    async with stream:
        while data := await stream.recv():
            await stream.send_all(data)

async def main():
    async with await uringio.listen_tcp("127.0.0.1", 8000) as listener:
        print("listening on", listener.local_address)   # ("127.0.0.1", 8000)
        await listener.serve(echo)                       # a task per connection, until cancelled

uringio.run(main)
"""

ASYNCIO_RUN = """\
import asyncio
import uringio.aio

with asyncio.Runner(loop_factory=uringio.aio.new_event_loop) as runner:
    runner.run(main())
"""


def test_readme_has_the_program() -> None:
    """What users copy is what is tested here."""
    assert PROGRAM in readme_blocks()
    assert ASYNCIO_RUN in readme_blocks()


@pytest.mark.parametrize("run", ["as it stands", "on this driver"])
def test_echo_program(scheduler: Scheduler, run: str) -> None:
    """It serves several clients at once and ends by Ctrl-C, leaving nothing on stderr."""
    program = on_any_port(PROGRAM)
    if scheduler.name == "asyncio":
        program = program.replace("uringio.run(main)\n", ASYNCIO_RUN)
    if run == "on this driver":
        changed = program.replace(
            "uringio.run(main)", f"uringio.run(main, backend={scheduler.backend!r})"
        ).replace(
            "=uringio.aio.new_event_loop",
            f"=lambda: uringio.aio.new_event_loop(backend={scheduler.backend!r})",
        )
        assert changed != program
        program = changed
    with running(program, FreshPython.environment()) as address:
        for payload in (b"hello", bytes(range(256)) * 4096, b""):
            assert echoes(address, payload) == payload
