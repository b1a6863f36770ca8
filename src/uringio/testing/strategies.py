r"""
Strategies for hypothesis: what a network does to bytes, and what goes wrong meanwhile.

This module imports hypothesis (the extra ``uringio-ctypes[testing]``); `uringio.testing` does not.
Whatever is drawn shrinks: to fewer pieces, fewer events, fewer faults.

Example::

    from hypothesis import given
    from uringio import testing
    from uringio.testing import strategies

    @given(strategies.socket_histories(b"ping\r\nquit\r\n"), strategies.fault_plans())
    def test_any_client(history, faults):
        async def main():
            near, far = testing.memory_stream_pair()
            ...
            await strategies.play(near, history)

        testing.run(main, faults=faults)
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from hypothesis import strategies as st

from uringio._run.scope import move_on_after
from uringio.clock import sleep
from uringio.streams import Stream

from ._faults import ExactFault, FaultPlan, Strike
from ._kernel import SimKernel
from ._profiles import PROFILES

__all__ = [
    "SocketEvent",
    "byte_splits",
    "fault_plans",
    "kernels",
    "play",
    "socket_histories",
]

# What a program need not notice: `FaultPlan` says what each is.
_HARMLESS: Final = (
    "short", "delay", "reorder", "interrupt", "starve", "partial_submit", "refuse_submit",
    "overflow", "duplicate", "cancel_miss", "late", "end_shots", "stall", "buggify",
)  # fmt: skip
_BREAKING: Final = ("reset", "exhaust", "disk_error")
_ERRNOS: Final = (
    errno.ECONNRESET, errno.EPIPE, errno.EIO, errno.ENOBUFS, errno.EMFILE, errno.ENOMEM,
    errno.EINTR, errno.EAGAIN,
)  # fmt: skip
_OPS: Final = ("recv", "send", "accept", "connect", "read", "write", "openat", "close", "enter")
_PAUSE_MS_MAX: Final = 50
_EARLY: Final = 8


def byte_splits(
    data: bytes | st.SearchStrategy[bytes], *, pieces_max: int | None = None
) -> st.SearchStrategy[list[bytes]]:
    """
    Draw ways in which *data* may arrive: pieces, none of them empty, that make it up.

    Args:
        data: The bytes, or a strategy for them.
        pieces_max: At most so many pieces; by default any number. [count]

    Shrinks to one piece.
    """
    if not isinstance(data, bytes):
        return data.flatmap(lambda drawn: byte_splits(drawn, pieces_max=pieces_max))
    if not data:
        return st.just([])
    if len(data) == 1 or pieces_max == 1:
        return st.just([data])
    limit = None if pieces_max is None else pieces_max - 1
    return _pieces(data, limit)


@st.composite  # of which hypothesis prints what was drawn, and not how
def _pieces(draw: st.DrawFn, data: bytes, cuts_max: int | None) -> list[bytes]:
    cuts = draw(st.lists(st.integers(1, len(data) - 1), unique=True, max_size=cuts_max))
    return [data[start:stop] for start, stop in pairwise([0, *sorted(cuts), len(data)])]


def fault_plans(
    kinds: Sequence[str] = _HARMLESS,
    *,
    breaking: bool = False,
    faults_max: int = 12,
    nth_max: int = 40,
) -> st.SearchStrategy[FaultPlan]:
    """
    Draw faults at given occasions.

    Args:
        kinds: Names of shares in `FaultPlan`; by default those that a program need not notice.
        breaking: Connections that break, descriptors that run out and disks that fail as well, and
            single calls that are refused.
        faults_max: At most so many, of each of these two sorts. [count]
        nth_max: Up to which occasion of its kind each strikes. [count]

    Shrinks to no faults at all, and each to an early one.
    """
    every = (*kinds, *_BREAKING) if breaking else tuple(kinds)
    # Programs are short, and what is early matters most.
    nth = st.one_of(st.integers(1, min(_EARLY, nth_max)), st.integers(1, nth_max))
    at = st.lists(st.builds(Strike, st.sampled_from(every), nth), unique=True, max_size=faults_max)
    if not breaking:
        return st.builds(FaultPlan, at=at)
    call = st.builds(ExactFault, st.sampled_from(_OPS), nth, st.sampled_from(_ERRNOS))
    return st.builds(FaultPlan, at=at, exact=st.lists(call, unique=True, max_size=faults_max))


def kernels(
    faults: st.SearchStrategy[FaultPlan] | None = None,
    profiles: Sequence[str] = tuple(PROFILES),
) -> st.SearchStrategy[SimKernel]:
    """
    Draw simulated kernels, each to be used for one run.

    Args:
        faults: What goes wrong; by default `fault_plans`.
        profiles: Which kernels to be; see `uringio.testing.PROFILES`.
    """
    plans = fault_plans() if faults is None else faults
    return st.builds(SimKernel, st.integers(0, 2**16), st.sampled_from(list(profiles)), plans)


@dataclass(frozen=True, slots=True)
class SocketEvent:
    """
    One thing that a peer does.

    Attributes:
        action: ``"send"`` *data*; ``"pause"`` for *seconds*; ``"recv"`` what has come, for as long
            as nothing comes for *seconds*; ``"eof"``, to send no more; ``"close"``.
        data: What is sent.
        seconds: How long. [seconds]
    """

    action: Literal["send", "pause", "recv", "eof", "close"]
    data: bytes = b""
    seconds: float = 0.0


def socket_histories(
    data: bytes | st.SearchStrategy[bytes], *, whole: bool = False
) -> st.SearchStrategy[list[SocketEvent]]:
    """
    Draw what a peer may do that has *data* to say.

    It sends in any pieces, with pauses and receives between them, and then ends in any way: it says
    that it has ended, closes, or does neither; before it has said all, too, unless *whole*.

    Args:
        data: What it has to say, or a strategy for that.
        whole: Everything is sent, and nothing is closed before.

    Shrinks to one send of everything.
    """
    if not isinstance(data, bytes):
        return data.flatmap(lambda drawn: socket_histories(drawn, whole=whole))
    waits = st.integers(0, _PAUSE_MS_MAX).map(lambda drawn: drawn / 1000)
    between = st.lists(
        st.builds(SocketEvent, st.sampled_from(("pause", "recv")), st.just(b""), waits), max_size=2
    )
    end = st.sampled_from(((), ("eof",), ("close",), ("eof", "close")))
    most = st.none() if whole else st.one_of(st.none(), st.integers(0, len(data)))
    return st.builds(_history, byte_splits(data), st.lists(between, max_size=8), most, end)


def _history(
    pieces: list[bytes],
    between: list[list[SocketEvent]],
    most: int | None,
    end: tuple[Literal["eof", "close"], ...],
) -> list[SocketEvent]:
    events: list[SocketEvent] = []
    left = sum(map(len, pieces)) if most is None else most
    for number, piece in enumerate(pieces):
        if number and number <= len(between):
            events += between[number - 1]
        if piece[:left]:
            events.append(SocketEvent("send", piece[:left]))
        left -= len(piece[:left])
    return [*events, *(SocketEvent(action) for action in end)]


async def play(stream: Stream, history: Sequence[SocketEvent]) -> bytes:
    """
    Do on *stream* what *history* says; returns what was received.

    Raises:
        OSError: The other side closed or reset the connection, and there was more to send.
    """
    got = bytearray()
    for event in history:
        if event.action == "send":
            await stream.send_all(event.data)
        elif event.action == "pause":
            await sleep(event.seconds)
        elif event.action == "recv":
            while True:
                chunk = b""
                with move_on_after(event.seconds):
                    chunk = await stream.recv()
                if not chunk:
                    break
                got += chunk
        elif event.action == "eof":
            await stream.send_eof()
        else:
            await stream.aclose()
    return bytes(got)
