"""The wakeup descriptor of signals, in a process that forks while a loop runs."""

import pytest

from tests.fresh import FreshPython

PROGRAM = """
import asyncio, fcntl, os, signal, sys, termios
import uringio, uringio.aio
from uringio._driver import current

def queued():
    return int.from_bytes(fcntl.ioctl(wake_fd, termios.FIONREAD, bytes(4)), sys.byteorder)

async def main():
    global wake_fd
    wake_fd = current.driver().wake_fd
    handled = []
    signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))
    child = os.fork()
    if child == 0:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(len(handled))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    assert queued() == 0, f"the child wrote {queued()} bytes into its parent's pipe"
    os.kill(os.getpid(), signal.SIGUSR1)
    assert queued() == 1, "it is the wakeup descriptor"

scheduler, backend = sys.argv[1:]
if scheduler == "native":
    uringio.run(main, backend=backend)
else:
    uringio.aio.run(main(), backend=backend)
"""


@pytest.mark.parametrize("scheduler", ["native", "asyncio"])
def test_a_signal_to_a_child_does_not_wake_its_parent(
    fresh_python: FreshPython, backend: str, scheduler: str
) -> None:
    """The forked child handles its signals, and the parent's pipe stays empty."""
    fresh_python(PROGRAM, scheduler, backend).check()
