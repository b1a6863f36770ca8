"""
The scenarios of `make sim`: whole programs that live through a storm of faults.

Time matters in them as it does in life: heartbeats, idle connections that are given up, limits that
are swept, retries that back off, answers that are waited for so long and no longer.  Each returns
its `Stage`, which tells when it was well again.
"""

import os
import struct
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import uringio
from tests.testing.programs import PORT, pattern
from tests.testing.stage import Stage, patiently
from uringio.net import SocketStream
from uringio.proto.http1 import Http1Server, Limits

ANSWER_SECONDS = 2.0


Actor = Callable[[], Awaitable[object]]
Handler = Callable[[SocketStream], Awaitable[None]]


async def served(listener: uringio.Listener, handler: Handler, clients: Sequence[Actor]) -> None:
    """Serve while the clients act."""
    async with listener, uringio.TaskGroup() as serving:
        serving.start_soon(listener.serve, handler)
        async with uringio.TaskGroup() as group:
            for client in clients:
                group.start_soon(client)
        serving.cancel_scope.cancel()


async def open_listener() -> uringio.Listener:
    return await patiently(lambda: uringio.listen_tcp("127.0.0.1", PORT))


class Caller:
    """A client's connection: made when needed, dropped when anything goes wrong."""

    def __init__(self) -> None:
        self.stream: SocketStream | None = None

    async def get(self) -> SocketStream:
        if self.stream is None:
            with uringio.timeout(ANSWER_SECONDS):
                self.stream = await uringio.connect_tcp("127.0.0.1", PORT)
        return self.stream

    async def drop(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            await stream.aclose()


# --- echo ----------------------------------------------------------------------------------------


async def echo(client_count: int = 4) -> Stage:
    """Connections that live long: messages of all sizes, heartbeats, and idle ones given up."""
    stage = Stage("echo")
    idle_seconds = 4.0

    async def answer(stream: SocketStream) -> None:
        async with stream:
            while True:
                data = b""
                with uringio.move_on_after(idle_seconds):
                    data = await stream.recv()
                if not data:
                    break
                with uringio.timeout(ANSWER_SECONDS):
                    await stream.send_all(data)

    def client(number: int) -> Actor:
        caller = Caller()
        sizes = (1, 60, 700, 9_000, 70_000)

        async def ask(size: int) -> None:
            stream = await caller.get()
            message = pattern(number, size)
            try:
                with uringio.timeout(ANSWER_SECONDS):
                    async with uringio.TaskGroup() as group:
                        group.start_soon(stream.send_all, message)
                        got = await stream.recv_exactly(size)
            except* (OSError, uringio.EndOfStreamError) as group_error:
                await caller.drop()
                raise ConnectionError("it broke") from group_error
            assert got == message

        async def one_round() -> None:
            if stage.chance(0.5):
                await ask(8)  # a heartbeat
            else:
                await ask(stage.dice.pick(sizes))

        async def act() -> None:
            await stage.act(one_round, 9.0)
            await caller.drop()

        return act

    await served(await open_listener(), answer, [client(n) for n in range(client_count)])
    return stage


# --- HTTP ----------------------------------------------------------------------------------------


async def http(client_count: int = 3) -> Stage:
    """A server with limits and a sweeper; clients that keep alive, pipeline, post, and dawdle."""
    stage = Stage("http")
    limits = Limits(head_seconds=2.0, idle_seconds=3.0, body_grace_seconds=1.0)
    connections: dict[Http1Server, uringio.CancelScope] = {}

    async def answer(stream: SocketStream) -> None:
        server = Http1Server(stream, limits=limits)
        scope = uringio.CancelScope()
        connections[server] = scope
        try:
            with scope:
                while (request := await server.next_request()) is not None:
                    body = b"".join([piece async for piece in request.body])
                    told = request.target.encode() + b"\n" + body
                    await server.respond(200, [(b"Content-Type", b"text/plain")], told)
        except ConnectionAbortedError:
            pass
        finally:
            del connections[server]
            with uringio.move_on_after(1.0):
                await server.aclose()

    async def sweep() -> None:
        while True:
            await uringio.sleep(1.0)
            now = stage.kernel.clock.now_ns / 1e9
            for server, scope in list(connections.items()):
                if server.check_time(now) is not None:
                    scope.cancel()

    async def read_response(stream: SocketStream) -> tuple[int, bytes]:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await stream.recv()
            if not data:
                raise ConnectionResetError("no response")
            head += data
        head, _, body = head.partition(b"\r\n\r\n")
        (size,) = (
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        while len(body) < size:
            data = await stream.recv()
            if not data:
                raise ConnectionResetError("half a response")
            body += data
        unread.setdefault(stream, []).append(body[size:])
        return int(head.split(b" ", 2)[1]), body[:size]

    unread: dict[SocketStream, list[bytes]] = {}

    def client(number: int) -> Actor:
        caller = Caller()

        async def get() -> None:
            stream = await caller.get()
            target = b"/%d/%d" % (number, stage.dice.below(1000))
            with uringio.timeout(ANSWER_SECONDS):
                await stream.send_all(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)
                status, body = await read_response(stream)
            assert (status, body) == (200, target + b"\n")

        async def post() -> None:
            stream = await caller.get()
            size = stage.dice.pick((1, 500, 20_000))
            content = pattern(number, size)
            with uringio.timeout(ANSWER_SECONDS):
                head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
                await stream.send_all(head)
                await stream.send_all(content)
                status, body = await read_response(stream)
            assert (status, body) == (200, b"/\n" + content)

        async def dawdle() -> None:
            """Begin a head and never end it: the server says 408, or has hung up."""
            await caller.drop()
            stream = await caller.get()
            try:
                with uringio.timeout(5.0):
                    await stream.send_all(b"GET / HTTP/1.1\r\n")
                    status, _ = await read_response(stream)
                assert status == 408
            finally:
                await caller.drop()

        async def one_round() -> None:
            share = stage.dice.below(10)
            try:
                await (dawdle() if share == 0 and not stage.is_calm() else
                       post() if share < 4 else get())  # fmt: skip
            except BaseException:
                await caller.drop()
                raise

        async def act() -> None:
            await stage.act(one_round, 8.0)
            await caller.drop()

        return act

    async with uringio.TaskGroup() as sweeping:
        sweeping.start_soon(sweep)
        clients = [client(number) for number in range(client_count)]
        await served(await open_listener(), answer, clients)
        sweeping.cancel_scope.cancel()
    assert not connections
    return stage


# --- files ---------------------------------------------------------------------------------------


async def file_copy() -> Stage:
    """A file is copied again and again, synced, compared; what was synced survives a power cut."""
    stage = Stage("file copy")
    copied = 0

    async def copy() -> None:
        nonlocal copied
        data = pattern(copied, stage.dice.pick((10, 4_096, 30_000)))
        async with await uringio.open_file("/source", "wb") as file:
            await file.write_all(data)
            await file.fsync()
        async with (
            await uringio.open_file("/source") as source,
            await uringio.open_file("/copy", "wb") as target,
        ):
            async for chunk in source.chunks(8_192):
                await target.write_all(chunk)
            await target.fsync()
        async with await uringio.open_file("/copy") as file:
            assert await file.read_all() == data
        copied += 1

    async def burst(count: int = 300) -> None:
        """More operations at once than the queue has slots."""

        async def write(file: uringio.WriteFile, number: int) -> None:
            done = 0
            while done < 16:
                piece = pattern(number, 16)[done:]
                try:
                    done += await file.write_at(number * 16 + done, piece)
                except OSError:
                    stage.troubles += 1

        async with (
            await patiently(lambda: uringio.open_file("/burst", "wb")) as file,
            uringio.TaskGroup() as group,
        ):
            for number in range(count):
                group.start_soon(write, file, number)

    async def appends() -> None:
        record = struct.pack("<I", copied) * 4
        async with await uringio.open_file("/log", "ab") as file:
            before = file.seek(0, os.SEEK_END)
            await file.write_all(record)
        async with await uringio.open_file("/log") as file:
            assert (await file.read_all())[before:] == record

    async def compute() -> None:
        """Threads wake the loop, each time anew, when nothing else would."""
        with uringio.timeout(ANSWER_SECONDS):
            for number in range(3):
                assert await uringio.offload(pattern, number, 20) == pattern(number, 20)

    async def close_under_way() -> None:
        """A file is closed while it is being synced, perhaps by a thread."""
        file = await uringio.open_file("/source", "w+b")
        try:
            async with uringio.TaskGroup() as group:
                for _ in range(3):
                    group.start_soon(sync_or_closed, file)
                await uringio.checkpoint()
                await file.aclose()
                await uringio.sleep(0.01)
        finally:
            await file.aclose()

    async def sync_or_closed(file: uringio.File) -> None:
        try:
            await file.fsync()
        except (uringio.ClosedError, OSError):
            pass

    await burst()
    assert stage.kernel.disk.content(b"/burst") == b"".join(pattern(n, 16) for n in range(300))
    async with uringio.TaskGroup() as group:
        group.start_soon(stage.act, copy, 6.0)
        group.start_soon(stage.act, appends, 6.0)
        group.start_soon(stage.act, compute, 6.0)
    last = stage.kernel.disk.content(b"/copy")
    stage.kernel.disk.power_cut()
    assert stage.kernel.disk.content(b"/copy") == last, "what was synced is gone"
    await stage.act(close_under_way, 0.0)
    # A thread that takes its time is still at it when all has ended.
    stage.kernel.wake_delay_ns = lambda: 3_000_000_000  # type: ignore[method-assign]
    with uringio.move_on_after(0.001):
        await uringio.open_file("/late", "wb")
    return stage


# --- cancellation --------------------------------------------------------------------------------


async def cancel_storm() -> Stage:
    """Everything is cancelled all the time; no byte is lost, no descriptor, no buffer."""
    stage = Stage("cancel storm")
    sent = b"".join(b"%07d " % number for number in range(1_200))

    async def feed(stream: SocketStream) -> None:
        """Send it all, a piece at a time, and now and then nothing for a while."""
        async with stream:
            done = 0
            while done < len(sent):
                piece = sent[done : done + stage.dice.between(1, 1_500)]
                await stream.send_all(piece)
                done += len(piece)
                if stage.chance(0.5):
                    await uringio.sleep(stage.dice.below(4_000) / 1e6)

    async def read() -> None:
        got = bytearray()
        async with await uringio.connect_tcp("127.0.0.1", PORT) as stream:
            while True:
                with uringio.move_on_after(stage.dice.below(4_000) / 1e6):
                    data = await stream.recv(2_000)
                    if not data:
                        break
                    got += data
        assert bytes(got) == sent

    async def accept_and_cancel() -> None:
        """Accepts are cancelled when a connection may be there already."""
        async with (
            await uringio.listen_tcp("127.0.0.1", PORT + 1) as listener,
            uringio.TaskGroup() as group,
        ):
            group.start_soon(knock)
            for _ in range(12):
                with uringio.move_on_after(stage.dice.below(2_000) / 1e6):
                    await (await listener.accept()).aclose()
            group.cancel_scope.cancel()

    async def knock() -> None:
        while True:
            try:
                async with await uringio.connect_tcp("127.0.0.1", PORT + 1) as stream:
                    with uringio.move_on_after(0.01):
                        await stream.recv()
            except OSError:
                await uringio.sleep(0.001)

    async def open_and_cancel() -> None:
        for _ in range(6):
            with uringio.move_on_after(stage.dice.below(300) / 1e6):
                async with await uringio.open_file("/some", "w+b") as file:
                    await file.write_all(b"x" * 5_000)
                    assert await file.read_at(0, 10) in {b"x" * n for n in range(1, 11)}

    async def count(stream: SocketStream) -> None:
        """Say how many bytes came."""
        async with stream:
            total = 0
            while data := await stream.recv():
                total += len(data)
            await stream.send_all(b"%d" % total)

    async def tear() -> None:
        """What a cancelled send says that it has handed over has arrived, and no more."""
        handed_over = 0
        async with await uringio.connect_tcp("127.0.0.1", PORT + 2) as stream:
            for _ in range(8):
                size = stage.dice.pick((10, 3_000, 90_000))
                with uringio.move_on_after(stage.dice.below(400) / 1e6):
                    try:
                        await stream.send_all(bytes(size))
                        handed_over += size
                    except uringio.Cancelled as error:
                        handed_over += error.done
                        raise
            await stream.send_eof()
            told = b"".join([piece async for piece in stream])
            assert int(told) == handed_over

    clients: list[Actor] = [
        partial(stage.act, one, 16.0) for one in (read, accept_and_cancel, open_and_cancel, tear)
    ]
    async with (
        await uringio.listen_tcp("127.0.0.1", PORT + 2) as counting,
        uringio.TaskGroup() as others,
    ):
        others.start_soon(counting.serve, count)
        await served(await open_listener(), feed, clients)
        others.cancel_scope.cancel()
    return stage


# --- accepting -----------------------------------------------------------------------------------


async def accept_storm(client_count: int = 6) -> Stage:
    """Connections come and break, descriptors run out; the server goes on, all are served."""
    stage = Stage("accept storm")

    async def answer(stream: SocketStream) -> None:
        async with stream:
            while data := await stream.recv():
                await stream.send_all(data)

    async def call() -> None:
        message = pattern(stage.dice.below(1000), stage.dice.pick((5, 3_000)))
        with uringio.timeout(ANSWER_SECONDS):
            async with await uringio.connect_tcp("127.0.0.1", PORT) as stream:
                for _ in range(stage.dice.between(1, 3)):
                    await stream.send_all(message)
                    assert await stream.recv_exactly(len(message)) == message

    async def hang_up() -> None:
        """Connect, and be gone before anybody answers."""
        with uringio.move_on_after(stage.dice.below(3_000) / 1e6):
            await (await uringio.connect_tcp("127.0.0.1", PORT)).aclose()

    async def one_round() -> None:
        await (hang_up() if stage.chance(0.3) and not stage.is_calm() else call())

    async with await open_listener() as listener, uringio.TaskGroup() as serving:
        serving.start_soon(partial(listener.serve, answer, max_connections=3))
        async with uringio.TaskGroup() as group:
            for _ in range(client_count):
                group.start_soon(stage.act, one_round, 14.0)
        serving.cancel_scope.cancel()
    return stage
