"""Wait until every other task waits."""

from typing import Final

from uringio._run import running
from uringio._run.loop import Loop
from uringio.clock import sleep

__all__ = ["wait_all_idle"]

_CUSHION_SECONDS: Final = 0.005


async def wait_all_idle(cushion_seconds: float = _CUSHION_SECONDS) -> None:
    """
    Wait until every other task of this loop waits, and nothing has come for any of them.

    On a simulated kernel the time is simulated, so that a generous one costs nothing and the
    outcome is the same each time.  On a real one, what other threads and processes are going to do
    cannot be known: there, quiet for *cushion_seconds* is what is taken for idle.

    Args:
        cushion_seconds: For how long no other task must have been resumed. [seconds]

    Raises:
        UsageError: Not called from a task under `uringio.run` or `run`.

    Cancellation: at once, leaving nothing behind.
    """
    loop = running.context()
    mine = loop.require_task()
    while True:
        before = _standing(loop, mine)
        nap = sleep(cushion_seconds)
        await nap
        if not loop.ready and _standing(loop, mine) == before:
            return


def _standing(loop: Loop, mine: object) -> list[tuple[int, int]]:
    """Note what every other task waits for: the same twice means that none was resumed between."""
    return [
        (id(task), task.op.use if task.op is not None else 0)
        for task in loop.tasks()
        if task is not mine
    ]
