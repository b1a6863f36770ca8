"""
Tests by pytest-asyncio on uringio's loop.

    pytest examples/asyncio/testing_with_pytest
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

import uringio.aio


@pytest_asyncio.fixture
async def port() -> AsyncIterator[int]:
    """Serve an echo for as long as a test runs."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.asyncio
async def test_what_is_said_comes_back(port: int) -> None:
    assert isinstance(asyncio.get_running_loop(), uringio.aio.EventLoop)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello\n")
    assert await reader.readline() == b"hello\n"
    writer.close()
    await writer.wait_closed()
