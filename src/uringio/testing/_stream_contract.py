"""`check_stream`: the behaviours that every stream must have, whatever carries it."""

from collections.abc import Awaitable, Callable
from typing import Final

from uringio._run.group import TaskGroup
from uringio._run.scope import CancelScope, move_on_after
from uringio.clock import sleep
from uringio.errors import BusyError, ClosedError
from uringio.streams import Stream

from ._contract import Closing, carry_out, expect, refused
from ._idle import wait_all_idle

__all__ = ["StreamFactory", "check_stream"]

StreamFactory = Callable[[], Awaitable[tuple[Stream, Stream]]]

_LONG_BYTES: Final = 300_000
_CLOG_BYTES: Final = 16 << 20
_CLOG_PIECE: Final = bytes(1 << 18)


async def check_stream(factory: StreamFactory, *, clog_bytes: int = _CLOG_BYTES) -> None:
    """
    Check that a transport does what every `uringio.streams.Stream` must.

    The two streams of a pair may be of different classes; each is checked in both roles.  Run it
    under `uringio.run`, or under `run` on simulated kernels, with faults too.

    Args:
        factory: An async function that makes two connected streams; it is called for each
            behaviour, and the streams are closed.
        clog_bytes: How much, sent and not received, surely fills what lies between the two; 0 for a
            transport that takes any amount, whose senders never wait. [bytes]

    Raises:
        ContractError: It does not; the message names the behaviour, and says what was seen.

    Example:
        >>> import uringio
        >>> from uringio import testing
        >>> async def make() -> tuple[testing.MemoryStream, testing.MemoryStream]:
        ...     return testing.memory_stream_pair()
        >>> uringio.run(testing.check_stream, make)
    """
    # A sender that never waits cannot be interrupted while it waits.
    behaviours = _BEHAVIOURS + _CLOGGED if clog_bytes else _BEHAVIOURS

    async def turned() -> tuple[Stream, Stream]:
        near, far = await factory()
        return far, near

    for make in (factory, turned):
        await carry_out("check_stream", behaviours, make, clog_bytes)


def pattern(start: int, count: int) -> bytes:
    """Bytes of which each place tells where it is, nearly."""
    first = start % 251
    return (_CYCLE * (count // 251 + 2))[first : first + count]


_CYCLE: Final = bytes(range(251))


async def receive(stream: Stream, count: int, max_bytes: int = 65536) -> bytes:
    """Receive *count* bytes, or up to the end."""
    got = bytearray()
    while len(got) < count:
        chunk = await stream.recv(min(max_bytes, count - len(got)))
        if not chunk:
            break
        got += chunk
    return bytes(got)


# --- behaviours ----------------------------------------------------------------------------------


async def _carries_bytes(factory: StreamFactory, clog_bytes: int) -> None:
    """What is sent arrives, in order and once, in both directions at a time."""
    near, far = await factory()
    async with Closing(near, far):
        there, back = pattern(0, _LONG_BYTES), pattern(77, _LONG_BYTES)
        got: dict[str, bytes] = {}

        async def keep(name: str, stream: Stream) -> None:
            got[name] = await receive(stream, _LONG_BYTES)

        async with TaskGroup() as group:
            group.start_soon(near.send_all, there)
            group.start_soon(far.send_all, back)
            group.start_soon(keep, "there", far)
            group.start_soon(keep, "back", near)
        expect(got["there"] == there, "the second stream got other bytes than the first one sent")
        expect(got["back"] == back, "the first stream got other bytes than the second one sent")


async def _takes_any_bytes(factory: StreamFactory, clog_bytes: int) -> None:
    """`bytes`, `bytearray` and `memoryview` can be sent, and nothing at all."""
    near, far = await factory()
    async with Closing(near, far), TaskGroup() as group:

        async def send() -> None:
            for data in (b"", b"ab", bytearray(b"cd"), memoryview(b"xefx")[1:3], b""):
                await near.send_all(data)

        group.start_soon(send)
        got = await receive(far, 6)
        expect(got == b"abcdef", f"of the pieces ab, cd and ef came {got!r}")


async def _gives_at_most(factory: StreamFactory, clog_bytes: int) -> None:
    """`recv(n)` returns from 1 to n bytes, and keeps the others."""
    near, far = await factory()
    data = pattern(3, 1000)
    async with Closing(near, far), TaskGroup() as group:
        group.start_soon(near.send_all, data)
        got = b""
        for most in (1, 2, 7, 100, 1, 889):
            chunk = await far.recv(most)
            expect(1 <= len(chunk) <= most, f"recv({most}) returned {len(chunk)} bytes")
            got += chunk
        got += await receive(far, len(data) - len(got))
        expect(got == data, "bytes that a recv had no room for were lost or moved")
    await refused(ValueError, _receive_none, factory, what="recv(0)")


async def _receive_none(factory: StreamFactory) -> None:
    near, far = await factory()
    async with Closing(near, far):
        await near.recv(0)


async def _ends(factory: StreamFactory, clog_bytes: int) -> None:
    """After `send_eof` the peer gets what was sent, then ``b""`` each time, and may still send."""
    near, far = await factory()
    async with Closing(near, far), TaskGroup() as group:

        async def send() -> None:
            await near.send_all(b"last words")
            await near.send_eof()

        group.start_soon(send)
        got = await receive(far, 100)
        expect(got == b"last words", f"before the end came {got!r}")
        for _ in range(2):
            expect(await far.recv() == b"", "bytes came after the end")
        group.start_soon(far.send_all, b"heard")
        got = await receive(near, 5)
        expect(got == b"heard", "the other direction ended too")


async def _ends_by_closing(factory: StreamFactory, clog_bytes: int) -> None:
    """A peer that closes has ended: a waiting `recv` returns ``b""``, and so does a later one."""
    near, far = await factory()
    async with Closing(near, far):
        async with TaskGroup() as group:

            async def wait() -> None:
                expect(await far.recv() == b"", "bytes came from a stream that was closed unused")

            group.start_soon(wait)
            await wait_all_idle()
            await near.aclose()
        expect(await far.recv() == b"", "the end came only once")


async def _closes(factory: StreamFactory, clog_bytes: int) -> None:
    """`aclose` may be called again, and everything else after it raises `ClosedError`."""
    near, far = await factory()
    async with Closing(near, far):
        await near.aclose()
        await near.aclose()
        await refused(ClosedError, _recv, near, what="recv on a closed stream")
        await refused(ClosedError, _send, near, what="send_all on a closed stream")
        await refused(ClosedError, _send_eof, near, what="send_eof on a closed stream")


async def _recv(stream: Stream) -> bytes:
    return await stream.recv()


async def _send(stream: Stream) -> None:
    await stream.send_all(b"x")


async def _send_eof(stream: Stream) -> None:
    await stream.send_eof()


async def _closing_ends_recv(factory: StreamFactory, clog_bytes: int) -> None:
    """A task that waits in `recv` on a stream that is closed gets `ClosedError`."""
    near, far = await factory()
    async with Closing(near, far), TaskGroup() as group:
        what = "a waiting recv, when the stream was closed,"

        async def wait() -> None:
            await refused(ClosedError, _recv, near, what=what)

        group.start_soon(wait)
        await wait_all_idle()
        await near.aclose()


async def _one_reader(factory: StreamFactory, clog_bytes: int) -> None:
    """A second task that receives at the same time gets `BusyError`; the first is not disturbed."""
    near, far = await factory()
    async with Closing(near, far), TaskGroup() as group:
        got: list[bytes] = []

        async def wait() -> None:
            got.append(await near.recv())

        group.start_soon(wait)
        await wait_all_idle()
        await refused(BusyError, _recv, near, what="a second recv at the same time")
        await far.send_all(b"!")
        await wait_all_idle()
        expect(got == [b"!"], "the first of two receivers did not get what came")


async def _cancelled_recv_loses_nothing(factory: StreamFactory, clog_bytes: int) -> None:
    """A `recv` that is cancelled, early or late, loses no byte: the next one gets it."""
    near, far = await factory()
    async with Closing(near, far):
        with move_on_after(0.001):
            await far.recv()
            expect(False, "bytes came that nobody had sent")
        data = pattern(9, 40_000)
        got = bytearray()

        async def send() -> None:
            for start in range(0, len(data), 500):
                await near.send_all(data[start : start + 500])
                if not start % 4000:
                    await sleep(0.0002)
            await near.send_eof()

        async with TaskGroup() as group:
            group.start_soon(send)
            for number in range(1_000_000):
                with move_on_after(0.00005 * (number % 5)):
                    chunk = await far.recv(700)
                    if not chunk:
                        break
                    got += chunk
        expect(len(got) <= len(data), f"{len(got) - len(data)} bytes came twice")
        expect(len(got) == len(data), f"{len(data) - len(got)} of {len(data)} bytes were lost")
        expect(bytes(got) == data, "bytes came in another order")


async def _cancelled_before(factory: StreamFactory, clog_bytes: int) -> None:
    """In a cancelled scope `recv` takes nothing away."""
    near, far = await factory()
    async with Closing(near, far), TaskGroup() as group:
        group.start_soon(near.send_all, b"kept")
        await wait_all_idle()
        got = b""
        with CancelScope() as scope:
            scope.cancel()
            got = await far.recv()
        got += await receive(far, 4 - len(got))
        expect(got == b"kept", f"{got!r} is left of what was there")


async def _sending_to_nobody(factory: StreamFactory, clog_bytes: int) -> None:
    """Who sends to a peer that has closed gets an OSError, if not at once then soon."""
    near, far = await factory()
    async with Closing(near, far):
        await far.aclose()

        async def send() -> None:
            for _ in range(1000):
                await near.send_all(b"is anybody there?")
                await sleep(0.001)

        await refused(OSError, send, what="sending to a peer that has closed")


# --- with senders that wait ----------------------------------------------------------------------


async def _clog(stream: Stream, clog_bytes: int) -> None:
    """Send until that has to wait, and on."""
    for start in range(0, clog_bytes, len(_CLOG_PIECE)):
        await stream.send_all(_CLOG_PIECE[: clog_bytes - start])


async def _closing_ends_send(factory: StreamFactory, clog_bytes: int) -> None:
    """A task that waits in `send_all` on a stream that is closed gets `ClosedError`."""
    near, far = await factory()
    async with Closing(near, far), TaskGroup() as group:
        what = f"sending {clog_bytes} bytes that nobody received, when the stream was closed,"

        async def wait() -> None:
            await refused(ClosedError, _clog, near, clog_bytes, what=what)

        group.start_soon(wait)
        await wait_all_idle()
        await near.aclose()


async def _one_writer(factory: StreamFactory, clog_bytes: int) -> None:
    """A second task that sends at the same time gets `BusyError`."""
    near, far = await factory()
    async with Closing(near, far), TaskGroup() as group:
        group.start_soon(_clog, near, clog_bytes)
        await wait_all_idle()
        await refused(BusyError, _send, near, what="a second send_all at the same time")
        await refused(BusyError, _send_eof, near, what="send_eof in the middle of a send_all")
        group.cancel_scope.cancel()


async def _waits_for_receiver(factory: StreamFactory, clog_bytes: int) -> None:
    """Senders wait for a slow receiver, who then gets every byte."""
    near, far = await factory()
    async with Closing(near, far), TaskGroup() as group:
        sent: list[int] = []

        async def send() -> None:
            await _clog(near, clog_bytes)
            sent.append(clog_bytes)
            await near.send_eof()

        group.start_soon(send)
        await wait_all_idle()
        expect(not sent, f"{clog_bytes} bytes were sent, and nobody had received one")
        got = 0
        while chunk := await far.recv():
            got += len(chunk)
        expect(got == clog_bytes, f"{got} of {clog_bytes} bytes arrived")


async def _cancelled_send_says_how_much(factory: StreamFactory, clog_bytes: int) -> None:
    """After a cancelled `send_all` the peer gets a beginning of it, and what is sent next."""
    near, far = await factory()
    async with Closing(near, far):
        data = pattern(5, clog_bytes)
        with move_on_after(0.01) as scope:
            await near.send_all(data)
        expect(scope.cancelled_caught, f"{clog_bytes} bytes were sent, and nobody received any")
        got = bytearray()
        async with TaskGroup() as group:
            group.start_soon(near.send_eof)
            while chunk := await far.recv():
                got += chunk
        expect(len(got) < len(data), "all of a send that was cancelled arrived")
        expect(bytes(got) == data[: len(got)], "other bytes arrived than were being sent")


_BEHAVIOURS: Final = [
    _carries_bytes,
    _takes_any_bytes,
    _gives_at_most,
    _ends,
    _ends_by_closing,
    _closes,
    _closing_ends_recv,
    _one_reader,
    _cancelled_recv_loses_nothing,
    _cancelled_before,
    _sending_to_nobody,
]
_CLOGGED: Final = [
    _closing_ends_send,
    _one_writer,
    _waits_for_receiver,
    _cancelled_send_says_how_much,
]
