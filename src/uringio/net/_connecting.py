"""
Connecting to the first of several addresses that answers: happy eyeballs, RFC 8305.

The addresses of a name are tried in the resolver's order (which is RFC 6724's), families taking
turns.  The next attempt begins when one has failed, or after a quarter of a second without an
answer; those begun before go on.  The first to be connected wins; all others are cancelled and
closed before anybody hears of it.

One task runs it: the attempts are bare ops whose ends cut the task's pause short.
"""

import os
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Final, TypeVar

from uringio._driver.contract import Driver
from uringio._driver.op import CONNECT, EVENT, TIMEOUT, Op
from uringio._driver.sockets import AddressInfo, RawOption, open_stream_socket

from ._closing import in_flight
from ._stream import SocketStream

__all__ = ["ATTEMPT_DELAY_SECONDS", "connect", "connect_first", "interleaved"]

T = TypeVar("T")

# RFC 8305, section 8: the Connection Attempt Delay.
ATTEMPT_DELAY_SECONDS: Final = 0.25


class _AttemptEnded(Exception):
    """An attempt has succeeded or failed: the pause is over."""


class _Keeper:
    """Keeps a stream's descriptor open for as long as the kernel works on it."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream

    def orphan(self, op: Op[T], value: object, /) -> None:
        """Nothing to keep: whoever cancels the connecting closes the stream; see `Owner`."""


async def connect(driver: Driver, info: AddressInfo, options: Sequence[RawOption]) -> SocketStream:
    """Connect to one address."""
    stream, op = _begin(driver, info, options)
    try:
        await op
    except OSError as error:
        error.add_note(f"while connecting to {info[3]!r}")
        await stream.aclose()
        raise
    except BaseException:
        await stream.aclose()
        raise
    return stream


async def connect_first(
    driver: Driver,
    infos: Sequence[AddressInfo],
    options: Sequence[RawOption],
    delay_ns: int,
) -> SocketStream:
    """
    Connect to one of several addresses; see the module's head.

    Raises:
        OSError: No address answered: the error of the first one to say so; notes tell of the rest.

    Cancellation: at once; every socket is closed.
    """
    if len(infos) == 1:
        return await connect(driver, infos[0], options)
    race = _Race(driver, options)
    try:
        for info in interleaved(infos):
            race.begin(info)
            await race.pause(delay_ns)
            if race.winner is not None:
                break
        while race.winner is None and race.running:
            await race.pause(None)
    except BaseException:
        await race.end(winner=None)
        raise
    winner = race.winner
    await race.end(winner)
    if winner is None:
        assert race.failure is not None
        raise race.failure
    return winner


def interleaved(infos: Iterable[AddressInfo]) -> list[AddressInfo]:
    """Order addresses so that families take turns, the first one's family first."""
    families: dict[int, list[AddressInfo]] = {}
    for info in dict.fromkeys(infos):
        families.setdefault(info[0], []).append(info)
    turns = zip_longest(*families.values())
    return [info for turn in turns for info in turn if info is not None]


class _Race:
    """
    Attempts to connect that run at once.

    Attributes:
        winner: The stream that was connected first.
        failure: The error of the attempt that failed first.
    """

    def __init__(self, driver: Driver, options: Sequence[RawOption]) -> None:
        self._driver = driver
        self._options = options
        self._running: dict[Op[None], tuple[SocketStream, AddressInfo]] = {}
        self._streams: list[SocketStream] = []
        self.failure: OSError | None = None
        self._pause: Op[None] | None = None
        self._pausing_is_over = False
        self.winner: SocketStream | None = None

    @property
    def running(self) -> int:
        """How many attempts may still succeed."""
        return len(self._running)

    def begin(self, info: AddressInfo) -> None:
        """Begin to connect; where even that is refused, the attempt has failed."""
        try:
            stream, op = _begin(self._driver, info, self._options)
        except OSError as error:
            self._failed(error, info)
            return
        self._streams.append(stream)
        self._running[op] = stream, info
        op.add_done_callback(self._ended)

    async def pause(self, delay_ns: int | None) -> None:
        """Return when an attempt has ended, or after *delay_ns*."""
        if not self._pausing_is_over:
            if delay_ns is None:
                op: Op[None] = Op(EVENT)
            else:
                op = Op(TIMEOUT, off=self._driver.system.monotonic_ns() + delay_ns)
            op.home = self._driver
            self._pause = op
            try:
                await op
            except _AttemptEnded:
                pass
            finally:
                self._pause = None
        self._pausing_is_over = False

    async def end(self, winner: SocketStream | None) -> None:
        """Cancel what runs, and close every stream but the winner's."""
        for op in list(self._running):
            self._driver.cancel(op)
        closings = [stream.aclose() for stream in self._streams if stream is not winner]
        self._streams.clear()
        try:
            # All are begun before any is awaited: a cancellation here must not keep one from it.
            for closing in closings[1:]:
                closing.add_done_callback(_ignore)
            for closing in closings[:1]:
                await closing
            while self._running:
                await self.pause(None)
        except BaseException:
            if winner is not None:
                await winner.aclose()
            raise

    def _ended(self, op: Op[None]) -> None:
        stream, info = self._running.pop(op)
        error, op.error = op.error, None
        if error is None:
            if self.winner is None:
                self.winner = stream
        elif isinstance(error, OSError):
            self._failed(error, info)
        self._wake()

    def _failed(self, error: OSError, info: AddressInfo) -> None:
        if self.failure is None:
            error.add_note(f"while connecting to {info[3]!r}")
            self.failure = error
        else:
            why = os.strerror(error.errno) if error.errno else str(error)
            self.failure.add_note(f"and to {info[3]!r}: {why}")
        self._wake()

    def _wake(self) -> None:
        pause = self._pause
        if pause is not None and in_flight(pause):
            self._driver.cancel(pause, _AttemptEnded())
        else:
            self._pausing_is_over = True


def _begin(
    driver: Driver, info: AddressInfo, options: Sequence[RawOption]
) -> tuple[SocketStream, Op[None]]:
    fd, packed = open_stream_socket(driver, info, options)
    stream = SocketStream(driver, fd, reads_ahead=info[0] != driver.system.AF_UNIX)
    op: Op[None] = Op(CONNECT, fd, off=len(packed), memory=packed, owner=_Keeper(stream))
    op.home = driver
    return stream, op


def _ignore(_op: Op[None]) -> None:
    """A closing that nobody waits for."""
