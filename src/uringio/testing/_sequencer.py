"""Several tasks take their turns in an order that the test writes down."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from uringio._driver import current
from uringio._driver.op import EVENT, Op
from uringio.errors import UsageError

__all__ = ["Sequencer"]


class Sequencer:
    """
    Lets blocks of different tasks run one after another.

    ``async with sequencer(n):`` waits until the blocks 0 to n - 1 have ended; each number is used
    once.  A block that is left by an exception, or a wait that is cancelled, breaks the sequence:
    whoever waits for a later turn gets `UsageError`, rather than waiting for ever.

    Example:
        >>> import uringio
        >>> from uringio import testing
        >>> async def say(turn: testing.Sequencer, number: int, said: list[int]) -> None:
        ...     async with turn(number):
        ...         said.append(number)
        >>> async def main() -> list[int]:
        ...     turn, said = testing.Sequencer(), []
        ...     async with uringio.TaskGroup() as group:
        ...         for number in (2, 0, 1):
        ...             group.start_soon(say, turn, number, said)
        ...     return said
        >>> uringio.run(main)
        [0, 1, 2]
    """

    def __init__(self) -> None:
        self._next = 0
        self._claimed: set[int] = set()
        self._waiting: dict[int, Op[None]] = {}
        self._broken = False

    @asynccontextmanager
    async def __call__(self, position: int, /) -> AsyncGenerator[None, None]:
        """
        Wait for turn *position*, from 0, and give the next one its turn at the block's end.

        Raises:
            UsageError: The number was used before, or an earlier block failed.

        Cancellation: the sequence is broken.
        """
        if position in self._claimed or position < 0:
            raise UsageError(f"turn {position} was taken already, or is none")
        self._claimed.add(position)
        try:
            await self._wait(position)
            yield
        except BaseException:
            self._break()
            raise
        self._next += 1
        self._ring(self._next)

    async def _wait(self, position: int) -> None:
        if position != self._next and not self._broken:
            op: Op[None] = Op(EVENT)
            op.home = current.driver()
            self._waiting[position] = op
            try:
                await op
            finally:
                del self._waiting[position]
        if self._broken:
            raise UsageError(f"turn {position} never comes: an earlier one failed")

    def _break(self) -> None:
        self._broken = True
        for position in list(self._waiting):
            self._ring(position)

    def _ring(self, position: int) -> None:
        op = self._waiting.get(position)
        if op is not None and op.home is not None:
            op.home.fire(op)
