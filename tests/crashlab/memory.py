"""Programs that are careless with memory that the kernel has."""

import array
import contextlib
import gc
import mmap
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

import uringio
from tests.surface.pairs import PEER_S, connected, receive_all, with_peer
from uringio import Buffer, BufferPool, SocketStream
from uringio.errors import BorrowedError, UsageError

from .lab import POISON, Lab, Wrong, endured, numbered, program, refusals, same

T = TypeVar("T")


def some_receive(lab: Lab, stream: SocketStream, pool: BufferPool) -> Awaitable[object]:
    """Receive in one of the ways there are, into memory that nobody else will have."""
    size = lab.rng.choice((1, 48, 160, 4096, 70_000))
    ways: list[Callable[[], Awaitable[object]]] = [
        lambda: stream.recv(size),
        lambda: stream.recv_into(bytearray(size)),
        lambda: stream.recv_into(memoryview(array.array("q", bytes(size * 8)))),
        lambda: stream.recv_into(Buffer(size)),
        lambda: stream.recv_into(pool.allocate(size) or Buffer(size)),
        lambda: stream.recvmsg(size),
        lambda: stream.recvmsg_into([bytearray(size), bytearray(3)]),
        lambda: stream.recv_exactly(size),
        stream.recv_lease,
    ]
    return lab.rng.choice(ways)()


@program
def memory_dropped_in_flight(lab: Lab) -> None:
    """Tasks, streams and memory are let go with receives in flight; the peers go on sending."""
    rng = lab.rng

    async def receive(stream: SocketStream) -> None:
        await endured(some_receive, lab, stream, pool)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            pairs = [
                await stack.enter_async_context(with_peer()) for _ in range(rng.randint(3, 25))
            ]
            tasks = [lab.spawn(receive, stream) for stream, _ in pairs]
            await lab.passes(0, 3)
            for task in rng.sample(tasks, len(tasks)):
                if lab.chance(0.6):
                    task.cancel()
                if lab.chance(0.2):
                    await lab.passes(0, 1)
            tasks.clear()
            for stream, peer in rng.sample(pairs, len(pairs)):
                if lab.chance(0.3):
                    peer.send(bytes([POISON]) * 5000)
                if lab.chance(0.2):
                    await endured(stream.aclose)
            lab.plant(300)
            if lab.chance(0.5):
                gc.collect()
            for _, peer in pairs:
                with contextlib.suppress(OSError):
                    peer.send(bytes([POISON]) * rng.randint(1, 20_000))
            await lab.passes(1, 5)
            lab.inspect()
            if lab.chance(0.5):
                stack.pop_all()  # and nobody closes anything

    pool = BufferPool(1 << 20)
    lab.run(main)
    gc.collect()
    lab.plant(200)
    if pool.stats().out_count:
        gc.collect()
        if pool.stats().out_count:
            raise Wrong(f"buffers that nobody has are still out: {pool.stats()}")
    lab.verdict()


@program
def memory_resized_in_flight(lab: Lab) -> None:
    """Lent memory is resized, cleared and closed while the kernel fills it or sends it."""
    rng = lab.rng

    def meddle(target: bytearray, *, is_lent: bool) -> None:
        with contextlib.suppress(BufferError):
            rng.choice(
                (
                    lambda: target.extend(bytes(rng.choice((1, 100, 1 << 20)))),
                    target.clear,
                    target.pop,
                    lambda: target.__delitem__(slice(0, 10)),
                    lambda: target.__iadd__(b"xyz" * 1000),
                )
            )()
            if is_lent:
                raise Wrong("memory that the kernel has could be resized")

    async def main() -> None:
        async with connected() as (near, far):
            position = 0
            for _ in range(rng.randint(5, 40)):
                target = bytearray(rng.choice((1, 100, 5000)))
                mapped = mmap.mmap(-1, 4096)
                use_map = lab.chance(0.3)
                memory = memoryview(mapped) if use_map else target
                task = lab.spawn(_count, near, memory)
                await lab.passes(1, 2)
                if use_map:
                    with contextlib.suppress(BufferError):
                        mapped.close()
                        raise Wrong("a mapping that the kernel has could be closed")
                else:
                    meddle(target, is_lent=True)
                if lab.chance(0.3):
                    task.cancel()
                    await lab.passes(0, 2)
                lab.plant(20)
                size = rng.randint(1, 3000)
                data = bytearray(numbered(position, size))
                sender = lab.spawn(lambda data=data: far.send_all(data))
                await lab.passes(1, 2)  # it has begun: what it sends may not change any more
                if not sender.ended:
                    meddle(data, is_lent=False)  # the kernel may have taken it all
                await sender.wait()
                count = 0 if (await task.wait()).cancelled else await task.result()
                got = bytes(memory[:count])
                same(got, numbered(position, count), "received")
                rest = await near.recv_exactly(size - count)
                same(rest, numbered(position + count, size - count), "the rest")
                position += size
                memory = memory[:0] if isinstance(memory, memoryview) else memory
                task = None
                target.clear()

    async def _count(stream: SocketStream, memory: bytearray | memoryview) -> int:
        return await stream.recv_into(memory)

    lab.run(main)
    lab.verdict()


@program
def immutable_memory_offered(lab: Lab) -> None:
    """Memory that must never change is offered to whatever writes into memory."""
    rng = lab.rng
    constant = b"this is a constant of the program" + bytes([rng.randrange(256)])
    copy = bytes(bytearray(constant))

    async def main() -> None:
        folder = tempfile.TemporaryDirectory()
        with folder:
            path = os.path.join(folder.name, "file")
            with open(path, "wb") as plain:
                plain.write(bytes([POISON]) * 5000)
            async with connected() as (near, far), await uringio.open_file(path) as file:
                await far.send_all(bytes([POISON]) * 100)
                fixed = memoryview(array.array("i", range(50))).toreadonly()
                for _ in range(rng.randint(5, 30)):
                    target: object = rng.choice((constant, memoryview(constant), fixed, "text", 5))
                    call: Callable[[object], Awaitable[object]] = rng.choice(
                        (
                            near.recv_into,
                            lambda one: near.recvmsg_into([one]),
                            lambda one: file.read_into_at(0, one),
                            lambda one: file.readv_at(0, [bytearray(5), one]),
                        )
                    )
                    try:
                        await call(target)
                    except (TypeError, ValueError, UsageError, AttributeError):
                        continue
                    raise Wrong(f"{target!r} was taken as memory to write")
                same(await near.recv_exactly(100), bytes([POISON]) * 100, "what was sent")

    lab.run(main)
    same(constant, copy, "a constant")
    lab.verdict()


@program
def handles_used_when_stale(lab: Lab) -> None:
    """Buffers of a pool are released twice, used when moved, viewed, dropped: none aliases."""
    rng = lab.rng
    pool = BufferPool(2 << 20, (4096, 16384))
    live: dict[int, tuple[Buffer, int]] = {}
    stale: list[Buffer] = []

    def use_stale() -> None:
        if not stale:
            return
        handle = rng.choice(stale)
        try:
            rng.choice(
                (
                    handle.release,
                    handle.read,
                    lambda: handle.write(b"not mine"),
                    lambda: handle.view().__enter__(),
                    lambda: pool.release(handle),
                )
            )()
        except UsageError:
            return
        raise Wrong("a stale handle opened memory")

    async def main() -> None:
        async with connected() as (near, far):
            for number in range(rng.randint(50, 300)):
                match rng.randrange(6):
                    case 0 | 1:
                        buffer = pool.allocate(rng.choice((1, 100, 4096, 9000)))
                        if buffer is not None:
                            mark = number % 251
                            buffer.write(bytes([mark]) * buffer.size)
                            live[number] = (buffer, mark)
                    case 2 if live:
                        buffer, _ = live.pop(rng.choice(list(live)))
                        if lab.chance(0.8):
                            buffer.release()
                            stale.append(buffer)
                        del buffer  # else it is forgotten
                    case 3 if live:
                        key = rng.choice(list(live))
                        buffer, mark = live[key]
                        _, fresh = await near.send_buffer(buffer, 0, 1)
                        count, got = await far.recv_into(fresh, 0, 1)
                        same(got.read(0, count), bytes([mark]), "what was sent")
                        live[key] = (got, mark)
                        stale.extend((buffer, fresh))
                    case 4 if live:
                        buffer, _ = live[rng.choice(list(live))]
                        with buffer.view() as view:
                            for misuse in (buffer.release, lambda: near.send_buffer(buffer)):
                                with contextlib.suppress(BorrowedError):
                                    misuse()
                                    raise Wrong("a viewed buffer was given up")
                            assert len(view) == buffer.size
                    case _:
                        use_stale()
                for buffer, mark in live.values():
                    if lab.chance(0.1) and buffer.read().count(mark) != buffer.size:
                        raise Wrong("two owners of one buffer")
                buffer = None

    lab.run(main)
    live.clear()
    stale.clear()
    gc.collect()
    if pool.stats().out_count:
        raise Wrong(f"buffers are lost: {pool.stats()}")
    lab.verdict()


@program
def collector_storm(lab: Lab) -> None:
    """The garbage collector runs at every allocation, over cycles of handles, tasks and memory."""
    rng = lab.rng
    gc.set_threshold(rng.choice((1, 2, 7, 50)))

    class Knot:
        def __init__(self, *things: object) -> None:
            self.things = things
            self.itself = self

    async def converse(near: SocketStream, far: SocketStream) -> None:
        pool = BufferPool(1 << 20)
        position = 0
        for _ in range(rng.randint(3, 10)):
            size = rng.randint(1, 3000)
            data = bytearray(numbered(position, size))
            receiving = near.recv_exactly(size)
            Knot(receiving, near, far, data, pool.allocate(100))
            await far.send_all(data)
            same(await receiving, numbered(position, size), "received")
            position += size

    async def main() -> None:
        async with AsyncExitStack() as stack:
            tasks = []
            for _ in range(rng.randint(1, 5)):
                near, far = await stack.enter_async_context(connected())
                tasks.append(lab.spawn(converse, near, far))
            for _ in range(rng.randint(1, 5)):  # knots of streams that nobody else has
                stream = await uringio.connect_tcp(*server.getsockname())
                Knot(stream, lab.spawn(endured, stream.recv))
                Knot(await uringio.listen_tcp("127.0.0.1", 0), Buffer(10).view())
            for task in tasks:
                await task.result()

    with refusals(), socket.create_server(("127.0.0.1", 0)) as server:
        lab.run(main)
    gc.set_threshold(700, 10, 10)
    gc.collect()
    lab.verdict()


@program
def files_changed_underneath(lab: Lab) -> None:
    """Files are cut, closed and read with buffers at the same time; buffers are cancelled away."""
    rng = lab.rng

    async def main(path: str) -> None:
        content = numbered(0, 100_000)
        with open(path, "wb") as plain:
            plain.write(content)
        pool = BufferPool(4 << 20)
        file = await uringio.open_file(path, "r+b")

        async def read() -> None:
            offset, size = rng.randrange(100_000), rng.choice((100, 4096, 60_000))
            buffer = pool.allocate(size)
            if buffer is None:
                return
            done = await endured(file.read_into, buffer, offset)
            if done is not None:
                count, buffer = done
                got = buffer.read(0, count)
                expected = content[offset : offset + count]
                if any(one not in (0, other) for one, other in zip(got, expected, strict=True)):
                    raise Wrong("a file's bytes are not its own")
            if lab.chance(0.7):
                with refusals():
                    buffer.release()

        async def write() -> None:
            offset = rng.randrange(0, 90_000, 4)
            buffer = Buffer.holding(content[offset : offset + rng.randint(1, 5000)])
            await endured(file.write_from, buffer, offset)

        async def cut() -> None:
            await endured(file.truncate, rng.choice((0, 5000, 100_000)))

        tasks = []
        for _ in range(rng.randint(10, 80)):
            tasks.append(lab.spawn(rng.choice((read, read, write, cut))))
            if lab.chance(0.3):
                await lab.passes(0, 2)
            if lab.chance(0.3):
                rng.choice(tasks).cancel()
            if lab.chance(0.05):
                os.truncate(path, rng.randrange(100_000))
            if lab.chance(0.02):
                await endured(file.aclose)
                lab.plant(50)
        for task in tasks:
            await task.wait()
            if isinstance(task.error, Wrong):
                raise task.error
        await endured(file.aclose)
        tasks.clear()
        del task
        gc.collect()
        if pool.stats().out_count:
            raise Wrong(f"buffers are lost: {pool.stats()}")

    with tempfile.TemporaryDirectory() as folder:
        lab.run(main, os.path.join(folder, "file"))
    lab.verdict()


@program
def sends_changed_their_minds(lab: Lab) -> None:
    """Large sends are cancelled, memory reused at once, and the count of what left is believed."""
    rng = lab.rng

    async def main() -> None:
        async with with_peer(4608) as (stream, peer):
            sent = 0
            received = bytearray()
            peer.setblocking(False)
            for _ in range(rng.randint(3, 15)):
                size = rng.choice((10, 5000, 300_000))
                data: bytearray | Buffer = bytearray(numbered(sent, size))
                if lab.chance(0.4):
                    data = Buffer.holding(data)
                send: Callable[..., Awaitable[object]] = stream.send_all
                if isinstance(data, Buffer):
                    send = stream.send_buffer
                task = lab.spawn(_wait, send, data)
                for _ in range(rng.randint(0, 3)):
                    await lab.passes(0, 2)
                    with contextlib.suppress(BlockingIOError):
                        received += peer.recv(rng.choice((1, 5000, 1 << 20)))
                task.cancel()
                await task.wait()
                sent += size if task.error is None else getattr(task.error, "done", 0)
                if isinstance(data, bytearray):
                    data[:] = bytes([POISON]) * len(data)
                    data.clear()
                elif task.error is not None:
                    data.write(bytes([POISON]) * data.size)
                lab.plant(10)
            await stream.send_eof()
            peer.settimeout(PEER_S)
            received += receive_all(peer)
            same(bytes(received), numbered(0, sent), "what the peer got")

    async def _wait(call: Callable[[T], Awaitable[object]], data: T) -> object:
        return await call(data)

    lab.run(main)
    lab.verdict()


@program
def leases_kept_and_dropped(lab: Lab) -> None:
    """Leases are kept for long, sliced, dropped, released twice, and outlive stream and loop."""
    rng = lab.rng
    kept: list[tuple[memoryview, bytes]] = []

    def inspect() -> None:
        for view, expected in kept:
            same(bytes(view), expected, "a lease")

    async def main() -> None:
        async with AsyncExitStack() as stack:
            pairs = [await stack.enter_async_context(connected()) for _ in range(rng.randint(1, 4))]
            positions = [0] * len(pairs)
            for _ in range(rng.randint(20, 200)):
                which = rng.randrange(len(pairs))
                near, far = pairs[which]
                data = numbered(positions[which], rng.randint(1, 3000))
                positions[which] += len(data)
                await far.send_all(data)
                got = b""
                while len(got) < len(data):
                    if lab.chance(0.3):
                        task = lab.spawn(endured, near.recv_lease)
                        await lab.passes(0, 2)
                        task.cancel()
                        await task.wait()
                        if task.error is None:
                            view = await task.result()
                            got += bytes(view or b"")
                            del view
                        del task
                        continue
                    while len(kept) > 40:  # else the stream waits for what we hold
                        kept.pop(rng.randrange(len(kept)))
                    view = await near.recv_lease()
                    piece = bytes(view)
                    got += piece
                    half = view[: len(view) // 2]
                    match rng.randrange(4):
                        case 0:
                            half.release()
                            view.release()
                            view.release()
                        case 1:
                            kept.append((half, piece[: len(piece) // 2]))
                        case 2:
                            kept.append((view, piece))
                    del view, half
                same(got, data, "leased")
                if lab.chance(0.1):
                    kept.clear()
                if lab.chance(0.1):
                    inspect()
            if lab.chance(0.5):
                stack.pop_all()

    lab.run(main)
    lab.plant(100)
    inspect()
    kept.clear()
    gc.collect()
    lab.verdict()


@program
def buffers_sent_without_a_copy(lab: Lab) -> None:
    """Zero-copy sends to peers that stall, leave and reset, cancelled, closed, memory reused."""
    rng = lab.rng

    async def main() -> None:
        pool = BufferPool(16 << 20)
        for _ in range(rng.randint(1, 6)):
            async with with_peer(rng.choice((None, 4608))) as (stream, peer):
                sent = 0
                is_whole = True
                received = bytearray()
                peer.setblocking(False)
                for _ in range(rng.randint(1, 8)):
                    size = rng.choice((1, 5000, 300_000, 1 << 20))
                    buffer = pool.allocate(size) or Buffer(size)
                    buffer.write(numbered(sent, size))
                    task = lab.spawn(_send, stream, buffer)
                    for _ in range(rng.randint(1, 6)):
                        await lab.passes(0, 2)
                        with contextlib.suppress(BlockingIOError):
                            received += peer.recv(rng.choice((5000, 1 << 20)))
                    if lab.chance(0.3):
                        task.cancel()
                        is_whole = False
                    elif lab.chance(0.1):
                        await endured(stream.aclose)
                        is_whole = False
                    while is_whole and not task.ended:
                        await uringio.sleep(0.0005)
                        with contextlib.suppress(BlockingIOError):
                            received += peer.recv(1 << 20)
                    await task.wait()
                    with refusals():
                        buffer.write(bytes([POISON]) * size)
                    del buffer
                    sent += size
                    if not is_whole:
                        break
                if is_whole:
                    await stream.send_eof()
                    peer.settimeout(PEER_S)
                    received += receive_all(peer)
                    same(bytes(received), numbered(0, sent), "what the peer got")
                else:
                    with contextlib.suppress(BlockingIOError, ConnectionResetError):
                        while piece := peer.recv(1 << 20):
                            received += piece
                    same(bytes(received), numbered(0, len(received)), "what the peer got")
        del task
        gc.collect()

    async def _send(stream: SocketStream, buffer: Buffer) -> None:
        await endured(lambda: stream.send_buffer(buffer, zero_copy=lab.chance(0.8)))

    lab.run(main)
    lab.verdict()
