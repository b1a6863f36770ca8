"""Programs to run under simulation; what each checks is in it."""

import uringio
from uringio.net import PollEvents, SocketStream, poll, wait_writable

PORT = 8000


async def echo(stream: SocketStream) -> None:
    async with stream:
        while data := await stream.recv():
            await stream.send_all(data)


def pattern(number: int, count: int) -> bytes:
    """Bytes of which every piece says where it belongs."""
    return (b"%08d" % number * (count // 8 + 1))[:count]


async def talk(number: int, sizes: list[int]) -> None:
    async with await uringio.connect_tcp("127.0.0.1", PORT) as stream:
        for size in sizes:
            message = pattern(number, size)
            async with uringio.TaskGroup() as group:
                group.start_soon(stream.send_all, message)
                assert await stream.recv_exactly(size) == message


async def echo_server_and_clients(
    client_count: int = 6, sizes: tuple[int, ...] = (1, 700, 30_000, 100_000)
) -> int:
    """Every client gets back exactly what it sent, in order."""
    async with (
        await uringio.listen_tcp("127.0.0.1", PORT) as listener,
        uringio.TaskGroup() as serving,
    ):
        serving.start_soon(listener.serve, echo)
        async with uringio.TaskGroup() as clients:
            for number in range(client_count):
                clients.start_soon(talk, number, list(sizes))
        serving.cancel_scope.cancel()
    return client_count


async def cancel_storm(total: int = 200_000, reader_seconds: float = 0.000_05) -> tuple[int, int]:
    """
    Receives are cancelled all the time; no byte is lost, doubled or moved.

    Returns how many receives were cancelled, and how many were not.
    """
    sent = b"".join(b"%07d " % number for number in range(total // 8))
    got = bytearray()
    cancelled = completed = 0

    async def feed(stream: SocketStream) -> None:
        async with stream:
            await stream.send_all(sent)

    async with (
        await uringio.listen_tcp("127.0.0.1", PORT) as listener,
        uringio.TaskGroup() as serving,
    ):
        serving.start_soon(listener.serve, feed)
        async with await uringio.connect_tcp("127.0.0.1", PORT) as stream:
            ended = False
            while not ended:
                with uringio.move_on_after(reader_seconds) as scope:
                    data = await stream.recv(2_000)
                    completed += 1
                    got += data
                    ended = not data
                if scope.cancelled_caught:
                    cancelled += 1
        serving.cancel_scope.cancel()
    assert bytes(got) == sent, f"{len(got)} of {len(sent)} bytes, or others"
    return cancelled, completed


async def many_at_once(stream_count: int = 100) -> int:
    """More receives become ready in one enter than there are buffers for."""
    payload = pattern(7, 5_000)
    done = 0

    async def answer(stream: SocketStream) -> None:
        nonlocal done
        async with stream:
            assert await stream.recv_exactly(len(payload)) == payload
            done += 1

    async with (
        await uringio.listen_tcp("127.0.0.1", PORT) as listener,
        uringio.TaskGroup() as serving,
    ):
        serving.start_soon(listener.serve, answer)
        streams = [await uringio.connect_tcp("127.0.0.1", PORT) for _ in range(stream_count)]
        await uringio.sleep(0.01)
        for stream in streams:
            await stream.send_all(payload)
        for stream in streams:
            assert await stream.recv() == b""
            await stream.aclose()
        serving.cancel_scope.cancel()
    return done


async def copy_file(size: int = 30_000) -> None:
    """A file is written, synced, read back, and is the same."""
    data = pattern(3, size)
    async with await uringio.open_file("/data", "wb") as file:
        await file.write_all(data)
        await file.fsync()
    async with await uringio.open_file("/data") as file:
        assert await file.read_all() == data


async def waits_for_ever() -> None:
    async with await uringio.listen_tcp("127.0.0.1", PORT) as listener:
        await listener.accept()


async def forgets_a_socket() -> None:
    async with await uringio.listen_tcp("127.0.0.1", PORT):
        uringio._leaked = await uringio.connect_tcp("127.0.0.1", PORT)  # type: ignore[attr-defined]


async def stubborn(number: int, rounds: int) -> int:
    """Ask until it is answered; returns how often it had to begin anew."""
    tries = 0
    message = pattern(number, 3_000)
    while rounds:
        try:
            async with await uringio.connect_tcp("127.0.0.1", PORT) as stream:
                while rounds:
                    await stream.send_all(message)
                    with uringio.timeout(20):
                        assert await stream.recv_exactly(len(message)) == message
                    rounds -= 1
        except (OSError, uringio.EndOfStreamError):
            tries += 1
            await uringio.sleep(0.05)
    return tries


async def listen_at_last() -> uringio.Listener:
    while True:
        try:
            return await uringio.listen_tcp("127.0.0.1", PORT)
        except OSError:
            await uringio.sleep(0.05)


async def accept_storm(client_count: int = 12, rounds: int = 3) -> int:
    """Connections break and descriptors run out; everybody is served in the end."""
    tries: list[int] = []

    async def client(number: int) -> None:
        tries.append(await stubborn(number, rounds))

    async with (
        await listen_at_last() as listener,
        uringio.TaskGroup() as serving,
    ):
        serving.start_soon(listener.serve, echo)
        async with uringio.TaskGroup() as clients:
            for number in range(client_count):
                clients.start_soon(client, number)
        serving.cancel_scope.cancel()
    assert len(tries) == client_count
    return sum(tries)


async def write_without_sync() -> None:
    async with await uringio.open_file("/synced", "r+b") as file:
        await file.write_all(b"b" * 40_960)
    async with await uringio.open_file("/new", "wb") as file:
        await file.write_all(b"c")


async def resolves(host: str) -> list[object]:
    return list(await uringio.resolve(host, 80))


async def zero_copies(count: int = 8, size: int = 20_000) -> int:
    """Buffers are sent from where they lie; each is ours again, unchanged, when its send ends."""
    data = pattern(5, size)
    got = bytearray()

    async def take(stream: SocketStream) -> None:
        async with stream:
            while chunk := await stream.recv():
                got.extend(chunk)

    pool = uringio.BufferPool(1 << 20)
    async with (
        pool.registered() as registered,
        await uringio.listen_tcp("127.0.0.1", PORT) as listener,
        uringio.TaskGroup() as serving,
    ):
        serving.start_soon(listener.serve, take)
        async with await uringio.connect_tcp("127.0.0.1", PORT) as stream:
            buffer = await pool.acquire(size)
            buffer.write(data)
            for _ in range(count):
                _, buffer = await stream.send_buffer(buffer, 0, size, zero_copy=True)
                assert buffer.read(0, size) == data
            async with await uringio.open_file("/buffer", "w+b") as file:
                written, buffer = await file.write_from(buffer, 0)
                buffer.write(bytes(size))
                taken, buffer = await file.read_into(buffer, 0)
                assert 0 < taken <= written  # either may be short
                assert buffer.read(0, size)[:taken] == data[:taken]
            buffer.release()
            await stream.send_eof()
            assert await stream.recv() == b""
        serving.cancel_scope.cancel()
    assert bytes(got) == data * count
    return registered


async def burst(count: int = 700, size: int = 64) -> None:
    """More operations at once than the queue has slots: each is made, once, where it belongs."""

    async def write(file: uringio.WriteFile, number: int) -> None:
        data = pattern(number, size)
        done = 0
        while done < size:  # in several rounds, each of all at once
            piece = data[done : done + size // 4]
            done += await file.write_at(number * size + done, piece)

    async with await uringio.open_file("/burst", "wb") as file, uringio.TaskGroup() as group:
        for number in range(count):
            group.start_soon(write, file, number)
    async with await uringio.open_file("/burst") as written:
        assert await written.read_all() == b"".join(pattern(n, size) for n in range(count))


async def lease_and_keep(chunk_count: int = 160) -> None:
    """What is leased stays as it was while more arrives, whoever gives it back when."""
    sent = pattern(9, 1_000 * chunk_count)

    async def feed(stream: SocketStream) -> None:
        async with stream:
            for start in range(0, len(sent), 1_000):
                await stream.send_all(sent[start : start + 1_000])
                await uringio.sleep(0.001)

    async def drain() -> None:
        """Use the ring of buffers up meanwhile, so that it comes round."""
        async with await uringio.connect_tcp("127.0.0.1", PORT) as stream:
            assert b"".join([chunk async for chunk in stream]) == sent

    kept: list[memoryview] = []
    got = bytearray()
    async with (
        await uringio.listen_tcp("127.0.0.1", PORT) as listener,
        uringio.TaskGroup() as serving,
    ):
        serving.start_soon(listener.serve, feed)
        async with (
            uringio.TaskGroup() as others,
            await uringio.connect_tcp("127.0.0.1", PORT) as stream,
        ):
            others.start_soon(drain)
            while view := await stream.recv_lease():
                kept.append(view)
                if len(kept) == 50:
                    got += b"".join(kept)
                    kept.clear()
                del view
            got += b"".join(kept)
            kept.clear()
        serving.cancel_scope.cancel()
    assert bytes(got) == sent


async def half_closed() -> int:
    """
    Wait for room towards a peer that has ended its sending, by polls that are cancelled and by
    one that is not, again and again; returns how many ended of themselves.
    """
    ended = 0
    async with await uringio.listen_unix("/half closed") as listener:
        near = await uringio.connect_unix("/half closed")
        far = await listener.accept()
    async with near, far:
        await far.send_eof()
        for round_ in range(12):
            sent = 0
            with uringio.move_on_after(0.02) as scope:
                while True:
                    await near.send_all(bytes(10_000))
                    sent += 10_000
            # What was cancelled had moved some.
            assert scope.cancelled_caught
            with uringio.move_on_after(0.001 * (round_ % 3)) as scope:
                await wait_writable(near)
            assert scope.cancelled_caught, "there was no room"
            async with uringio.TaskGroup() as group:
                group.start_soon(_drain, far)
                assert await poll(near, PollEvents.OUT) == PollEvents.OUT
                ended += 1
                group.cancel_scope.cancel()
    return ended


async def _drain(stream: uringio.SocketStream) -> None:
    while True:
        await stream.recv()
