#!/usr/bin/env python3
"""
The application of web.py, served by hypercorn: HTTP/1.1 and, over TLS, HTTP/2.

Shows: another server, and many requests at a time on one TLS connection.

    python examples/asyncio/hypercorn_h2.py [--port 8443] --tls CERTIFICATE KEY
"""

import argparse
import asyncio
import signal
import socket

from hypercorn.asyncio import serve
from hypercorn.config import Config
from web import app

import uringio.aio


async def main() -> None:
    parser = argparse.ArgumentParser(description="Serve web.py's application over HTTP/2.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8443, help="0: any that is free")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"), default=(None, None))
    options = parser.parse_args()
    config = Config()
    config.certfile, config.keyfile = options.tls
    config.loglevel = "WARNING"
    config.graceful_timeout = 5
    config.keep_alive_timeout = 60
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with socket.create_server((options.host, options.port), backlog=2048) as listener:
        host, port = listener.getsockname()[:2]
        print(f"listening on {host} port {port}", flush=True)
        config.bind = [f"fd://{listener.detach()}"]  # hypercorn's from here on
        await serve(app, config, shutdown_trigger=stop.wait)


if __name__ == "__main__":
    uringio.aio.run(main())
