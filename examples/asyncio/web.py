#!/usr/bin/env python3
"""
A FastAPI application, served by uvicorn on uringio's event loop.

Shows: that nothing of the application changes.  uvicorn's own command does the same:

    uvicorn --loop uringio.aio:new_event_loop web:app
    python examples/asyncio/web.py [--port 8000] [--http h11|httptools] [--tls CERTIFICATE KEY]
"""

import argparse
import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

app = FastAPI()


@app.get("/")
async def greet() -> dict[str, str]:
    return {"loop": type(asyncio.get_running_loop()).__module__}


@app.post("/digest")
async def digest(request: Request) -> dict[str, object]:
    """Hash a body as it arrives."""
    sha = hashlib.sha256()
    size = 0
    async for part in request.stream():
        sha.update(part)
        size += len(part)
    return {"bytes": size, "sha256": sha.hexdigest()}


@app.get("/count/{bound}")
async def count(bound: int) -> StreamingResponse:
    """Stream lines, one at a time."""

    async def lines() -> AsyncIterator[str]:
        for number in range(bound):
            yield f"{number}\n"
            await asyncio.sleep(0)

    return StreamingResponse(lines(), media_type="text/plain")


@app.get("/wait/{milliseconds}")
async def wait(milliseconds: int) -> dict[str, int]:
    await asyncio.sleep(milliseconds / 1000)
    return {"waited": milliseconds}


@app.get("/thread")
def in_a_thread() -> dict[str, str]:
    """Run where FastAPI runs what is not a coroutine: in a thread."""
    return {"from": "a thread"}


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):  # a client may leave without its answer
        async for text in websocket.iter_text():
            await websocket.send_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=app.__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    parser.add_argument("--http", choices=("auto", "h11", "httptools"), default="auto")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"), default=(None, None))
    options = parser.parse_args()
    certificate, key = options.tls
    config = uvicorn.Config(
        app,
        loop="uringio.aio:new_event_loop",
        http=options.http,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
    with socket.create_server((options.host, options.port), backlog=2048) as listener:
        host, port = listener.getsockname()[:2]
        print(f"listening on {host} port {port}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn has ended in good order by then
            uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
