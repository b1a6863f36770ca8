"""
What the transports of datagram sockets and pipes have in common: a beginning, limits, an end.

Their ops are made once and used again, like those of `transport`: a receive, or POLLs between which
the descriptor is read and written on the spot.  `connection_lost` is called, and the descriptor
closed, when none of them is in flight any more.
"""

import asyncio
import contextvars
import logging
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from uringio._driver.contract import Driver
from uringio._driver.op import NEW, SPENT, Op

from .flow_control import IN_FLIGHT, WARN_AFTER_LOST_WRITES, low_and_high
from .sockets import as_builtin

if TYPE_CHECKING:
    from .running import RunningLoop

__all__ = ["Endpoint", "WritingEndpoint"]

logger = logging.getLogger("asyncio")


# How far the end has come.
_OPEN: Final = 0
_ENDING: Final = 1  # nothing more will be sent; waiting for the ops in flight
_OVER: Final = 2  # connection_lost is on its way


class Endpoint(asyncio.BaseTransport):
    """
    A transport that makes its ops by `_make_op`, each of whose waiters asks `_has_ended` first.

    Without slots, since programs put attributes of their own on asyncio's.

    Args:
        loop: The running loop.
        driver: The loop's driver.
        protocol: Told what happens, in the caller's context.
    """

    if TYPE_CHECKING:
        _extra: dict[str, object]

    def __init__(self, loop: "RunningLoop", driver: Driver, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._loop = loop
        self._driver = driver
        self._protocol: asyncio.BaseProtocol
        self._context = contextvars.copy_context()
        self._ops: list[Op[object]] = []
        self._closing = False
        self._ending = _OPEN
        self._error: BaseException | None = None
        self.set_protocol(protocol)

    # --- operations ------------------------------------------------------------------------------

    def _make_op(self, op: Op[object], waiter: Callable[[Op[object]], None]) -> Op[object]:
        op.state = SPENT
        op.home = self._driver
        op.waiter = waiter
        op.context = self._context
        self._ops.append(op)
        return op

    def _start(self, op: Op[object]) -> None:
        """Submit *op*, unless it is under way."""
        if op.state != SPENT:
            return
        op.state = NEW
        op.error = op.value = None
        try:
            self._driver.submit(op)
        except BaseException:
            if op.state == NEW:  # the driver has not taken it
                op.state = SPENT
                op.hold = None
            raise

    # --- the beginning ---------------------------------------------------------------------------

    async def begin(self) -> None:
        """Introduce the protocol, from the loop: it is no part of the caller's task."""
        begun: asyncio.Future[None] = self._loop.create_future()
        self._loop.call_soon(self._introduce, begun, context=self._context)
        try:
            await begun
        except BaseException:
            self._force_close(None)
            raise

    def _introduce(self, begun: "asyncio.Future[None]") -> None:
        self._tell_protocol("connection_made", self._protocol.connection_made, self)
        if not begun.done():
            begun.set_result(None)
        # Behind the caller's waking: it is to know its transport before data comes.
        self._loop.call_soon(self._go_on, context=self._context)

    @abstractmethod
    def _go_on(self) -> None:
        """Start the op that always waits, unless something speaks against it."""

    # --- the protocol ----------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let *protocol* hear what happens from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who hears what happens."""
        return self._protocol

    def _tell_protocol(self, name: str, method: Callable[..., object], *args: object) -> None:
        try:
            method(*args)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._report(f"protocol.{name}() failed", error)

    def _report(self, message: str, error: BaseException) -> None:
        self._loop.call_exception_handler(
            {
                "message": message,
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )

    # --- the end ---------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether the transport is closed or on its way there."""
        return self._closing

    def _fatal_error(self, error: BaseException, message: str, *, expected: bool) -> None:
        """End for *error*; one that is *expected*, such as the peer's going, is no news."""
        if not expected:
            self._report(message, error)
        elif self._loop.get_debug():
            logger.debug("%r: %s", self, message, exc_info=error)
        self._force_close(as_builtin(error))

    def _force_close(self, error: BaseException | None) -> None:
        if self._ending:
            return
        self._closing = True
        self._error = error
        self._drop_unsent()
        self._end()

    def _drop_unsent(self) -> None:
        """Forget what was written and is not sent."""

    def _end(self) -> None:
        """Tell the protocol of the end once no op is in flight."""
        if self._ending:
            return
        self._ending = _ENDING
        if self._loop.gone:
            self._ending = _OVER  # and nobody is left to be told of it
            self._release()
            return
        for op in self._ops:
            self._driver.cancel(op)
        if self._is_idle():
            # Not from here, which may be in the middle of the protocol's own code.
            self._ending = _OVER
            self._loop.call_soon(self._connection_lost, context=self._context)

    def _has_ended(self, op: Op[object]) -> bool:
        """Whether *op* ends for the end's sake; to be asked outside of the protocol's code."""
        if not self._ending:
            return False
        op.value = op.error = None
        if self._ending == _ENDING and self._is_idle():
            self._ending = _OVER
            self._connection_lost()
        return True

    def _is_idle(self) -> bool:
        return all(op.state not in IN_FLIGHT for op in self._ops)

    def _connection_lost(self) -> None:
        try:
            self._tell_protocol("connection_lost", self._protocol.connection_lost, self._error)
        finally:
            for op in self._ops:
                op.fd = -1
                op.waiter = op.context = None
            # Protocols hold their transport; here the circle is broken.
            self._protocol = None  # type: ignore[assignment]
            self._release()

    @abstractmethod
    def _release(self) -> None:
        """Close the descriptor and let go of everything."""


class WritingEndpoint(Endpoint):
    """An endpoint that is written to, within limits."""

    def __init__(self, loop: "RunningLoop", driver: Driver, protocol: asyncio.BaseProtocol) -> None:
        super().__init__(loop, driver, protocol)
        self._low_water, self._high_water = low_and_high()
        self._unsent_bytes = 0
        self._lost_writes = 0
        self._writing_paused = False

    def get_write_buffer_size(self) -> int:
        """Return how many bytes were written and are not sent."""
        return self._unsent_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and the high limit, in bytes."""
        return self._low_water, self._high_water

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """
        Set at how many waiting bytes the protocol is asked to pause, and at how few to go on.

        Raises:
            ValueError: Not ``high >= low >= 0``.
        """
        self._low_water, self._high_water = low_and_high(low, high)
        self._maybe_pause_writing()

    def _maybe_pause_writing(self) -> None:
        if not self._writing_paused and self._unsent_bytes > self._high_water:
            self._writing_paused = True
            self._tell_protocol("pause_writing", self._protocol.pause_writing)

    def _maybe_resume_writing(self) -> None:
        if self._writing_paused and self._unsent_bytes <= self._low_water:
            self._writing_paused = False
            self._tell_protocol("resume_writing", self._protocol.resume_writing)

    def _lose_write(self, message: str) -> None:
        """Take note that something was written to what is closed."""
        if self._lost_writes >= WARN_AFTER_LOST_WRITES:
            logger.warning(message)
        self._lost_writes += 1
