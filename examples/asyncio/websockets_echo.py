#!/usr/bin/env python3
"""
A websocket server and its clients, by the websockets package.

Shows: a hundred connections in a TaskGroup, each with a conversation of its own.

    python examples/asyncio/websockets_echo.py [--serve] [--port 8765] [--tls CERTIFICATE KEY]
"""

import argparse
import asyncio
import contextlib
import signal
import ssl

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

import uringio.aio


async def echo(connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):  # a client may leave without its answer
        async for message in connection:
            await connection.send(message)


async def converse(url: str, name: int) -> int:
    """Say ten things, and count those that came back as they were said."""
    heard = 0
    async with connect(url) as connection:
        for number in range(10):
            said = f"client {name} says {number}"
            await connection.send(said)
            heard += await connection.recv() == said
    return heard


async def main() -> None:
    parser = argparse.ArgumentParser(description="websockets on uringio's loop.")
    parser.add_argument("--serve", action="store_true", help="serve until Ctrl-C")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"), default=None)
    options = parser.parse_args()
    context = None
    if options.tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*options.tls)
    async with serve(echo, options.host, options.port, ssl=context, backlog=2048) as server:
        host, port = next(iter(server.sockets)).getsockname()[:2]
        print(f"listening on {host} port {port}", flush=True)
        if options.serve:
            stop = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            await stop.wait()
            return
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(converse(f"ws://{host}:{port}", name)) for name in range(100)
            ]
        print("heard:", sum(task.result() for task in tasks))


if __name__ == "__main__":
    uringio.aio.run(main())
