"""
A small ASGI application on uvicorn, on the loop and with the HTTP parser that are named.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

import uvicorn
from _entry import HOST, announce, arguments

BODY = b"Hello, world!\n"
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", str(len(BODY)).encode())],
}
_REST = {"type": "http.response.body", "body": BODY}


async def application(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """
    Answer every request alike.
    """
    await send(_START)
    await send(_REST)


def _factory(loop: str, backend: str | None) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if loop == "uringio":
        import uringio.aio

        return partial(uringio.aio.new_event_loop, backend=backend or "auto")
    if loop == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return None  # the standard library's


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--loop", required=True)
    parser.add_argument("--http", choices=("h11", "httptools"), required=True)
    return parser


options = arguments(_parser())
server = uvicorn.Server(
    uvicorn.Config(
        application,
        http=options.http,
        loop="asyncio",  # it is made below
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="error",
    )
)
with (
    # By its protocol's number, as loops make them: asyncio's turns Nagle's algorithm off only then.
    socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening,
    asyncio.Runner(loop_factory=_factory(options.loop, options.backend)) as runner,
):
    listening.bind((HOST, 0))
    listening.listen(1024)
    announce(listening.getsockname()[1])
    runner.run(server.serve(sockets=[listening]))
