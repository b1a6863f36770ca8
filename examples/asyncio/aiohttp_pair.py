#!/usr/bin/env python3
"""
aiohttp's server and its client, talking to each other on one loop.

Shows: a web application and the requests to it, with a websocket, in one program.

    python examples/asyncio/aiohttp_pair.py [--serve] [--port 8080] [--tls CERTIFICATE KEY]
"""

import argparse
import asyncio
import hashlib
import signal
import ssl

from aiohttp import ClientSession, WSMsgType, web

import uringio.aio


async def digest(request: web.Request) -> web.Response:
    sha = hashlib.sha256()
    size = 0
    async for part in request.content.iter_chunked(65536):
        sha.update(part)
        size += len(part)
    return web.json_response({"bytes": size, "sha256": sha.hexdigest()})


async def wait(request: web.Request) -> web.Response:
    milliseconds = int(request.match_info["milliseconds"])
    await asyncio.sleep(milliseconds / 1000)
    return web.json_response({"waited": milliseconds})


async def echo(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    async for message in websocket:
        if message.type is WSMsgType.TEXT:
            await websocket.send_str(message.data)
    return websocket


def application() -> web.Application:
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/digest", digest)
    app.router.add_get("/wait/{milliseconds}", wait)
    app.router.add_get("/echo", echo)
    return app


async def talk(url: str) -> None:
    """Make a request of each kind."""
    async with ClientSession() as session:
        async with session.post(f"{url}/digest", data=b"uringio") as response:
            print("digest:", (await response.json())["sha256"][:16])
        async with session.ws_connect(f"{url}/echo") as websocket:
            await websocket.send_str("hello")
            print("echo:", (await websocket.receive()).data)


async def main() -> None:
    parser = argparse.ArgumentParser(description="aiohttp on uringio's loop.")
    parser.add_argument("--serve", action="store_true", help="serve until Ctrl-C")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"), default=None)
    options = parser.parse_args()
    context = None
    if options.tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*options.tls)
    runner = web.AppRunner(application(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, options.host, options.port, ssl_context=context, backlog=2048)
        await site.start()
        host, port = runner.addresses[0][:2]
        print(f"listening on {host} port {port}", flush=True)
        if options.serve:
            stop = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            await stop.wait()
        else:
            await talk(f"http://{host}:{port}")
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    uringio.aio.run(main())
