"""
How much of what was written may wait to be sent: the limits of a stream transport.

A transport asks its protocol to pause when more than the high limit waits, and to go on when no
more than the low one does.  What a send in flight has taken counts as waiting.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from uringio._driver.op import CANCELLING, DONE, SUBMITTED, Op

if TYPE_CHECKING:
    from .running import RunningLoop

__all__ = ["IN_FLIGHT", "WARN_AFTER_LOST_WRITES", "FlowControl", "low_and_high"]

IN_FLIGHT: Final = frozenset({SUBMITTED, CANCELLING, DONE})
WARN_AFTER_LOST_WRITES: Final = 5  # to what is closed; asyncio's number
_HIGH_WATER_BYTES: Final = 65536


def low_and_high(low: int | None = None, high: int | None = None) -> tuple[int, int]:
    """
    Return both limits, of which each may be left open.

    Raises:
        ValueError: Not ``high >= low >= 0``.
    """
    if high is None:
        high = _HIGH_WATER_BYTES if low is None else 4 * low
    if low is None:
        low = high // 4
    if not high >= low >= 0:
        raise ValueError(f"it takes high >= low >= 0, not high={high!r} and low={low!r}")
    return low, high


class FlowControl(asyncio.Transport):
    """The part of `StreamTransport` that knows the limits."""

    __slots__ = (
        "_after_send",
        "_backlog_bytes",
        "_high_water",
        "_loop",
        "_low_water",
        "_protocol",
        "_writing_paused",
    )

    _send_op: Op[object]
    _protocol: asyncio.BaseProtocol

    def __init__(self, loop: "RunningLoop") -> None:
        super().__init__()
        self._loop = loop
        self._backlog_bytes = 0  # what is in no send yet
        self._after_send = False  # whether the end of a send is more than that
        self._writing_paused = False
        self._low_water, self._high_water = low_and_high()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes were written and are not sent."""
        op = self._send_op
        return self._backlog_bytes + (op.len if op.state in IN_FLIGHT else 0)

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

    @property
    def _protocol_paused(self) -> bool:
        return self._writing_paused  # see `StreamTransport._start_tls_compatible`

    def _maybe_pause_writing(self) -> None:
        if self._writing_paused or self.get_write_buffer_size() <= self._high_water:
            return
        self._writing_paused = True
        self._after_send = True
        self._tell_protocol("pause_writing", self._protocol.pause_writing)

    def _maybe_resume_writing(self) -> None:
        if self._writing_paused and self.get_write_buffer_size() <= self._low_water:
            self._writing_paused = False
            self._tell_protocol("resume_writing", self._protocol.resume_writing)

    def _tell_protocol(self, name: str, method: Callable[[], object]) -> None:
        try:
            method()
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
