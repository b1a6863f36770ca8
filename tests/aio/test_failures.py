"""Protocols that fail: each costs its own connection, and is reported."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.aio.protocols import Diary, Echo
from tests.aio.serving import LARGE, listening


@pytest.mark.parametrize("method", ["data_received", "eof_received"])
def test_failing_protocol_ends_its_connection_only(
    make_loop: Callable[[], asyncio.AbstractEventLoop], method: str
) -> None:
    """An exception out of a protocol is reported, ends that connection, and no other."""
    reports: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context))
        servants: list[Diary] = []

        class Failing(Echo):
            pass

        def fail(*_: object) -> None:
            raise ValueError("on purpose")

        def factory() -> Diary:
            servants.append(Echo() if servants else Failing())
            if isinstance(servants[-1], Failing):
                setattr(servants[-1], method, fail)
            return servants[-1]

        async with listening(factory) as (_, address):
            first, client = await loop.create_connection(Diary, *address)
            second, other = await loop.create_connection(Diary, *address)
            first.write(b"data")
            first.write_eof()
            await client.lost
            assert isinstance(servants[0].error, ValueError)
            second.write(b"still here")
            assert await other.until_received(10) == b"still here"
            second.close()
            await other.lost

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())
    assert len(reports) == 1
    assert isinstance(reports[0]["exception"], ValueError)
    assert method in reports[0]["message"]


def test_failures_of_notices_are_reported(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """connection_made, pause_writing, resume_writing and connection_lost may fail; life goes on."""
    reports: list[str] = []

    class Clumsy(Diary):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            raise ValueError("made")

        def pause_writing(self) -> None:
            raise ValueError("pause")

        def resume_writing(self) -> None:
            raise ValueError("resume")

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            raise ValueError("lost")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(str(context["exception"])))
        async with listening(Echo) as (_, address):
            transport, client = await loop.create_connection(Clumsy, *address)
            transport.write(LARGE)
            assert await client.until_received(len(LARGE)) == LARGE
            transport.close()
            await client.lost

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())
    assert reports == ["made", "pause", "resume", "lost"]


def test_failing_factory_costs_one_connection(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A protocol factory that raises closes that connection; the server goes on."""
    reports: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(str(context["exception"])))
        made: list[int] = []

        def factory() -> Echo:
            made.append(1)
            if len(made) == 1:
                raise ValueError("no protocol today")
            return Echo()

        async with listening(factory) as (_, address):
            _, unlucky = await loop.create_connection(Diary, *address)
            await unlucky.lost
            transport, client = await loop.create_connection(Diary, *address)
            transport.write(b"ok")
            await client.until_received(2)
            transport.close()
            await client.lost

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())
    assert reports == ["no protocol today"]
