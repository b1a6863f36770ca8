"""Servers for a while."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.aio.waiting import until

__all__ = ["LARGE", "listening"]

LARGE = bytes(range(256)) * 4096 * 16  # 16 MiB in which every shift shows


@asynccontextmanager
async def listening(
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    **options: Any,
) -> AsyncIterator[tuple[asyncio.Server, Any]]:
    """Serve on a loopback port, by `create_server`; yields the server and where it listens."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol_factory, "127.0.0.1", 0, **options)
    try:
        yield server, server.sockets[0].getsockname()
    except BaseException:
        server.close_clients()  # type: ignore[attr-defined]  # or what failed would never be told
        raise
    finally:
        server.close()
        await server.wait_closed()
        # Before Python 3.12 it does not wait for connections.
        await until(lambda: not server._clients)  # type: ignore[attr-defined]
