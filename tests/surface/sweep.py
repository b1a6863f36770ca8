"""
The cancel sweep: cancel an operation at every kind of moment, many times, and account for all.

A *cell* is an operation (accept, connect, recv, send, sleep), a phase, a scheduler and a driver.
The phases: ``before`` the operation reaches the kernel; in ``flight``, where nothing but the
cancellation can end it; and in a ``race`` with what completes it, either a sibling that acts some
passes before or after the cancellation, or a process that acts whenever it likes.

What is accounted for: a task whose cancellation was requested before it had its outcome ends as
cancelled, any other has its outcome; numbered bytes are neither lost nor doubled, and a cancelled
send's ``done`` is exact; every connection that was made is ended; no descriptor, no operation in
flight, no provided buffer is left behind; the loop ends.

Everything is drawn from a seed, which each failure names.
"""

import contextlib
import os
import random
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uringio
from tests.backends import LIBRARY
from tests.surface.pairs import PEER_S, call, queued_bytes
from tests.surface.schedulers import Gate, Scheduler
from tests.surface.sweep_peers import RESET_ON_CLOSE, numbered
from uringio import SocketStream
from uringio._driver import current
from uringio._driver.op import Op
from uringio._driver.uring import make_uring_driver
from uringio.lowlevel import nop
from uringio.net._hull import Hull
from uringio.net._listener import _Porch

OPERATIONS = ("accept", "connect", "recv", "send", "sleep")
PHASES = ("before", "flight", "race")

PEERS = Path(__file__).with_name("sweep_peers.py")
BUFFER_COUNT = 64  # what the uring driver provides to begin with


@dataclass
class Tally:
    """What became of a cell's attempts."""

    attempts: int = 0
    cancelled: int = 0
    completed: int = 0
    orphaned: int = 0  # cancelled, and carried out all the same: somebody else got what came of it

    def __str__(self) -> str:
        return f"{self.attempts} attempts, {self.cancelled} cancelled, {self.completed} completed"


class Sweep:
    """
    One cell.

    Args:
        scheduler: Whose tasks, and on which driver.
        phase: One of `PHASES`.
        count: Attempts. [count]
        seed: Of every choice.
    """

    def __init__(self, scheduler: Scheduler, phase: str, count: int, seed: int) -> None:
        self.scheduler = scheduler
        self.phase = phase
        self.count = count
        self.seed = seed
        self.rng = random.Random(seed)
        self.tally = Tally()

    def run(self, operation: str) -> Tally:
        """
        Sweep *operation*.

        Raises:
            AssertionError: Something was not accounted for.
        """
        before = open_descriptors()
        try:
            with counting_orphans(self.tally):
                self.scheduler.run(self._main, OPERATION_SWEEPS[operation])
            self.scheduler.run_and_leave(leave_in_flight, self.scheduler)
        except BaseException as error:
            cell = f"{operation}, {self.phase}, {self.scheduler!r}"
            error.add_note(f"{cell}, seed {self.seed}, after {self.tally}")
            raise
        assert open_descriptors() == before, "the loop left descriptors open"
        assert self.tally.attempts == self.count
        return self.tally

    async def _main(self, sweep: "Callable[[Sweep], Awaitable[None]]") -> None:
        statistics = current.driver().statistics
        first = statistics()
        fds = open_descriptors()
        await sweep(self)
        assert open_descriptors() == fds, "descriptors are left open"
        last = statistics()
        assert last.in_flight == first.in_flight, "operations are left in flight"
        assert last.stray == 0, "completions came for no operation"
        assert last.starved == 0, "buffers ran out with one receiver"
        await burst(BUFFER_COUNT)
        assert statistics().starved == 0, "a provided buffer is lost"

    # --- one attempt -----------------------------------------------------------------------------

    async def attempt(
        self,
        make: Callable[[], Awaitable[object]],
        act: Callable[[], object] = lambda: None,
        *,
        after_flight: Callable[[], object] = lambda: None,
    ) -> tuple[BaseException | None, object]:
        """
        Await what *make* makes in a task, cancel it as the phase says, and check what it saw.

        Args:
            act: Completes the operation; called in races only.
            after_flight: Checks that nothing has completed it; called in ``flight`` only.

        Returns:
            The cancelled exception and None, or None and the value.
        """
        outcome: list[object] = []
        cancelled_itself = False

        async def body() -> None:
            if cancelled_itself:
                spawned.cancel()
            try:
                outcome.append(await make())
            except Exception as error:
                outcome.append(error)
                raise

        def cancel() -> bool:
            """Cancel; True if the outcome was not there yet."""
            spawned.cancel()
            return not outcome

        rng = self.rng
        if self.phase == "before":
            how = rng.randrange(3)
            cancelled_itself = how == 1
            spawned = self.scheduler.spawn(body)
            if how == 0:
                cancel()
            elif how == 2:
                done = Gate()

                async def sibling() -> None:  # its first step follows the task's own, in one pass
                    if spawned.ended:  # natively a receive of what is there waits for nothing
                        assert outcome
                    cancel()
                    done.open()

                self.scheduler.spawn(sibling)
                await done.wait()
            must_be_cancelled = how != 2 or not outcome
        else:
            spawned = self.scheduler.spawn(body)
            if self.phase == "flight":
                await self.pass_until_handed_over()
                after_flight()
                assert not spawned.ended, "it did not wait"
                must_be_cancelled = cancel()
                assert must_be_cancelled
            else:
                await self.pass_some(0, 3)
                if rng.random() < 0.5:
                    act()
                    await self.pass_some(0, 3)
                    must_be_cancelled = cancel()
                else:
                    must_be_cancelled = cancel()
                    await self.pass_some(0, 2)
                    act()
        await spawned.wait()
        self.tally.attempts += 1
        if must_be_cancelled:
            assert spawned.cancelled, f"cancelled in time, and yet: {spawned.error!r} {outcome!r}"
            assert not outcome
            self.tally.cancelled += 1
            return spawned.error, None
        assert spawned.error is None, f"not cancelled in time, and yet: {spawned.error!r}"
        self.tally.completed += 1
        return None, outcome[0]

    async def pass_some(self, least: int, most: int) -> None:
        """
        Let the loop make a few passes.

        After a checkpoint every outcome has been delivered; after an operation, which is what tasks
        mostly wait for, those of the same turn may not be yet.
        """
        for _ in range(self.rng.randint(least, most)):
            if self.rng.random() < 0.5:
                await self.scheduler.checkpoint()
            else:
                await nop()

    async def pass_until_handed_over(self) -> None:
        """
        Let the loop make a few passes, in which the driver gets what was just spawned and enters.

        Only an operation that is awaited last proves the entering, since the kernel takes both in
        order: after an operation, a pass of asyncio's goes on with its callbacks, so a checkpoint
        that follows is over before the driver's next turn.
        """
        await self.pass_some(1, 4)
        await nop()

    def halves(self) -> tuple[int, int]:
        """Split the attempts: those beside a sibling, and those beside a process."""
        processed = self.count // 2 if self.phase == "race" else 0
        return self.count - processed, processed


# --- the operations ------------------------------------------------------------------------------


async def sweep_sleep(sweep: Sweep) -> None:
    """Cancel `uringio.sleep`: of no time, of a moment, of half an hour."""
    for _ in range(sweep.count):
        seconds = 1800.0
        if sweep.phase == "race":
            seconds = sweep.rng.choice((0.0, sweep.rng.random() * 1e-4))
        await sweep.attempt(lambda seconds=seconds: uringio.sleep(seconds))  # type: ignore[misc]


async def sweep_recv(sweep: Sweep) -> None:
    """Cancel `recv`; whatever was sent is received once, in order."""
    beside_sibling, beside_process = sweep.halves()
    rng = sweep.rng
    async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
        with call(listener) as peer:
            stream = await listener.accept()
            sent = received = 0

            def act() -> None:
                nonlocal sent
                data = numbered(sent, rng.randrange(1, 40))
                sent += len(data)
                peer.sendall(data)

            async with stream:
                for _ in range(beside_sibling):
                    _, data = await sweep.attempt(lambda: receive_some(stream, rng), act)
                    received += check_next(data, received)
                    if rng.random() < 0.2:
                        act()
                    if rng.random() < 0.5 or sweep.phase == "flight":
                        rest = await stream.recv_exactly(sent - received)
                        received += check_next(rest, received)
                peer.shutdown(socket.SHUT_WR)
                while rest := await stream.recv():
                    received += check_next(rest, received)
                assert received == sent
        with process("write", str(listener.local_address[1]), sweep.seed) as writer:
            received = 0
            async with await listener.accept() as stream:
                for _ in range(beside_process):
                    _, data = await sweep.attempt(lambda: receive_some(stream, rng))
                    received += check_next(data, received)
                writer.finish()
                while rest := await stream.recv():
                    received += check_next(rest, received)
            assert received == writer.number()


def receive_some(stream: SocketStream, rng: random.Random) -> Awaitable[bytes]:
    """Receive by one of the ways there are."""
    if rng.random() < 0.2:
        return stream.recv_exactly(rng.randrange(1, 100))
    return stream.recv(rng.choice((1, 3, 64, 65536)))


async def sweep_send(sweep: Sweep) -> None:
    """Cancel `send_all`, and go on behind what ``done`` says has left."""
    beside_sibling, beside_process = sweep.halves()
    rng = sweep.rng
    small = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        port = server.getsockname()[1]
        # In flight only what is more than all buffers hold; else of any size.
        least, most = (60_000, 60_001) if sweep.phase == "flight" else (1, 20_000)

        async def send_next(act: Callable[[], None]) -> None:
            nonlocal sent
            size = rng.randrange(least, most)
            data: bytes | bytearray = numbered(sent, size)
            if rng.random() < 0.3:
                data = bytearray(data)
            error, _ = await sweep.attempt(lambda: stream.send_all(data), act)
            sent += size if error is None else getattr(error, "done", 0)
            if isinstance(data, bytearray):
                data.clear()  # nothing holds it any more

        async with await uringio.connect_tcp("127.0.0.1", port, options=small) as stream:
            sent = received = 0
            peer, _ = server.accept()
            with peer:
                peer.setblocking(False)

                def act() -> None:
                    nonlocal received
                    while queued_bytes(peer):
                        received += check_next(peer.recv(1 << 20), received)

                for _ in range(beside_sibling):
                    await send_next(act)
                    if rng.random() < 0.5 or sweep.phase == "flight":
                        act()
                await stream.send_eof()
                peer.settimeout(PEER_S)
                while data := peer.recv(1 << 20):
                    received += check_next(data, received)
                assert received == sent, f"{sent} bytes were sent by the count, {received} received"

    async with await uringio.listen_tcp("127.0.0.1", 0, options=small) as listener:
        with process("read", str(listener.local_address[1]), sweep.seed) as reader:
            sent = 0
            async with await listener.accept() as stream:
                for _ in range(beside_process):
                    await send_next(lambda: None)
                await stream.send_eof()
                reader.finish()
                received = reader.number()
            assert received == sent, f"{sent} bytes were sent by the count, {received} received"


async def sweep_accept(sweep: Sweep) -> None:
    """Cancel `accept`; every connection that was made is accepted by somebody, and ended."""
    beside_sibling, beside_process = sweep.halves()
    async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
        fd = listener._fd.number
        clients: list[socket.socket] = []
        for _ in range(beside_sibling):
            if sweep.phase == "before" and sweep.rng.random() < 0.5:
                clients.append(call(listener))  # it is there already, and stays in the queue
            _, stream = await sweep.attempt(listener.accept, lambda: clients.append(call(listener)))
            await end(stream)
            while readable(fd):
                await end(await listener.accept())
            for client in clients:
                with client, contextlib.suppress(ConnectionResetError):
                    assert client.recv(1) == b""
                    client.setsockopt(*RESET_ON_CLOSE)
            clients.clear()
        with process("connect", str(listener.local_address[1]), sweep.seed) as connector:
            for _ in range(beside_process):
                _, stream = await sweep.attempt(listener.accept)
                await end(stream)
            connector.finish()
            connector.number()  # it makes no more; what is in the queue still
            while readable(fd):
                await end(await listener.accept())
            connector.number()  # every one of them has been ended


async def sweep_connect(sweep: Sweep) -> None:
    """Cancel connecting; no socket is left half open, and whoever was connected sees the end."""
    beside_sibling, beside_process = sweep.halves()
    with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
        path = f"{folder}/socket"
        with (
            socket.create_server(("127.0.0.1", 0), backlog=0) as tcp,
            socket.socket(socket.AF_UNIX) as unix,
        ):
            unix.bind(path)
            unix.listen(0)
            port = tcp.getsockname()[1]
            waiting: list[socket.socket] = []
            if sweep.phase == "flight":  # nobody ever accepts: the queues are full
                waiting.append(socket.create_connection(("127.0.0.1", port)))
                waiting.append(plain_unix(path))
                # The client is connected before the listener has its last word.
                assert select.select([tcp], [], [], PEER_S)[0]

            def drain() -> None:
                for server in (tcp, unix):
                    while readable(server.fileno()):
                        connection, _ = server.accept()
                        connection.close()

            for number in range(beside_sibling):
                by_path = number % 2 == 1
                if by_path and sweep.phase == "race" and sweep.rng.random() < 0.5:
                    waiting.append(plain_unix(path))  # the queue is full until `act`
                looks_closely = number % 500 == 0

                def see_half_open(looks_closely: bool = looks_closely) -> None:
                    assert not looks_closely or half_open(port) == 1

                _, stream = await sweep.attempt(
                    (lambda: uringio.connect_unix(path))
                    if by_path
                    else (lambda: uringio.connect_tcp("127.0.0.1", port)),
                    drain,
                    after_flight=see_half_open,
                )
                await end(stream)
                if sweep.phase != "flight":
                    drain()
                    for one in waiting:
                        one.close()
                    waiting.clear()
                elif looks_closely:
                    assert half_open(port) == 0
            for one in waiting:
                one.close()
            assert half_open(port) == 0, "a cancelled connection is still being made"
        other = f"{folder}/other"
        with (
            process("accept", "0", sweep.seed) as tcp_acceptor,
            process("accept", other, sweep.seed + 1) as unix_acceptor,
        ):
            port = tcp_acceptor.number()
            assert unix_acceptor.line() == other
            for number in range(beside_process):
                _, stream = await sweep.attempt(
                    (lambda: uringio.connect_unix(other))
                    if number % 2
                    else (lambda: uringio.connect_tcp("127.0.0.1", port))
                )
                await end(stream, abruptly=True)
            assert half_open(port) == 0
            for acceptor in (tcp_acceptor, unix_acceptor):
                acceptor.finish()
                acceptor.number()


OPERATION_SWEEPS: dict[str, Callable[[Sweep], Awaitable[None]]] = {
    "accept": sweep_accept,
    "connect": sweep_connect,
    "recv": sweep_recv,
    "send": sweep_send,
    "sleep": sweep_sleep,
}


# --- at the end of a cell ------------------------------------------------------------------------


async def burst(count: int) -> None:
    """
    Make *count* receives for which there are bytes already, all handed over by one turn.

    The uring driver needs a provided buffer for each of them before the first comes back.
    """
    async with many_streams(count) as pairs:
        for stream, peer in pairs:
            peer.sendall(b"x" * 1000)
            while queued_bytes(stream) < 1000:
                pass
        received: list[bytes] = []
        done = Gate()

        def one_done(op: Op[bytes]) -> None:
            received.append(op.result())
            if len(received) == count:
                done.open()

        for stream, _ in pairs:
            stream.recv().add_done_callback(one_done)
        await done.wait()
        assert received == [b"x" * 1000] * count


@asynccontextmanager
async def many_streams(count: int) -> AsyncIterator[list[tuple[SocketStream, socket.socket]]]:
    """Yield connected streams, each with its plain peer."""
    pairs: list[tuple[SocketStream, socket.socket]] = []
    async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
        for _ in range(count):
            peer = call(listener)
            pairs.append((await listener.accept(), peer))
    try:
        yield pairs
    finally:
        for stream, peer in pairs:
            await stream.aclose()
            peer.close()


async def leave_in_flight(scheduler: Scheduler) -> None:
    """Return while tasks wait in operations of every kind: the loop has to end them."""
    listener = await uringio.listen_tcp("127.0.0.1", 0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = await uringio.connect_tcp(*server.getsockname())

        async def accept() -> None:
            async with listener:
                await listener.accept()

        async def receive() -> None:
            async with stream:
                await stream.recv()

        async def send() -> None:
            await stream.send_all(bytes(50_000_000))

        async def sleep() -> None:
            await uringio.sleep(1800)

        for one in (accept, receive, send, sleep):
            scheduler.spawn(one)
        await scheduler.checkpoint()
        await scheduler.checkpoint()


# --- accounting ----------------------------------------------------------------------------------


def check_next(data: object, position: int) -> int:
    """Check *data*, if there is any, against the numbered stream; return its length."""
    if data is None:
        return 0
    assert isinstance(data, bytes)
    assert data == numbered(position, len(data)), f"wrong bytes after {position}"
    return len(data)


async def end(stream: object, *, abruptly: bool = False) -> None:
    """Close an accepted or connected stream, if there is one."""
    if stream is not None:
        assert isinstance(stream, SocketStream)
        if abruptly:
            stream.setsockopt(*RESET_ON_CLOSE)
        await stream.aclose()


@contextmanager
def oldest_ring() -> Iterator[None]:
    """
    Have the uring driver set its ring up as on Linux 5.19, the oldest that it knows.

    There a completion may come at any system call, not only when the driver asks: so an operation
    may have been carried out before its cancellation gets to the kernel.
    """
    defaults = make_uring_driver.__kwdefaults__
    assert defaults is not None
    ladder = defaults["ladder"]
    defaults["ladder"] = ladder[-1:]
    try:
        yield
    finally:
        defaults["ladder"] = ladder


@contextmanager
def counting_orphans(tally: Tally) -> Iterator[None]:
    """Count what owners of operations hear of."""
    originals = [(owner, owner.orphan) for owner in (Hull, _Porch)]

    def counting(orphan: Callable[..., None]) -> Callable[..., None]:
        def count(owner: object, op: object, value: object) -> None:
            tally.orphaned += value is not None and value != b""
            orphan(owner, op, value)

        return count

    for owner, orphan in originals:
        owner.orphan = counting(orphan)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for owner, orphan in originals:
            owner.orphan = orphan  # type: ignore[method-assign]


def open_descriptors() -> int:
    """Count the process's descriptors, but for a library that closes its own when it likes."""
    return 0 if LIBRARY else len(os.listdir("/proc/self/fd"))


def readable(fd: int) -> bool:
    """Whether *fd* is ready to read, or to accept."""
    return bool(select.select([fd], [], [], 0)[0])


def half_open(port: int) -> int:
    """Count the sockets that are still connecting to *port* of 127.0.0.1 (state SYN-SENT)."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    # Of this address only: others on this machine may be connecting to the same port of another.
    home = int.from_bytes(socket.inet_aton("127.0.0.1"), sys.byteorder)
    remote = f"{home:08X}:{port:04X}"
    return sum(fields[2:4] == [remote, "02"] for fields in map(str.split, lines))


def plain_unix(path: str) -> socket.socket:
    """Connect a plain Unix socket."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PEER_S)
    client.connect(path)
    return client


class Peer:
    """A running `sweep_peers` process."""

    def __init__(self, child: "subprocess.Popen[str]") -> None:
        self._child = child

    def finish(self) -> None:
        """Tell it to come to its end."""
        assert self._child.stdin is not None
        self._child.stdin.close()

    def line(self) -> str:
        """Wait for the next line that it prints."""
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()

    def number(self) -> int:
        """Wait for the next number that it prints."""
        return int(self.line())


@contextmanager
def process(role: str, address: str, seed: int) -> Iterator[Peer]:
    """Run a role of `sweep_peers`; it must end well."""
    with subprocess.Popen(
        [sys.executable, "-S", str(PEERS), role, address, str(seed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield Peer(child)
            assert child.wait(PEER_S) == 0
        finally:
            child.kill()
