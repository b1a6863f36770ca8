"""
The scenario of signal handlers: Python code that runs, and raises, in the middle of the driver.

The interpreter runs handlers behind the calls that the driver makes, and where a function of its
begins.  A profile function is called at these very moments, so it stands in for signals here, by
the scenario's dice.  Of the moments only those are used that are the same on every Python.

Bytes come from the kernel's side, so that no send can be torn; they must all arrive, in order,
whatever is cancelled, started and broken off meanwhile.
"""

import sys
import types
from collections.abc import Callable, Sequence
from typing import Final

import uringio
from tests.testing.programs import PORT
from tests.testing.stage import Stage
from uringio._driver import current
from uringio._driver import op as o
from uringio._driver.op import Op
from uringio.net import SocketStream
from uringio.testing._dice import Dice
from uringio.testing._sockets import StreamSocket

__all__ = ["signals"]

_READER_COUNT: Final = 3
_ROOMS: Final = ("uringio._driver", "uringio._ring")
# C functions that are called as such by every interpreter.
_CALLS: Final = frozenset({"pack_into", "append", "popleft"})
_APART: Final = frozenset({"__del__", "turned"})
_SHARE: Final = 0.05


class StruckError(BaseException):
    """What a signal handler raises."""


class Signals:
    """Calls one of *handlers* at some moments of the driver's own."""

    def __init__(self, dice: Dice, handlers: Sequence[Callable[[], object]]) -> None:
        self._dice = dice
        self._handlers = handlers
        self.is_armed = False
        self.count = 0

    def __call__(self, frame: types.FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call":
            # (Who is struck as it begins to be made has a finalizer all the same, which tells.)
            if code.co_name.startswith(("<", "__init__")) or not _is_ours(frame):
                return
        elif event == "c_return":
            if getattr(argument, "__name__", "") not in _CALLS or not _is_ours(frame):
                return
        elif event != "return" or code.co_name != "append" or not _is_ours(frame.f_back):
            return  # (the last is the queue, whose `append` is looked at here)
        if self._dice.chance(_SHARE):
            self.count += 1
            sys.setprofile(None)
            try:
                self._dice.pick(self._handlers)()
            finally:
                if self.is_armed:
                    sys.setprofile(self)

    def arm(self) -> None:
        """Begin, or go on after an exception, with which the interpreter has taken it away."""
        self.is_armed = True
        sys.setprofile(self)

    def disarm(self) -> None:
        """End."""
        self.is_armed = False
        sys.setprofile(None)


def _is_ours(frame: types.FrameType | None) -> bool:
    """Whether it is the driver's own, neither a finalizer's nor the simulation's."""
    name = "" if frame is None else str(frame.f_globals.get("__name__", ""))
    # (`current` alone runs between two turns as well, when there is no loop for a handler to use.)
    if not name.startswith(_ROOMS) or name.endswith(".current"):
        return False
    while frame is not None and frame.f_code.co_name not in _APART:
        frame = frame.f_back
    return frame is None


class Feed:
    """What the readers are to get, from the kernel's side, all at the same moments."""

    def __init__(self, stage: Stage, peers: Sequence[StreamSocket]) -> None:
        self._stage = stage
        self._peers = peers
        self.sent = [bytearray() for _ in peers]
        self.got = [bytearray() for _ in peers]
        self._push()

    def _push(self) -> None:
        """Send a piece to each reader that has had its last, so that no other wakes it."""
        stage = self._stage
        for sent, got, peer in zip(self.sent, self.got, self._peers, strict=True):
            if len(got) < len(sent):
                continue
            if stage.is_calm():
                peer.shutdown(1)
                continue
            piece = b"%07d " % len(sent) * stage.dice.between(1, 40)
            count = peer.write(piece)
            if count is not None and count > 0:
                sent.extend(piece[:count])
        if not stage.is_calm() or self.sent != self.got:
            stage.kernel.clock.call_later(stage.dice.between(1, 400_000_000), self._push)


async def signals() -> Stage:
    """Handlers submit, cancel and raise; no byte, op or callback is lost."""
    stage = Stage("signals")
    scopes: dict[int, uringio.CancelScope] = {}
    started = ended = 0

    def raises() -> None:
        raise StruckError

    def starts() -> None:
        nonlocal started
        for _ in range(stage.dice.between(1, 3)):
            started += 1
            nop: Op[None] = Op(o.NOP)
            nop.add_done_callback(ends)

    def hands_over() -> None:
        starts()
        assert current.here.driver is not None
        current.here.driver.flush()

    def cancels() -> None:
        for scope in scopes.values():
            scope.cancel()

    def ends(_op: Op[None]) -> None:
        nonlocal ended
        ended += 1

    profile = sys.getprofile()
    handlers = Signals(stage.dice, (raises, starts, hands_over, cancels))

    async def read(number: int, stream: SocketStream, feed: Feed) -> None:
        got, sent = feed.got[number], feed.sent[number]
        while True:
            if not handlers.is_armed and not stage.is_calm():
                handlers.arm()
            data = None
            try:
                with uringio.move_on_after(stage.dice.below(900_000) / 1e6) as scopes[number]:
                    data = await stream.recv()
            except StruckError:
                pass
            if data == b"":
                break
            got += data or b""
        assert got == sent, f"reader {number}: {len(got)} of {len(sent)} bytes, or others"
        del scopes[number]

    async with await uringio.listen_tcp("127.0.0.1", PORT) as listener:
        streams: list[SocketStream] = []
        peers: list[StreamSocket] = []
        for _ in range(_READER_COUNT):
            streams.append(await uringio.connect_tcp("127.0.0.1", PORT))
            streams.append(far := await listener.accept())
            peer = stage.kernel.file_of(far.fileno())
            assert isinstance(peer, StreamSocket)
            peers.append(peer)
        feed = Feed(stage, peers)
        stage.kernel.survives = (StruckError,)
        stage.kernel.survived = handlers.arm
        handlers.arm()
        try:
            async with uringio.TaskGroup() as group:
                for number in range(_READER_COUNT):
                    group.start_soon(read, number, streams[2 * number], feed)
        finally:
            handlers.disarm()
            stage.kernel.survives = ()
            sys.setprofile(profile)
        await uringio.sleep(0.01)
        assert ended == started, f"{started} operations of handlers, {ended} ends"
        for stream in streams:
            await stream.aclose()
    assert handlers.count
    stage.recovery_ns = stage.kernel.clock.elapsed_ns - stage.storm_ns
    return stage
