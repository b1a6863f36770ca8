"""Writing twice for each request, as HTTP servers do, costs one call of send(2)."""

import asyncio
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tests.aio.conftest import Run
from tests.aio.protocols import Diary
from tests.aio.serving import listening
from tests.surface.pairs import receive_all
from uringio._sys.system import System
from uringio.aio import writing


class Server(Diary):
    """
    Answers each piece by two writes.

    Attributes:
        writes_once: Or by one.
        unsent: How many bytes waited behind each of those.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writes_once = False
        self.unsent: list[int] = []

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.writes_once:
            self.transport.write(b"head,")
        self.transport.write(data + b";")
        if self.writes_once:
            self.unsent.append(self.transport.get_write_buffer_size())


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the size of whatever a transport sends on the spot."""
    noted: list[int] = []
    sender = System.sender

    def noting(system: System, fd: int) -> Callable[[bytes, int], int] | None:
        send = sender(system, fd)
        if send is None:
            return None

        def send_and_note(data: bytes, flags: int) -> int:
            count = send(data, flags)
            noted.append(count)
            return count

        return send_and_note

    monkeypatch.setattr(System, "sender", noting)
    return noted


def test_two_writes_are_one_call(run: Run[None], sends: list[int]) -> None:
    """
    From the second request on head and body go together; a large piece goes by itself, behind
    what was gathered; and who writes once is soon taken at the word again.
    """

    async def main() -> None:
        servants: list[Server] = []

        def factory() -> Server:
            servants.append(Server())
            return servants[-1]

        async with listening(factory) as (_, address):
            with socket.create_connection(address) as peer:
                peer.setblocking(False)
                loop = asyncio.get_running_loop()

                async def exchange(request: bytes, size: int) -> bytes:
                    await loop.sock_sendall(peer, request)
                    got = b""
                    while len(got) < size:
                        got += await loop.sock_recv(peer, 1 << 20)
                    return got

                for number in range(10):
                    request = b"%d" % number
                    assert await exchange(request, 7) == b"head," + request + b";"
                assert sends == [5, 2] + [7] * 9
                large = b"x" * 20_000
                sends.clear()
                assert await exchange(large, 20_006) == b"head," + large + b";"
                assert sends == [5, 20_001]
                sends.clear()
                servants[0].transport.write(b"alone")
                assert await exchange(b"", 5) == b"alone"
                servants[0].writes_once = True
                for _ in range(20):
                    assert await exchange(b"ping", 5) == b"ping;"
                assert servants[0].unsent[0] == 5
                assert servants[0].unsent[-1] == 0
            await servants[0].lost

    run(main())


@pytest.mark.parametrize("end", ["close", "write_eof", "abort"])
def test_what_was_gathered_goes_before_the_end(run: Run[None], end: str) -> None:
    """Ending the connection right behind gathered writes loses none of them."""

    class Ending(Server):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if data == b"end":
                getattr(self.transport, end)()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Ending) as (_, address):
            with socket.create_connection(address) as peer:
                peer.setblocking(False)
                for request in (b"one", b"two", b"end"):
                    await loop.sock_sendall(peer, request)
                    got = b""
                    while len(got) < 9:
                        got += await loop.sock_recv(peer, 100)
                    assert got == b"head," + request + b";"
                assert await loop.sock_recv(peer, 100) == b""

    run(main())


def test_nothing_waits_for_a_pass_while_the_loop_is_at_rest(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """What is written between two runs of the loop goes at once, every piece of it."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(10)
        transport, client = loop.run_until_complete(loop.create_connection(Diary, sock=ours))
        for piece in (b"one", b"two", b"three"):
            transport.write(piece)
            assert theirs.recv(100) == piece
        transport.close()
        loop.run_until_complete(client.lost)


def test_what_a_signal_handler_writes_meanwhile(run: Run[None]) -> None:
    """Whatever step of sending what was gathered it interrupts, its bytes are sent, once."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server:
            index, struck = 0, True
            while struck:
                transport, client = await loop.create_connection(Diary, *server.getsockname())
                peer, _ = server.accept()
                transport.write(b"a")
                transport.write(b"b")
                struck = False
                left = index

                def moment(
                    frame: FrameType, event: str, _: object, transport: Any = transport
                ) -> None:
                    nonlocal left, struck
                    if event == "c_return" and frame.f_globals["__name__"] == writing.__name__:
                        left -= 1
                        if left < 0:
                            struck = True
                            sys.setprofile(None)
                            transport.write(b"c")

                before = sys.getprofile()
                sys.setprofile(moment)
                try:
                    transport.send_gathered()  # type: ignore[attr-defined]
                finally:
                    sys.setprofile(before)
                assert transport.get_write_buffer_size() >= 0
                await asyncio.sleep(0)
                transport.close()
                await client.lost
                with peer:
                    peer.settimeout(50)
                    assert sorted(receive_all(peer)) == sorted(b"abc" if struck else b"ab")
                index += 1
            assert index > 2

    run(main())
