"""Generated programs of datagrams and of descriptors that are passed on."""

import errno
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import uringio
from uringio.net import DatagramSocket, Message, SocketStream
from uringio.testing._dice import Dice

ACTIONS = (
    "send", "send", "send to", "send to", "pass", "pass", "recv", "recv", "recv short", "recv from",
    "recv nothing", "close", "stream pass", "stream pass", "stream send", "stream recv",
    "stream recv", "stream plain",
)  # fmt: skip


class Step(NamedTuple):
    """One call: what, on which sockets, how many bytes."""

    action: str
    end: int
    other: int
    count: int


def program(seed: int, length: int = 24) -> list[Step]:
    """Write a program."""
    dice = Dice(seed, "message program")
    return [
        Step(dice.pick(ACTIONS), dice.below(3), dice.below(3), dice.below(dice.pick((1, 100))))
        for _ in range(length)
    ]


class World:
    """
    Three datagram sockets and a stream.

    The first two can be answered, the third is connected to the first.
    """

    def __init__(self, sockets: list[DatagramSocket], streams: list[SocketStream]) -> None:
        self.sockets = sockets
        self.streams = streams
        self.addresses = [socket.local_address for socket in sockets]


async def outcomes(steps: list[Step], unix: bool, path: str, settle_seconds: float) -> list[str]:
    """Carry a program out and write down what came of each step."""
    if unix:
        first = await uringio.open_unix_datagram(f"{path}/1")
        second = await uringio.open_unix_datagram(f"{path}/2")
        third = await uringio.open_unix_datagram(None, f"{path}/1")
    else:
        first = await uringio.open_udp(("127.0.0.1", 0))
        second = await uringio.open_udp(("127.0.0.1", 0))
        third = await uringio.open_udp(None, first.local_address)
    async with await uringio.listen_unix(f"{path}/stream") as listener:
        streams = [await uringio.connect_unix(f"{path}/stream"), await listener.accept()]
    world = World([first, second, third], streams)
    told: list[str] = []
    try:
        for step in steps:
            try:
                told.append(await _carry_out(world, step, settle_seconds))
            except (OSError, ValueError, uringio.UringioError) as error:
                number = getattr(error, "errno", None)
                told.append(errno.errorcode.get(number or 0, error.__class__.__name__))
            await uringio.sleep(settle_seconds)
    finally:
        for one in (*world.sockets, *world.streams):
            await one.aclose()
    return told


async def _carry_out(world: World, step: Step, settle_seconds: float) -> str:
    socket = world.sockets[step.end]
    stream = world.streams[step.end % 2]
    data = bytes([step.count]) * step.count
    match step.action:
        case "send":
            return f"sent {await socket.send(data)}"
        case "send to":
            return f"sent {await socket.send_to(data, world.addresses[step.other])}"
        case "pass":
            descriptors = [world.sockets[1].fileno()] * (1 + step.count % 3)
            address = world.addresses[step.other] if step.end < 2 else None
            return f"sent {await socket.sendmsg([data], address, fds=descriptors)}"
        case "recv":
            return await _soon(socket.recvmsg, settle_seconds)
        case "recv short":
            return await _soon(lambda: socket.recvmsg(7, ancillary_bytes=24), settle_seconds)
        case "recv from":
            with uringio.move_on_after(settle_seconds):
                got, source = await socket.recv_from(50)
                known = source in world.addresses
                return f"{got.hex()} {known} {source is None}"
            return "nothing"
        case "recv nothing":
            return await _soon(lambda: socket.recvmsg(1, ancillary_bytes=0), settle_seconds)
        case "close":
            await socket.aclose()
            return "closed"
        case "stream pass":
            descriptors = [stream.fileno()] * (1 + step.count % 3)
            return f"sent {await stream.sendmsg([data + b'.'], fds=descriptors)}"
        case "stream send":
            await stream.send_all(data + b".")
            return "sent"
        case "stream plain":
            with uringio.move_on_after(settle_seconds):
                return (await stream.recv(1 + step.count)).hex()
            return "nothing"
        case _:
            return await _soon(lambda: stream.recvmsg(1 + step.count), settle_seconds)


async def _soon(receive: Callable[[], Awaitable[Message]], settle_seconds: float) -> str:
    with uringio.move_on_after(settle_seconds):
        message = await receive()
        told = (
            f"{message.data.hex()} {len(message.fds)} {message.truncated} "
            f"{message.ancillary_truncated} {message.ancillary}"
        )
        message.close()
        return told
    return "nothing"
