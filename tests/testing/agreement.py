"""Generated programs on two connected streams, whose outcomes the kernel alone decides."""

import hashlib
import os
from typing import NamedTuple

import uringio
from uringio.net import SocketStream
from uringio.testing._dice import Dice

# What travels has arrived after so long, simulated or real; on a busy machine, after the second.
SETTLE_SECONDS = (0.003, 0.3)


class Step(NamedTuple):
    """One call: what, on which end, how many bytes."""

    action: str
    end: int
    count: int


ACTIONS = (
    "send", "send", "send", "recv", "recv", "recv_exactly", "recv_soon", "end", "close", "address",
)  # fmt: skip


def program(seed: int, length: int = 14) -> list[Step]:
    """Write a program; what is in flight stays below what the buffers hold."""
    dice = Dice(seed, "program")
    return [
        Step(dice.pick(ACTIONS), dice.below(2), 1 + dice.below(dice.pick((1, 100, 3_000))))
        for _ in range(length)
    ]


async def outcomes(steps: list[Step], tcp: bool, settle_seconds: float) -> list[str]:
    """Carry a program out and write down what came of each step."""
    told: list[str] = []
    if tcp:
        listener = await uringio.listen_tcp("127.0.0.1", 0)
        address = listener.local_address
        assert isinstance(address, tuple)
        connecting = uringio.connect_tcp("127.0.0.1", address[1])
    else:
        path = b"\0uringio agreement %d" % os.getpid()
        listener = await uringio.listen_unix(path)
        connecting = uringio.connect_unix(path)
    async with listener:
        first = await connecting
        second = await listener.accept()
    ends = (first, second)
    try:
        for step in steps:
            try:
                told.append(await carry_out(step, ends[step.end], settle_seconds))
            except (OSError, uringio.UringioError) as error:
                told.append(f"{error.__class__.__name__} {getattr(error, 'errno', None)}")
            await uringio.sleep(settle_seconds)
    finally:
        for end in ends:
            await end.aclose()
    return told


async def carry_out(step: Step, stream: SocketStream, settle_seconds: float) -> str:
    action, _, count = step
    if action == "send":
        await stream.send_all(bytes([count & 0xFF]) * count)
        return "sent"
    if action == "recv_exactly":
        # Only what is surely there, or the end, comes in time.
        with uringio.move_on_after(settle_seconds):
            return told(await stream.recv_exactly(count))
        return "not enough"
    if action in {"recv", "recv_soon"}:
        with uringio.move_on_after(settle_seconds):
            return told(await stream.recv(count))
        return "nothing"
    if action == "end":
        await stream.send_eof()
        return "ended"
    if action == "close":
        await stream.aclose()
        return "closed"
    return f"{stream.remote_address == stream.local_address}"


def told(data: bytes) -> str:
    return f"{len(data)} {hashlib.blake2b(data, digest_size=4).hexdigest()}"
