"""
A program for the type checkers: what they must accept, and what they must refuse.

A line marked ``error`` is one that `mypy --strict` must complain about; see `test_types.py`.
"""

import asyncio
import logging
from collections.abc import Awaitable

import uringio
import uringio.aio
from uringio import Listener, SocketStream
from uringio.streams import Stream


async def echo(stream: SocketStream) -> None:
    async with stream:
        while data := await stream.recv():
            await stream.send_all(data)


async def greet(stream: Stream) -> bytes:
    await stream.send_all(b"hello")
    await stream.send_eof()
    answer = await stream.recv(100)
    await stream.aclose()
    return answer


def on_error(error: Exception, stream: SocketStream) -> None:
    logging.getLogger("program").warning("%r failed: %s", stream.remote_address, error.args)


async def main(port: int) -> bytes:
    listener: Listener = await uringio.listen_tcp("127.0.0.1", port, options=[(1, 2, 3)])
    accepting: Awaitable[SocketStream] = listener.accept()
    stream = await uringio.connect_tcp("::1", port)
    text: str = (await stream.recv_exactly(5)).decode()
    async for chunk in stream:
        text += chunk.decode()
    async for connection in listener:
        await greet(connection)
    await uringio.sleep(0.5)
    number: int = await uringio.offload(int, "5")
    with uringio.move_on_after(1) as scope:
        await listener.serve(echo, max_connections=number, on_error=on_error)
    if scope.cancelled_caught:
        async with uringio.TaskGroup() as group:
            group.start_soon(echo, await accepting)
    return text.encode()


async def wrong(stream: SocketStream, listener: Listener) -> None:
    await stream.send_all("text")  # error
    await stream.recv("5")  # error
    data: str = await stream.recv()  # error
    await listener.serve(main)  # error
    await listener.serve(echo, max_connections="many")  # error
    await uringio.connect_tcp(80, "localhost")  # error
    await uringio.sleep("1")  # error
    await uringio.offload(int, "5", wrong=5)  # error
    data_too: str = await uringio.offload(len, "5")  # error
    await stream.send_all((data + data_too).encode())


def run() -> None:
    result: bytes = uringio.run(main, 5)
    with asyncio.Runner(loop_factory=uringio.aio.new_event_loop) as runner:
        result += runner.run(main(5))
    uringio.run(main, "5")  # error
    uringio.run(main(5))  # error
