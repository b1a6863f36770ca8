"""Transports to hold against the contract suites: how to make a pair, and how to listen."""

import contextlib
import itertools
import os
from collections.abc import Awaitable, Callable

import uringio
from uringio import testing
from uringio.streams import Stream

Pair = tuple[Stream, Stream]
_names = itertools.count()


def abstract() -> bytes:
    """Name a Unix socket that leaves no file."""
    return b"\0uringio contract %d %d" % (os.getpid(), next(_names))


async def tcp_listener() -> tuple[testing.Accepting, testing.Connect]:
    listener = await uringio.listen_tcp("127.0.0.1", 0)
    host, port = listener.local_address[:2]
    return listener, lambda: uringio.connect_tcp(host, port)


async def unix_listener() -> tuple[testing.Accepting, testing.Connect]:
    path = abstract()
    listener = await uringio.listen_unix(path)
    return listener, lambda: uringio.connect_unix(path)


async def _pair_of(
    listen: Callable[[], Awaitable[tuple[testing.Accepting, testing.Connect]]],
) -> Pair:
    listener, connect = await listen()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(listener.aclose)
        return await connect(), await listener.accept()


async def tcp_pair() -> Pair:
    return await _pair_of(tcp_listener)


async def unix_pair() -> Pair:
    return await _pair_of(unix_listener)


async def memory_pair() -> Pair:
    return testing.memory_stream_pair()


async def small_memory_pair() -> Pair:
    return testing.memory_stream_pair(3)


LISTENERS = {"tcp": tcp_listener, "unix": unix_listener}
PAIRS = {"tcp": tcp_pair, "unix": unix_pair}
