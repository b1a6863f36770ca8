"""Programs that are careless with handles, operations and tasks."""

import asyncio
import contextlib
import functools
import gc
import logging
import os
import socket
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import uringio
from tests.surface.pairs import call, connected, with_peer
from uringio import Buffer, SocketStream
from uringio.errors import OpError, UringioError, UsageError
from uringio.lowlevel import nop

from .lab import POISON, Lab, Planted, Wrong, endured, numbered, program, refusals, same


@program
def receives_cancelled_at_random(lab: Lab) -> None:
    """Every kind of receive is cancelled at random moments; the stream stays byte-exact."""
    rng = lab.rng

    async def receive(stream: SocketStream, kind: int, size: int) -> bytes:
        match kind:
            case 0:
                return await stream.recv(size)
            case 1:
                count, buffer = await stream.recv_into(Buffer(size))
                return buffer.read(0, count)
            case 2:
                memory = bytearray(size)
                return bytes(memory[: await stream.recv_into(memory)])
            case 3:
                return await stream.recv_exactly(min(size, 20))
            case _:
                return (await stream.recvmsg(size)).data

    async def main() -> None:
        async with connected() as (near, far):
            sent = got = 0
            for _ in range(rng.randint(20, 150)):
                task = lab.spawn(receive, near, rng.randrange(5), rng.choice((1, 50, 5000)))
                await lab.passes(0, 2)
                if lab.chance(0.7):
                    size = rng.randint(1, 300)
                    await far.send_all(numbered(sent, size))
                    sent += size
                if lab.chance(0.5) or got == sent:
                    task.cancel()
                elif not task.ended and sent - got < 20:
                    size = 20  # enough for the largest exact receive
                    await far.send_all(numbered(sent, size))
                    sent += size
                await task.wait()
                if task.error is None:
                    data = await task.result()
                    same(data, numbered(got, len(data)), "received")
                    got += len(data)
            await far.send_eof()
            while data := await near.recv():
                same(data, numbered(got, len(data)), "the rest")
                got += len(data)
            if got != sent:
                raise Wrong(f"{sent} bytes were sent, {got} received")

    lab.run(main)
    lab.verdict()


@program
def closed_in_flight_and_reused(lab: Lab) -> None:
    """Descriptors are closed under operations and their numbers reused; no byte changes sides."""
    rng = lab.rng

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            open_ones: dict[int, tuple[SocketStream, socket.socket]] = {}
            tasks = []
            unstarted: list[Awaitable[bytes]] = []

            async def open_one(number: int) -> None:
                peer = call(listener)
                open_ones[number] = (await listener.accept(), peer)

            async def read(number: int, stream: SocketStream) -> None:
                mark = number % 251
                kind = rng.randrange(3)
                if kind == 0:
                    data = await endured(stream.recv)
                elif kind == 1:
                    moved = await endured(stream.recv_into, Buffer(2000))
                    data = moved[1].read(0, moved[0]) if moved else None
                else:
                    memory = bytearray(2000)
                    count = await endured(stream.recv_into, memory)
                    data = memory[:count] if count else None
                if data and data.count(mark) != len(data):
                    raise Wrong(f"connection {mark} got {bytes(data[:20])!r}")

            async def write(number: int, stream: SocketStream) -> None:
                await endured(stream.send_all, bytes([number % 251]) * rng.choice((10, 200_000)))

            for number in range(rng.randint(10, 80)):
                await open_one(number)
                for _ in range(rng.randint(0, 3)):
                    chosen = rng.choice(list(open_ones))
                    stream, peer = open_ones[chosen]
                    tasks.append(lab.spawn(rng.choice((read, write)), chosen, stream))
                    peer.setblocking(False)
                    with contextlib.suppress(OSError):
                        peer.send(bytes([chosen % 251]) * rng.randint(1, 1000))
                    with contextlib.suppress(OSError):
                        data = peer.recv(100_000)
                        if data.count(chosen % 251) != len(data):
                            raise Wrong(f"peer {chosen} got {data[:20]!r}")
                if lab.chance(0.5):
                    await lab.passes(0, 2)
                if lab.chance(0.6) and open_ones:
                    chosen = rng.choice(list(open_ones))
                    stream, peer = open_ones.pop(chosen)
                    with refusals():
                        unstarted.append(stream.recv())
                    match rng.randrange(4):
                        case 0:
                            await endured(stream.aclose)
                        case 1:
                            tasks.append(lab.spawn(endured, stream.aclose))
                            await lab.passes(0, 1)
                        case 2:
                            peer.close()
                            await lab.passes(0, 1)
                        case _:
                            pass  # dropped
                    peer.close()
                    for op in unstarted:
                        if lab.chance(0.3):
                            with refusals():
                                await op
                    unstarted.clear()
                    del stream
            for stream, peer in open_ones.values():
                await endured(stream.aclose)
                peer.close()
            for task in tasks:
                await task.wait()
                if isinstance(task.error, Wrong):
                    raise task.error

    lab.run(main)
    lab.verdict()


@program
def messages_with_descriptors_dropped(lab: Lab) -> None:
    """Descriptors travel in messages that are cancelled, dropped, closed twice and never read."""
    rng = lab.rng
    before = len(os.listdir("/proc/self/fd"))
    path = f"\0crashlab-{os.getpid()}"

    async def receive(stream: SocketStream) -> None:
        message = await endured(stream.recvmsg_into, [bytearray(5), bytearray(100)])
        if message is not None and lab.chance(0.5):
            for fd in message.fds:
                if lab.chance(0.5):
                    fd.close()
                    fd.close()

    async def main() -> None:
        async with await uringio.listen_unix(path) as listener:
            near = await uringio.connect_unix(path)
            far = await listener.accept()
            tasks = []
            for _ in range(rng.randint(5, 40)):
                fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(rng.randint(0, 4))]
                if lab.chance(0.5):  # never started
                    with refusals():
                        far.sendmsg([b"abc", bytearray(b"def")], fds=fds)
                else:
                    sending = functools.partial(far.sendmsg, [b"abc", bytearray(b"de")], fds=fds)
                    tasks.append(lab.spawn(endured, sending))
                    await lab.passes(1, 1)
                for fd in fds:
                    os.close(fd)
                tasks.append(lab.spawn(receive, near))
                await lab.passes(0, 2)
                if lab.chance(0.4):
                    rng.choice(tasks).cancel()
            if lab.chance(0.5):
                await endured(near.aclose)
                await endured(far.aclose)
            for task in tasks:
                task.cancel()
                await task.wait()

    lab.run(main)
    gc.collect()
    left = len(os.listdir("/proc/self/fd")) - before
    if left:
        raise Wrong(f"{left} descriptors are left open")
    lab.verdict()


@program
def datagrams_into_thin_air(lab: Lab) -> None:
    """Datagrams are received into memory that goes, with sockets that close, while many send."""
    rng = lab.rng

    async def receive(far: uringio.DatagramSocket) -> None:
        if lab.chance(0.5):
            got = await endured(far.recvmsg)
            data = got.data if got is not None else b""
        else:
            memory = bytearray(3000)
            got = await endured(far.recvmsg_into, [memory])
            data = bytes(memory[: got.count]) if got is not None else b""
        if data and data.count(data[0]) != len(data):
            raise Wrong(f"a datagram was mixed: {data[:40]!r}")

    async def main() -> None:
        far = await uringio.open_udp(("127.0.0.1", 0))
        near = await uringio.open_udp(("127.0.0.1", 0))
        tasks = []
        for number in range(rng.randint(10, 80)):
            data = bytearray([number]) * rng.choice((1, 100, 2000))
            tasks.append(lab.spawn(endured, near.send_to, data, far.local_address))
            del data
            tasks.append(lab.spawn(receive, far))
            await lab.passes(0, 1)
            if lab.chance(0.3):
                rng.choice(tasks).cancel()
            if lab.chance(0.02):
                await endured(far.aclose)
                far = await uringio.open_udp(("127.0.0.1", 0))
            lab.plant(5)
        await lab.passes(0, 3)
        for task in tasks:
            task.cancel()
            await task.wait()
            if isinstance(task.error, Wrong):
                raise task.error
        if lab.chance(0.5):
            await endured(near.aclose)
            await endured(far.aclose)

    lab.run(main)
    lab.verdict()


@program
def operations_driven_by_hand(lab: Lab) -> None:
    """Coroutines are stepped, thrown into, closed and dropped by hand; operations are shared."""
    rng = lab.rng

    async def wait_for(stream: SocketStream) -> None:
        try:
            await stream.recv()
        finally:
            if lab.chance(0.3):
                with refusals():
                    await stream.aclose()

    async def main() -> None:
        async with AsyncExitStack() as stack:
            near, far = await stack.enter_async_context(connected())
            streams = [(await stack.enter_async_context(with_peer())) for _ in range(5)]
            kept: list[object] = []
            for _ in range(rng.randint(10, 60)):
                stream, peer = rng.choice(streams)
                match rng.randrange(7):
                    case 0:
                        coroutine = wait_for(stream)
                        with refusals():
                            op = coroutine.send(None)
                            if lab.chance(0.5):
                                op.add_done_callback(kept.append)
                            with contextlib.suppress(Planted, RuntimeError, StopIteration):
                                if lab.chance(0.3):
                                    coroutine.throw(Planted())
                                elif lab.chance(0.3):
                                    coroutine.send(b"invented")
                        with contextlib.suppress(Planted, RuntimeError):
                            coroutine.close()
                    case 1:
                        with refusals():
                            op = stream.recvmsg_into([bytearray(500)])
                            op.add_done_callback(lambda _: None)
                            op.cancel()
                            op.add_done_callback(lambda _: None)
                    case 2:
                        op = nop()
                        tasks = [lab.spawn(endured, lambda op=op: op) for _ in range(3)]
                        await tasks[0].wait()
                    case 3:
                        with refusals():
                            stream.recv()
                            stream.send_all(b"never")
                            stream.recv_into(Buffer(10))
                    case 4:
                        with refusals():
                            op = stream.recv()
                            op.add_done_callback(lambda _: (_ for _ in ()).throw(Planted()))
                            peer.send(b"for a callback that fails")
                    case 5:
                        with contextlib.suppress(OSError):
                            peer.send(bytes([POISON]) * 1000)
                    case _:
                        generator = stream.__aiter__()
                        step = generator.__anext__()
                        with refusals(), contextlib.suppress(StopIteration):
                            step.send(None)
                        kept.append(generator)
                        if lab.chance(0.5):
                            with contextlib.suppress(RuntimeError):
                                step.close()
                if lab.chance(0.5):
                    await lab.passes(0, 2)
                if lab.chance(0.3):
                    kept.clear()
                    gc.collect()
                lab.plant(5)
            data = lab.numbered(3000)
            await far.send_all(data)
            same(await near.recv_exactly(3000), data, "of those who behave")

    logging.disable(logging.CRITICAL)
    lab.run(main)
    lab.verdict()


@program
def everything_raises(lab: Lab) -> None:
    """Handlers, hooks, callbacks, finalizers and weak references raise, each when it can."""
    rng = lab.rng

    class Spiteful:
        def __init__(self) -> None:
            self.itself = self if lab.chance(0.5) else None

        def __del__(self) -> None:
            raise Planted

    def raising(*_: object) -> None:
        raise Planted

    async def handler(stream: SocketStream) -> None:
        Spiteful()
        data = await stream.recv()
        match rng.randrange(4):
            case 0:
                raise Planted
            case 1:
                uringio.sleep(0).add_done_callback(raising)
            case 2:
                hull = Spiteful()
                kept.append(weakref.ref(hull, raising))
                del hull
        await stream.send_all(data)

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            hook = rng.choice((None, raising))
            serving = lab.spawn(lambda: listener.serve(handler, on_error=hook))
            for _ in range(rng.randint(3, 20)):
                with contextlib.suppress(UringioError, OpError):
                    async with await uringio.connect_tcp(*listener.local_address) as stream:
                        data = lab.numbered(rng.randint(1, 2000))
                        await stream.send_all(data)
                        got = await stream.recv_exactly(len(data))
                        same(got, data, "echoed")
            serving.cancel()
            await serving.wait()

    kept: list[object] = []
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda _: None
    if lab.chance(0.3):
        gc.callbacks.append(raising)
        gc.set_threshold(rng.choice((10, 200)))
    lab.run(main)
    gc.callbacks.clear()
    lab.verdict()


@program
def used_from_other_threads(lab: Lab) -> None:
    """Other threads call whatever they can reach; the owner's conversation is not disturbed."""
    rng = lab.rng
    stop = threading.Event()

    def meddle(near: SocketStream, far: SocketStream, listener: uringio.Listener) -> None:
        uses: list[Callable[[], object]] = [
            lambda: near.recv().add_done_callback(print),
            lambda: near.aclose().add_done_callback(print),
            lambda: far.send_all(b"no").__await__().send(None).add_done_callback(print),
            lambda: listener.accept().add_done_callback(print),
            lambda: listener.aclose().cancel(),
            lambda: uringio.run(far.recv),
            lambda: uringio.run(uringio.sleep, 0),
            lambda: asyncio.run(asyncio.wait_for(near.recv_exactly(1), 1)),
            lambda: near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
            lambda: repr((near, far, listener)),
        ]
        meddler = lab.rng.__class__(lab.seed)
        while not stop.is_set():
            with refusals():
                meddler.choice(uses)()

    async def main() -> None:
        async with (
            await uringio.listen_tcp("127.0.0.1", 0) as listener,
            connected() as (near, far),
            connected() as (own_near, own_far),
        ):
            threads = [
                threading.Thread(target=meddle, args=(near, far, listener))
                for _ in range(rng.randint(1, 3))
            ]
            for thread in threads:
                thread.start()
            try:
                for _ in range(rng.randint(5, 30)):
                    data = lab.numbered(rng.randint(1, 3000))
                    await own_near.send_all(data)
                    same(await own_far.recv_exactly(len(data)), data, "own conversation")
                    await uringio.sleep(0.001)
            finally:
                stop.set()
                for thread in threads:
                    await uringio.offload(thread.join)

    lab.run(main)
    lab.verdict()


@program
def groups_torn_down(lab: Lab) -> None:
    """Trees of tasks hold buffers when siblings fail, scopes close and timeouts strike."""
    rng = lab.rng

    async def leaf(stream: SocketStream) -> None:
        buffer = Buffer(rng.choice((100, 5000)))
        with contextlib.suppress(UsageError):
            if lab.chance(0.7):
                _, buffer = await stream.recv_into(buffer)
            else:
                await stream.send_buffer(buffer)
        if lab.chance(0.3):
            raise Planted

    async def native(depth: int, streams: list[SocketStream]) -> None:
        with uringio.move_on_after(rng.choice((0.0, 0.001, 0.03))):
            async with uringio.TaskGroup() as group:
                for _ in range(rng.randint(1, 3)):
                    if depth and lab.chance(0.6):
                        group.start_soon(native, depth - 1, streams)
                    else:
                        group.start_soon(leaf, rng.choice(streams))
                await lab.passes(0, 2)
                if lab.chance(0.3):
                    raise Planted
                if lab.chance(0.3):
                    group.cancel_scope.cancel()

    async def edges(depth: int, streams: list[SocketStream]) -> None:
        async with asyncio.timeout(rng.choice((0.001, 0.02))), asyncio.TaskGroup() as group:
            for _ in range(rng.randint(1, 3)):
                if depth and lab.chance(0.6):
                    group.create_task(edges(depth - 1, streams))
                else:
                    group.create_task(leaf(rng.choice(streams)))
            await lab.passes(0, 2)
            if lab.chance(0.3):
                raise Planted

    async def main() -> None:
        async with AsyncExitStack() as stack:
            pairs = [await stack.enter_async_context(with_peer()) for _ in range(5)]
            tree = native if lab.scheduler.name == "native" else edges
            for _ in range(rng.randint(1, 5)):
                try:
                    await tree(3, [stream for stream, _ in pairs])
                except* (Planted, TimeoutError, OSError, UringioError):
                    pass
                lab.plant(50)
                for stream, peer in pairs:
                    peer.send(bytes([POISON]) * 500)
                    del stream
                await lab.passes(1, 2)
                lab.inspect()

    lab.run(main)
    lab.verdict()
