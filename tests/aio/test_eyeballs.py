"""Connecting to names with several addresses, one after another and beside each other."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from tests.aio.conftest import Run
from tests.aio.protocols import Diary, Echo
from tests.aio.serving import listening
from tests.surface.holes import holes
from tests.surface.pairs import deserted
from uringio.aio.connecting import interleaved

# Longer than any test may take: the next attempt never begins for want of patience.
NEVER_SECONDS = 1e6


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: Sequence[object]) -> None:
    """Have the running loop resolve every name to *addresses*."""

    async def getaddrinfo(*_args: object, **_kwargs: object) -> list[object]:
        return [
            (socket.AF_INET if len(one) == 2 else socket.AF_INET6, socket.SOCK_STREAM, 6, "", one)
            for one in addresses
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)


def test_an_address_that_does_not_answer_holds_nobody_up(
    run: Run[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second address is tried beside the first, which is given up when it has answered."""

    async def main() -> None:
        with holes("127.0.0.2") as [hole]:
            async with listening(Diary) as (_server, address):
                resolve_to(monkeypatch, hole.address, address)
                transport, protocol = await asyncio.get_running_loop().create_connection(
                    Diary, "two.invalid", 80, happy_eyeballs_delay=0.001
                )
                assert transport.get_extra_info("peername") == address
                transport.close()
                await protocol.lost

    run(main())


def test_a_refusal_starts_the_next_attempt_at_once(
    run: Run[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the delay when an address has said no."""

    async def main() -> None:
        with deserted() as one, deserted() as two:
            async with listening(Diary) as (_server, address):
                resolve_to(monkeypatch, one, two, address)
                transport, protocol = await asyncio.get_running_loop().create_connection(
                    Diary, "three.invalid", 80, happy_eyeballs_delay=NEVER_SECONDS
                )
                assert transport.get_extra_info("peername") == address
                transport.close()
                await protocol.lost

    run(main())


@pytest.mark.parametrize("delay", [None, 0.001])
def test_failures_of_all_addresses(
    run: Run[None], monkeypatch: pytest.MonkeyPatch, delay: float | None
) -> None:
    """Every address's failure is told, in one error or in a group of all."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with deserted() as one, deserted() as two:
            resolve_to(monkeypatch, one, two)
            with pytest.raises(ConnectionRefusedError) as caught:
                await loop.create_connection(Diary, "two.invalid", 80, happy_eyeballs_delay=delay)
            if str(caught.value).startswith("[Errno 111] Multiple exceptions"):
                assert str(caught.value).count("refused") == 2
            with pytest.raises(ExceptionGroup) as group:
                await loop.create_connection(
                    Diary, "two.invalid", 80, happy_eyeballs_delay=delay, all_errors=True
                )
            notes = [error.__notes__ for error in group.value.exceptions]
            assert notes == [[f"while connecting to {address!r}"] for address in (one, two)]

    run(main())


def test_cancelled_race_leaves_nothing(run: Run[None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives up on silent addresses leaves no socket, to which the leak check sees."""

    async def main() -> None:
        with holes("127.0.0.2", "127.0.0.3") as silent:
            resolve_to(monkeypatch, *(hole.address for hole in silent))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await asyncio.get_running_loop().create_connection(
                        Diary, "two.invalid", 80, happy_eyeballs_delay=0.001
                    )

    run(main())


def test_another_sock_connect_is_what_connects(run: Run[None]) -> None:
    """What a program puts in the place of the loop's sock_connect gets the socket to connect."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        original = loop.sock_connect
        asked: list[object] = []

        async def instead(sock: socket.socket, address: object) -> None:
            asked.append(address)
            await original(sock, where)

        def refuse(_sock: socket.socket, _address: object) -> None:
            raise OSError("no network in this test")

        async with listening(Echo) as (_server, where):
            loop.sock_connect = instead
            transport, protocol = await loop.create_connection(Diary, "192.0.2.1", 80)
            assert asked == [("192.0.2.1", 80)]
            transport.write(b"hello")
            assert await protocol.until_received(5) == b"hello"
            transport.close()
            await protocol.lost

            loop.sock_connect = refuse
            with pytest.raises(OSError, match="no network"):
                await loop.create_connection(Diary, "192.0.2.1", 80)
        del loop.sock_connect  # a circle otherwise

    run(main())


def test_families_take_turns() -> None:
    """After so many of the first family each family has one address at a time."""

    def info(family: int, number: int) -> tuple[int, int, int, object]:
        return family, 1, 6, number

    infos = [info(6, 1), info(6, 2), info(6, 3), info(4, 4), info(4, 5)]
    assert [one[3] for one in interleaved(infos, 1)] == [1, 4, 2, 5, 3]
    assert [one[3] for one in interleaved(infos, 3)] == [1, 2, 3, 4, 5]
    assert [one[3] for one in interleaved(infos, 2)] == [1, 2, 4, 3, 5]
    assert interleaved([], 1) == []
