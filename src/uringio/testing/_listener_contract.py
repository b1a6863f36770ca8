"""`check_listener`: the behaviours that everything that accepts connections must have."""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from uringio._run.group import TaskGroup
from uringio._run.scope import move_on_after
from uringio.errors import ClosedError
from uringio.streams import Stream

from ._contract import Closing, carry_out, expect, refused
from ._idle import wait_all_idle
from ._stream_contract import receive

__all__ = ["Accepting", "Connect", "ListenerFactory", "check_listener"]


class Accepting(Protocol):
    """What takes connections: `uringio.Listener`, or another's."""

    def accept(self) -> Awaitable[Stream]:
        """Wait for a connection; several tasks may."""
        ...

    def aclose(self) -> Awaitable[None]:
        """Stop; safe to call twice."""
        ...


Connect = Callable[[], Awaitable[Stream]]
ListenerFactory = Callable[[], Awaitable[tuple[Accepting, Connect]]]

_SEVERAL: Final = 5


async def check_listener(factory: ListenerFactory) -> None:
    """
    Check that a transport's listener does what every listener must.

    Run it under `uringio.run`, or under `run` on simulated kernels, with faults too.

    Args:
        factory: An async function that makes a listener, and an async function that connects to it;
            it is called for each behaviour, and the listener is closed.

    Raises:
        ContractError: It does not; the message names the behaviour, and says what was seen.
    """
    await carry_out("check_listener", _BEHAVIOURS, factory)


async def _introduce(accepted: Stream, connected: Stream, what: str) -> None:
    """Expect the two to be the ends of one connection."""
    heard = answer = b""
    async with TaskGroup() as group:
        group.start_soon(connected.send_all, b"hello")
        group.start_soon(accepted.send_all, b"welcome")
        heard = await receive(accepted, 5)
        answer = await receive(connected, 7)
    expect((heard, answer) == (b"hello", b"welcome"), f"{what} got {heard!r} and {answer!r}")


async def _accepts(factory: ListenerFactory) -> None:
    """Who connects and who accepts can talk, whichever of them is first."""
    listener, connect = await factory()
    async with Closing(listener):
        for early in (False, True):
            streams: dict[str, Stream] = {}

            async def call(streams: dict[str, Stream] = streams) -> None:
                streams["connected"] = await connect()

            async def take(streams: dict[str, Stream] = streams) -> None:
                streams["accepted"] = await listener.accept()

            async with TaskGroup() as group:
                group.start_soon(take if early else call)
                await wait_all_idle()
                group.start_soon(call if early else take)
            async with Closing(*streams.values()):
                await _introduce(streams["accepted"], streams["connected"], "the two ends")


async def _keeps_who_waits(factory: ListenerFactory) -> None:
    """Connections that come before they are accepted wait, and each is accepted once."""
    listener, connect = await factory()
    connected: list[Stream] = []
    accepted: list[Stream] = []

    async def call() -> None:
        connected.append(await connect())

    async with Closing(listener), TaskGroup() as group:
        for _ in range(_SEVERAL):
            group.start_soon(call)
        await wait_all_idle()
        accepted += [await listener.accept() for _ in range(_SEVERAL)]
    async with Closing(*connected, *accepted):
        await _all_paired(connected, accepted)


async def _all_paired(connected: list[Stream], accepted: list[Stream]) -> None:
    heard: list[bytes] = []

    async def hear(stream: Stream) -> None:
        heard.append(await receive(stream, 1))

    async with TaskGroup() as group:
        for number, stream in enumerate(connected):
            group.start_soon(stream.send_all, bytes([number]))
        for stream in accepted:
            group.start_soon(hear, stream)
    expect(
        sorted(heard) == [bytes([number]) for number in range(_SEVERAL)],
        f"{_SEVERAL} connections were made, and the accepted ones got {sorted(heard)}",
    )


async def _several_acceptors(factory: ListenerFactory) -> None:
    """Several tasks may accept at a time; each gets a connection of its own."""
    listener, connect = await factory()
    connected: list[Stream] = []
    accepted: list[Stream] = []

    async def take() -> None:
        accepted.append(await listener.accept())

    async with Closing(listener), TaskGroup() as group:
        for _ in range(_SEVERAL):
            group.start_soon(take)
        await wait_all_idle()
        connected += [await connect() for _ in range(_SEVERAL)]
    async with Closing(*connected, *accepted):
        await _all_paired(connected, accepted)


async def _cancelled_accept(factory: ListenerFactory) -> None:
    """A cancelled `accept` takes no connection that comes after it."""
    listener, connect = await factory()
    async with Closing(listener):
        for _ in range(3):
            with move_on_after(0.001):
                await listener.accept()
                expect(False, "a connection came that nobody had made")
        connected = await connect()
        async with Closing(connected):
            accepted = await listener.accept()
            async with Closing(accepted):
                await _introduce(accepted, connected, "after a cancelled accept the two ends")


async def _closes(factory: ListenerFactory) -> None:
    """Closing ends every waiting `accept` with `ClosedError`, may be repeated, and is for good."""
    listener, _ = await factory()
    async with Closing(listener):
        async with TaskGroup() as group:

            async def wait() -> None:
                await refused(ClosedError, _accept, listener, what="a waiting accept, on closing,")

            group.start_soon(wait)
            group.start_soon(wait)
            await wait_all_idle()
            await listener.aclose()
        await listener.aclose()
        await refused(ClosedError, _accept, listener, what="accept on a closed listener")


async def _accept(listener: Accepting) -> Stream:
    return await listener.accept()


async def _refuses_when_closed(factory: ListenerFactory) -> None:
    """Nobody can connect to a closed listener; connections made before live on."""
    listener, connect = await factory()
    async with Closing(listener):
        connected = await connect()
        accepted = await listener.accept()
        async with Closing(connected, accepted):
            await listener.aclose()
            await refused(OSError, connect, what="connecting to a closed listener")
            await _introduce(accepted, connected, "after the listener was closed the two ends")


_BEHAVIOURS: Final = [
    _accepts,
    _keeps_who_waits,
    _several_acceptors,
    _cancelled_accept,
    _closes,
    _refuses_when_closed,
]
