"""Programs that are careless with their process: forks, exits, signals, threads, loops."""

import asyncio
import atexit
import contextlib
import functools
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from contextlib import AsyncExitStack

import uringio
from tests.surface.pairs import connected, with_peer
from uringio import Buffer, Cancelled, SocketStream, aio
from uringio.errors import UringioError

from .lab import POISON, Lab, Planted, Wrong, endured, numbered, program, refusals, same


async def busy(lab: Lab, stack: AsyncExitStack) -> list[object]:
    """Put operations of many kinds in flight; return what belongs to them, memory included."""
    kept: list[object] = []
    for _ in range(lab.rng.randint(1, 4)):
        stream, peer = await stack.enter_async_context(with_peer())
        memory = bytearray(5000)
        receiving = lab.rng.choice(
            (
                stream.recv,
                functools.partial(stream.recv_into, memory),
                functools.partial(stream.recv_into, Buffer(5000)),
            )
        )
        kept += [stream, peer, memory]
        kept.append(lab.spawn(endured, receiving))
        kept.append(lab.spawn(endured, stream.send_all, bytes(20_000_000)))
    listener = await uringio.listen_tcp("127.0.0.1", 0)
    kept += [listener, lab.spawn(endured, listener.accept)]
    kept.append(lab.spawn(endured, uringio.sleep, 1000))
    if lab.chance(0.3):
        kept.append(lab.spawn(endured, uringio.offload, threading.Event().wait, 0.2))
    await lab.passes(0, 3)
    return kept


def _say_nothing() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


@program
def exited_in_flight(lab: Lab) -> None:
    """The interpreter ends in one of many ways while operations of every kind are in flight."""
    rng = lab.rng
    how = rng.randrange(9)
    status = rng.randrange(1, 100)
    stack = AsyncExitStack()
    kept: list[object] = []

    class Last:
        """Touches what it can when modules are torn down."""

        def __init__(self, things: list[object]) -> None:
            self.things = things

        def __del__(self) -> None:
            for thing in self.things:
                if isinstance(thing, SocketStream):
                    with refusals():
                        thing.recv().add_done_callback(print)
                    with refusals():
                        thing.close_idle()

    async def main() -> None:
        kept.extend(await busy(lab, stack))
        if lab.chance(0.4):
            sys.modules["kept_to_the_end"] = types.ModuleType("kept_to_the_end")
            sys.modules["kept_to_the_end"].last = Last(kept)  # type: ignore[attr-defined]
        if lab.chance(0.3):
            atexit.register(gc.collect)
            atexit.register(lambda: uringio.run(uringio.sleep, 0))
        match how:
            case 0:
                lab.verdict(status)
                sys.exit(status)
            case 1:
                lab.verdict(status)
                os._exit(status)
            case 2:
                lab.verdict(1)
                raise Planted
            case 3:
                lab.verdict(status)

                async def leave() -> None:
                    sys.exit(status)

                lab.spawn(leave)
                await uringio.sleep(1000)
            case 4:
                lab.verdict(status)
                signal.signal(signal.SIGUSR1, lambda *_: sys.exit(status))
                os.kill(os.getpid(), signal.SIGUSR1)
                await uringio.sleep(1000)

    if lab.chance(0.2):
        _say_nothing()
    if how < 5:
        lab.run(main)
    elif how == 5:  # a thread that the interpreter does not wait for

        def run_in_thread() -> None:
            uringio.run(in_thread, backend=lab.backend)

        async def in_thread() -> None:
            async with connected() as (near, far):
                ready.set()
                while True:
                    await far.send_all(b"x" * 1000)
                    await near.recv_into(bytearray(1000))

        ready = threading.Event()
        threading.Thread(target=run_in_thread, daemon=True).start()
        ready.wait(10)
        lab.verdict(0)
    elif how == 6:  # a context that nobody closes
        context = uringio.Context(backend=lab.backend)
        lab.scheduler = _Ticked(context, lab)  # type: ignore[assignment]
        context.spawn(main)
        for _ in range(rng.randint(1, 8)):
            context.tick()
        kept.append(context)
        sys.kept = kept  # type: ignore[attr-defined]
        lab.verdict(0)
    elif how == 7:  # a loop of asyncio's kind that nobody closes
        loop = aio.new_event_loop(backend=lab.backend)
        lab.scheduler = _on_loop(lab)
        task = loop.create_task(main())
        for _ in range(rng.randint(1, 8)):
            loop.call_soon(loop.stop)
            loop.run_forever()
        sys.kept = [loop, task, kept]  # type: ignore[attr-defined]
        lab.verdict(0)
    else:  # a child of the library's that is replaced by another program
        lab.verdict(0)

        async def replace() -> None:
            await busy(lab, stack)
            os.execv(
                sys.executable, [sys.executable, "-c", "import os; os.listdir('/proc/self/fd')"]
            )

        lab.run(replace)


class _Ticked:
    """A scheduler for `busy` on a context that its owner ticks."""

    name = "native"

    def __init__(self, context: uringio.Context, lab: Lab) -> None:
        self.context = context
        self.backend = lab.backend

    def spawn(self, async_fn: Callable[..., object], *args: object) -> object:
        return self.context.spawn(async_fn, *args)  # type: ignore[arg-type]

    async def checkpoint(self) -> None:
        await uringio.checkpoint()


def _on_loop(lab: Lab) -> "Lab.scheduler":  # type: ignore[valid-type]
    from tests.surface import schedulers

    return schedulers.make("asyncio", lab.backend)


@program
def forked_in_flight(lab: Lab) -> None:
    """Children are forked in every state and do what they like; the parent never notices."""
    rng = lab.rng

    def misbehave(kept: list[object], near: SocketStream) -> None:
        for _ in range(rng.randint(1, 6)):
            with refusals(), contextlib.suppress(StopIteration, RuntimeError):
                match rng.randrange(7):
                    case 0:
                        near.recv().add_done_callback(print)
                    case 1:
                        near.send_all(b"from the child").__await__().send(None)
                    case 2:
                        kept.clear()
                        gc.collect()
                    case 3:
                        uringio.run(uringio.sleep, 0)
                    case 4:
                        near.aclose().add_done_callback(print)
                    case 5:
                        lab.plant(500)
                        lab.inspect()
                    case _:
                        for thing in kept:
                            if isinstance(thing, bytearray):
                                thing[:] = bytes([POISON]) * len(thing)

    def fork(kept: list[object], near: SocketStream) -> None:
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            children.append(pid)
            return
        _say_nothing()
        try:
            signal.alarm(20)
            rng.seed(os.getpid())
            misbehave(kept, near)
            if lab.chance(0.3):
                raise Planted
            if lab.chance(0.3):
                sys.exit(0)
        except (Planted, SystemExit):
            if lab.chance(0.5):
                raise  # through the loop, and out of the interpreter
        except BaseException:
            os._exit(99)
        os._exit(0)

    children: list[int] = []
    own = os.getpid()

    async def main() -> None:
        async with AsyncExitStack() as stack, connected() as (near, far):
            kept = await busy(lab, stack)
            for _ in range(rng.randint(1, 5)):
                if lab.chance(0.7):
                    fork(kept, near)
                else:
                    uringio.sleep(0).add_done_callback(lambda _: fork(kept, near))
                    await uringio.sleep(0.001)
                data = lab.numbered(rng.randint(1, 30_000))
                sender = lab.spawn(lambda data=data: far.send_all(data))
                same(await near.recv_exactly(len(data)), data, "the parent's bytes")
                await sender.wait()
            for thing in kept:
                if isinstance(thing, bytearray) and thing.count(0) != len(thing):
                    raise Wrong("a child wrote into its parent's memory")
                if hasattr(thing, "cancel"):
                    thing.cancel()
            await uringio.sleep(0)

    try:
        lab.run(main)
    except BaseException:
        if os.getpid() != own:
            os._exit(0)
        raise
    if os.getpid() != own:
        os._exit(0)
    for pid in children:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status < 0 or status == 99:
            raise Wrong(f"a child ended with {status}")
    lab.verdict()


@program
def struck_by_signals(lab: Lab) -> None:
    """A timer's handler raises at random moments of loops that converse; loops are made anew."""
    rng = lab.rng
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda _: None

    def strike(_: int, frame: types.FrameType | None) -> None:
        # Again in any case: this one may be swallowed, by a finalizer or by who logs exceptions.
        pause_s = rng.uniform(0.0002, 0.005) if lab.chance(0.5) else 0.05
        signal.setitimer(signal.ITIMER_REAL, pause_s)
        while frame is not None:
            if frame.f_code is Lab.run.__code__:
                strikes.append(error)
                raise error()
            frame = frame.f_back

    async def converse() -> None:
        async with connected() as (near, far):
            position = 0
            while True:
                size = rng.randint(1, 5000)
                data = numbered(position, size)
                await far.send_all(data)
                if lab.chance(0.5):
                    got = await near.recv_exactly(size)
                else:
                    count, buffer = await near.recv_into(Buffer(size))
                    got = buffer.read(0, count) + await near.recv_exactly(size - count)
                same(got, data, "received")
                position += size

    async def main() -> None:
        async with AsyncExitStack() as stack:
            if lab.chance(0.5):
                await busy(lab, stack)
            tasks = [lab.spawn(converse) for _ in range(rng.randint(1, 3))]
            for task in tasks:
                await task.result()

    strikes: list[type[BaseException]] = []
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(rng.randint(1, 4)):
        error = rng.choice((Planted, KeyboardInterrupt))
        signal.signal(signal.SIGALRM, strike)
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.001, 0.05))
        try:
            lab.run(main)
        except (Planted, KeyboardInterrupt, asyncio.CancelledError, Cancelled):
            pass
        except BaseExceptionGroup as group:
            if group.subgroup(Wrong) is not None:
                raise
        except (UringioError, OSError, RuntimeError):
            pass  # it struck where no loop was, or an exit stack was
    signal.setitimer(signal.ITIMER_REAL, 0)
    gc.collect()
    left = len(os.listdir("/proc/self/fd")) - before
    # One may tear from somebody's hands, the standard library's too, what was just opened: at most
    # a ring and both ends of its pipe.
    if left > 3 * len(strikes):
        raise Wrong(f"{left} descriptors are left open")
    lab.verdict()


@program
def contexts_ticked_apart(lab: Lab) -> None:
    """Contexts in one thread are ticked in any order, nested, stopped, closed and left."""
    rng = lab.rng
    context = [uringio.Context(backend=lab.backend) for _ in range(rng.randint(1, 4))]

    async def converse() -> None:
        async with connected() as (near, far):
            for _ in range(rng.randint(1, 5)):
                data = lab.numbered(rng.randint(1, 5000))
                await far.send_all(data)
                same(await near.recv_exactly(len(data)), data, "received")
                if lab.chance(0.1):
                    with refusals():
                        rng.choice(context).tick()
                if lab.chance(0.1):
                    with refusals():
                        rng.choice(context).close()
                if lab.chance(0.1):
                    raise Planted
                if lab.chance(0.1):
                    rng.choice(context).stop()

    logging.disable(logging.CRITICAL)
    tasks = []
    for _ in range(rng.randint(20, 150)):
        one = rng.choice(context)
        with refusals():
            match rng.randrange(8):
                case 0 | 1:
                    tasks.append(one.spawn(converse))
                case 2:
                    one.run_soon(lambda: None)
                case 3:
                    with contextlib.suppress(Planted):
                        one.run_until_done(converse)
                case 4:
                    thread = threading.Thread(target=_touch, args=(one,))
                    thread.start()
                    thread.join()
                case 5 if lab.chance(0.1):
                    one.close()
                    context[context.index(one)] = uringio.Context(backend=lab.backend)
                case 6 if lab.chance(0.05):
                    context[context.index(one)] = uringio.Context(backend=lab.backend)
                    del one
                    gc.collect()
                case _:
                    one.tick(rng.choice((0, 0.0001)))
    if lab.chance(0.7):
        for one in context:
            with refusals():
                one.close()
    lab.verdict()


def _touch(context: uringio.Context) -> None:
    for use in (context.tick, context.close, context.stop, lambda: context.run_soon(list)):
        with refusals():
            use()


@program
def asyncio_misused(lab: Lab) -> None:
    """Transports and loops of asyncio's kind: closed in every place, buffers resized, raised in."""
    rng = lab.rng
    logging.disable(logging.CRITICAL)

    class Careless(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.memory = bytearray(rng.choice((1, 100, 70_000)))

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            kept.append(self)
            if lab.chance(0.1):
                raise Planted

        def get_buffer(self, sizehint: int) -> bytearray:
            if lab.chance(0.1):
                self.memory = bytearray(rng.choice((0, 1, 5000)))
            return self.memory

        def buffer_updated(self, nbytes: int) -> None:
            data = bytes(self.memory[:nbytes])
            if data.count(POISON) != len(data):
                wrong.append(data)
            match rng.randrange(12):
                case 0:
                    self.transport.close()
                case 1:
                    self.transport.abort()  # type: ignore[attr-defined]
                case 2:
                    self.memory = bytearray(10)
                case 3:
                    with contextlib.suppress(BufferError):
                        self.memory.clear()
                        self.memory.extend(bytes(100))
                case 4:
                    raise Planted
                case _:
                    self.transport.write(bytearray(data))  # type: ignore[attr-defined]

    kept: list[object] = []
    wrong: list[bytes] = []
    for _ in range(rng.randint(1, 3)):
        loop = aio.new_event_loop(backend=lab.backend)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(Careless, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            clients = []
            for _ in range(rng.randint(3, 15)):
                with socket.create_connection(("127.0.0.1", port)) as client:
                    clients.append(client)
                    for _ in range(rng.randint(1, 5)):
                        with contextlib.suppress(OSError):
                            client.setblocking(False)
                            client.send(bytes([POISON]) * rng.randint(1, 100_000))
                            await asyncio.sleep(0)
                            got = client.recv(1 << 20)
                            if got.count(POISON) != len(got):
                                raise Wrong(f"{got[:40]!r} came back")
                        lab.plant(5)
                    if lab.chance(0.2):
                        kept.clear()
                        gc.collect()
            if lab.chance(0.5):
                server.close()
            await asyncio.sleep(0)

        thread = threading.Thread(target=_pester, args=(loop, rng.randint(1, 200)))
        thread.start()
        try:
            loop.run_until_complete(main())
            if lab.chance(0.7):
                loop.close()
        finally:
            thread.join()
        del loop
        if wrong:
            raise Wrong(f"a protocol got {wrong[0][:40]!r}")
    lab.verdict()


def _pester(loop: asyncio.AbstractEventLoop, count: int) -> None:
    for _ in range(count):
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(list)


@program
def children_inherit(lab: Lab) -> None:
    """Programs are started with descriptors open, in the middle of it all; none gets the ring."""
    rng = lab.rng

    async def main() -> None:
        async with AsyncExitStack() as stack, connected() as (near, far):
            await busy(lab, stack)
            data = lab.numbered(100_000)
            sender = lab.spawn(lambda: far.send_all(data))
            await lab.passes(0, 2)
            listing = await uringio.offload(
                functools.partial(
                    subprocess.run,
                    ["ls", "-l", "/proc/self/fd"],
                    close_fds=lab.chance(0.5),
                    capture_output=True,
                    check=True,
                    preexec_fn=gc.collect if lab.chance(0.3) else None,
                )
            )
            if b"io_uring" in listing.stdout or b"eventpoll" in listing.stdout:
                raise Wrong(f"a child inherited: {listing.stdout.decode()}")
            same(await near.recv_exactly(len(data)), data, "received")
            await sender.wait()

    for _ in range(rng.randint(1, 3)):
        lab.run(main)
    lab.verdict()
