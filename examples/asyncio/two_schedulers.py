#!/usr/bin/env python3
"""
uringio's own streams and files, awaited in tasks of asyncio and in task groups of anyio.

Shows: that both kinds of call live in one task; a deadline of anyio's on a receive of ours.

    python examples/asyncio/two_schedulers.py FILE
"""

import argparse
import asyncio
import functools
import hashlib

import anyio

import uringio
import uringio.aio


async def serve(listener: uringio.Listener, path: str) -> None:
    """Send the file to whoever connects."""
    async with await listener.accept() as stream, await uringio.open_file(path) as file:
        while part := await file.read(65536):
            await stream.send_all(part)


async def main(path: str) -> None:
    async with (
        await uringio.listen_tcp("127.0.0.1", 0) as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(serve, listener, path)
        # A connection of asyncio's, to a server of uringio's.
        reader, writer = await asyncio.open_connection(*listener.local_address[:2])
        sha = hashlib.sha256(await reader.read())
        writer.close()
        await writer.wait_closed()
        print("sha256:", sha.hexdigest())
        with anyio.move_on_after(0.05) as scope:
            await listener.accept()
        print("nobody else came:", scope.cancelled_caught)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Send a file to oneself.")
    parser.add_argument("file")
    anyio.run(
        functools.partial(main, parser.parse_args().file),
        backend_options={"loop_factory": uringio.aio.new_event_loop},
    )
