"""
Mixed load with cancellations on the asyncio loop, for as long as one likes: does anything grow?

    python -m tools.soak [--seconds 600] [--backend uring] [--json FILE]

One process runs servers and clients: streams, TLS streams, datagrams, socket objects, pipes of
subprocesses, executors, uringio's own streams and files, timers.  A fifth of what is begun is
cancelled at a random moment.  Every few seconds the clients pause, and what the process holds is
counted: resident memory, descriptors, threads, tasks, operations in flight.  All must be flat:
the last third of the run may not exceed the second by more than the noise of one part in fifty.
"""

import argparse
import asyncio
import collections
import contextlib
import gc
import json
import os
import random
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uringio
import uringio.aio
from uringio._driver import current

CLIENTS = 24
ROUND_S = 5.0
TOLERANCE = 1.02

Work = Callable[[random.Random], Awaitable[None]]


class WrongError(Exception):
    """What came back is not what was sent."""


class Servers:
    """What the clients talk to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tcp = self.tls = self.native = 0
        self.trust: ssl.SSLContext | None = None

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send back what comes."""
        with contextlib.suppress(OSError):
            while part := await reader.read(65536):
                writer.write(part)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def echo_natively(self, stream: uringio.SocketStream) -> None:
        """Send back what comes, by operations of our own."""
        async with stream:
            with contextlib.suppress(uringio.errors.UringioError):
                while part := await stream.recv(65536):
                    await stream.send_all(part)

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Open what listens."""
        plain = await asyncio.start_server(self.echo, "127.0.0.1", 0, backlog=512)
        await stack.enter_async_context(plain)
        self.tcp = plain.sockets[0].getsockname()[1]
        with contextlib.suppress(ImportError):
            context, self.trust = contexts()
            tls = await asyncio.start_server(self.echo, "127.0.0.1", 0, ssl=context, backlog=512)
            await stack.enter_async_context(tls)
            self.tls = tls.sockets[0].getsockname()[1]
        listener = await uringio.listen_tcp("127.0.0.1", 0)
        await stack.enter_async_context(listener)
        self.native = listener.local_address[1]
        serving = asyncio.ensure_future(listener.serve(self.echo_natively))
        stack.push_async_callback(ended, serving)

    # --- what the clients do ---------------------------------------------------------------------

    async def talk(self, draw: random.Random, trust: ssl.SSLContext | None = None) -> None:
        """Have a conversation over asyncio's streams, plain or by TLS."""
        port = self.tcp if trust is None else self.tls
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trust, server_hostname=None if trust is None else "localhost"
        )
        try:
            for _ in range(draw.randrange(1, 20)):
                said = draw.randbytes(draw.choice((1, 64, 5000, 200_000)))
                writer.write(said)
                check(await reader.readexactly(len(said)) == said, "streams")
        finally:
            writer.close()
            if draw.random() < 0.5:
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def talk_by_tls(self, draw: random.Random) -> None:
        """Have a conversation by TLS."""
        if self.trust is not None:
            await self.talk(draw, self.trust)

    async def talk_natively(self, draw: random.Random) -> None:
        """Have a conversation by operations of our own."""
        async with await uringio.connect_tcp("127.0.0.1", self.native) as stream:
            for _ in range(draw.randrange(1, 20)):
                said = draw.randbytes(draw.choice((1, 64, 5000, 100_000)))
                await stream.send_all(said)
                heard = b""
                while len(heard) < len(said):
                    part = await stream.recv(65536)
                    check(bool(part), "end of a native stream")
                    heard += part
                check(heard == said, "native streams")

    async def datagrams(self, draw: random.Random) -> None:
        """Send datagrams to oneself."""
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        class Receiver(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: object) -> None:
                heard.put_nowait(data)

        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            Receiver, local_addr=("127.0.0.1", 0)
        )
        try:
            for _ in range(draw.randrange(1, 10)):
                said = draw.randbytes(draw.randrange(1400))
                transport.sendto(said, transport.get_extra_info("sockname"))
                check(await heard.get() == said, "datagrams")
        finally:
            transport.close()

    async def socket_objects(self, draw: random.Random) -> None:
        """Use `sock_*` and readers."""
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", self.tcp))
            for _ in range(draw.randrange(1, 10)):
                said = draw.randbytes(draw.choice((1, 3000)))
                await loop.sock_sendall(sock, said)
                heard = b""
                while len(heard) < len(said):
                    heard += await loop.sock_recv(sock, 65536)
                check(heard == said, "socket objects")
            readable = loop.create_future()
            loop.add_reader(sock, lambda: readable.done() or readable.set_result(None))
            try:
                await loop.sock_sendall(sock, b"!")
                await readable
            finally:
                loop.remove_reader(sock)

    async def processes(self, draw: random.Random) -> None:
        """Feed a child and read what it makes of it."""
        said = draw.randbytes(20_000)
        process = await asyncio.create_subprocess_exec(
            "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            heard, _ = await process.communicate(said)
            check(heard == said, "subprocesses")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def files(self, draw: random.Random) -> None:
        """Write a file and read it back."""
        path = self.folder / f"{draw.randrange(1 << 30)}"
        said = draw.randbytes(draw.choice((0, 100, 300_000)))
        try:
            async with await uringio.open_file(path, "w+b") as file:
                await file.write_all(said)
                check(await file.read_at(0, 1 << 20) == said, "files")
        finally:
            path.unlink(missing_ok=True)

    async def the_rest(self, draw: random.Random) -> None:
        """Time out, gather, and work in threads."""
        loop = asyncio.get_running_loop()
        check(await loop.run_in_executor(None, sum, range(1000)) == 499500, "executor")
        check(await uringio.offload(sum, range(1000)) == 499500, "offload")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), draw.random() * 0.01)
        await asyncio.gather(*(asyncio.sleep(draw.random() * 0.01) for _ in range(10)))


def check(right: bool, what: str) -> None:
    """Stop the run when something is not as it must be."""
    if not right:
        raise WrongError(what)


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a server's and a client's context for localhost."""
    import trustme

    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def ended(task: "asyncio.Task[None]") -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait([task])


async def client(
    works: list[Work], seed: int, until: float, count: "collections.Counter[str]"
) -> None:
    """Do one thing after the other, and cancel a fifth of them."""
    draw = random.Random(seed)
    while time.monotonic() < until:
        work = draw.choice(works)
        task = asyncio.ensure_future(work(draw))
        try:
            if draw.random() < 0.2:
                await asyncio.sleep(draw.random() ** 2 * 0.05)
                count["cancelled"] += task.cancel()
            await asyncio.wait([task])
        finally:
            task.cancel()
        if task.cancelled():
            continue
        if (error := task.exception()) is not None:
            raise error
        count[work.__name__] += 1


def holdings() -> dict[str, int]:
    """Count what the process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "rss_kib": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
        "fds": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "in_flight": current.driver().statistics().in_flight,
        "objects": len(gc.get_objects()),
    }


async def settled() -> dict[str, int]:
    """Wait until what the last round left has gone, and count."""
    last = holdings()
    for _ in range(100):
        await asyncio.sleep(0.02)
        now = holdings()
        if all(now[name] >= last[name] for name in ("fds", "tasks", "in_flight")):
            return now
        last = now
    return last


async def soak(
    seconds: float, folder: Path
) -> tuple[list[dict[str, int]], collections.Counter[str]]:
    """Run the load; what was held after each round, and how often each thing was done."""
    count: collections.Counter[str] = collections.Counter()
    samples: list[dict[str, int]] = []
    async with contextlib.AsyncExitStack() as stack:
        servers = Servers(folder)
        await servers.start(stack)
        works: list[Work] = [
            servers.talk, servers.talk_by_tls, servers.talk_natively, servers.datagrams,
            servers.socket_objects, servers.processes, servers.files, servers.the_rest,
        ]  # fmt: skip
        end = time.monotonic() + seconds
        seed = 0
        while time.monotonic() < end:
            until = min(time.monotonic() + ROUND_S, end)
            async with asyncio.TaskGroup() as group:
                for _ in range(CLIENTS):
                    seed += 1
                    group.create_task(client(works, seed, until, count))
            samples.append(await settled())
            shown = "  ".join(f"{name} {value}" for name, value in samples[-1].items())
            print(f"{len(samples) * ROUND_S:>5.0f} s  {shown}", flush=True)
    return samples, count


def grown(samples: list[dict[str, int]]) -> list[str]:
    """Say what grew from the second third of the run to the last."""
    third = len(samples) // 3
    if not third:
        return []
    faults = []
    for name in samples[0]:
        middle = statistics.median(sample[name] for sample in samples[third : 2 * third])
        last = statistics.median(sample[name] for sample in samples[-third:])
        if last > middle * TOLERANCE + 1:
            faults.append(f"{name} grew from {middle:.0f} to {last:.0f}")
    return faults


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Mixed load: does anything grow?")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--json", type=Path, help="where to write what was counted")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples, count = uringio.aio.run(
            soak(options.seconds, Path(folder)), backend=options.backend
        )
    print("done:", ", ".join(f"{name} {times}" for name, times in sorted(count.items())))
    faults = grown(samples)
    print("grew: " + "; ".join(faults) if faults else "flat")
    if options.json is not None:
        options.json.write_text(json.dumps({"samples": samples, "done": count}) + "\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
