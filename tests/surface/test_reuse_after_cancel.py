"""An operation that was cancelled before it began leaves the next one on its handle alone."""

import uringio
from tests.surface.pairs import connected
from uringio import SocketStream


def test_the_next_reader_gets_its_bytes(backend: str) -> None:
    """
    A task cancelled at the very await, and another that receives in the same pass.

    Streams and listeners use one op object again and again.  The first task hears of its
    cancellation when the second one's outcome is there already; that outcome is not the first's.
    """

    async def main() -> list[object]:
        got: list[object] = []

        async def cancelled(stream: SocketStream) -> None:
            with uringio.CancelScope() as scope:
                scope.cancel()
                got.append(await stream.recv())

        async def receive(stream: SocketStream) -> None:
            got.append(await stream.recv())

        async with connected() as (near, far):
            await far.send_all(b"data")
            await uringio.net.wait_readable(near)
            async with uringio.TaskGroup() as group:
                group.start_soon(cancelled, near)
                group.start_soon(receive, near)
        return got

    assert uringio.run(main, backend=backend) == [b"data"]


def test_the_next_acceptor_gets_its_connection(backend: str) -> None:
    """The same with a listener, where the connection would have been closed."""

    async def main() -> int:
        accepted: list[SocketStream] = []

        async def cancelled(listener: uringio.Listener) -> None:
            with uringio.CancelScope() as scope:
                scope.cancel()
                accepted.append(await listener.accept())

        async def accept(listener: uringio.Listener) -> None:
            accepted.append(await listener.accept())

        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            client = await uringio.connect_tcp("127.0.0.1", listener.local_address[1])
            await uringio.net.wait_readable(listener)
            async with uringio.TaskGroup() as group:
                group.start_soon(cancelled, listener)
                group.start_soon(accept, listener)
            async with client, accepted[0]:
                await client.send_all(b"x")
                assert await accepted[0].recv() == b"x"
        return len(accepted)

    assert uringio.run(main, backend=backend) == 1
