"""
Real programs on uringio's asyncio loop, under load: uvicorn, hypercorn, aiohttp, websockets, redis.

    python -m tools.real_programs [--connections 1000] [--exchanges 5] [--only NAME] [--backend B]

Each server is an example of examples/asyncio (or a redis server) in a process of its own; the
clients run here, on the same kind of loop.  Every connection makes exchanges whose answers are
compared with what they must be; one in ten is cancelled in the middle, its connection dropped and
made anew.  Afterwards the server must hold as many descriptors as before, and end by SIGTERM
quietly.
"""

import argparse
import asyncio
import collections
import hashlib
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import uringio.aio

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "asyncio"
PATIENCE_S = 60.0
LOOPS = {"uringio": uringio.aio.new_event_loop, "asyncio": asyncio.SelectorEventLoop}
OPENING_AT_ONCE = 100  # more would overrun the backlog of a server that is still in Python


class Client(Protocol):
    """A connection and what is said on it."""

    async def exchange(self, draw: random.Random) -> bool:
        """Ask something; whether the answer is right."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


Connect = Callable[[], Awaitable[Client]]


# --- clients -------------------------------------------------------------------------------------


class Web:
    """aiohttp's client: bodies of up to 256 KiB and their digests, websocket messages, waits."""

    def __init__(self, url: str, trust: ssl.SSLContext | None) -> None:
        import aiohttp

        self.url = url
        connector = aiohttp.TCPConnector(limit=1, ssl=trust if trust is not None else True)
        self.session = aiohttp.ClientSession(connector=connector)

    async def exchange(self, draw: random.Random) -> bool:
        kind = draw.randrange(3)
        if kind == 0:
            body = draw.randbytes(draw.choice((0, 1, 1000, 70_000, 262_144)))
            async with self.session.post(f"{self.url}/digest", data=body) as response:
                answer = await response.json()
            return bool(answer == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()})
        if kind == 1:
            text = draw.randbytes(draw.randrange(2000)).hex()
            async with self.session.ws_connect(f"{self.url}/echo") as websocket:
                await websocket.send_str(text)
                return bool(await websocket.receive_str() == text)
        async with self.session.get(f"{self.url}/wait/5") as response:
            return bool(await response.json() == {"waited": 5})

    async def close(self) -> None:
        await self.session.close()


class Http2:
    """httpx over HTTP/2: four requests at a time on one connection."""

    def __init__(self, url: str, trust: ssl.SSLContext | None) -> None:
        import httpx

        self.url = url
        self.client = httpx.AsyncClient(
            http2=True, verify=trust if trust is not None else True, timeout=PATIENCE_S
        )

    async def exchange(self, draw: random.Random) -> bool:
        bodies = [draw.randbytes(draw.choice((0, 10, 5000, 100_000))) for _ in range(4)]
        answers = await asyncio.gather(
            *(self.client.post(f"{self.url}/digest", content=body) for body in bodies)
        )
        return all(
            answer.http_version == "HTTP/2"
            and answer.json() == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            for body, answer in zip(bodies, answers, strict=True)
        )

    async def close(self) -> None:
        await self.client.aclose()


class Websocket:
    """The websockets package: four messages of up to 64 KiB, sent before the first is read."""

    def __init__(self, connection: "object") -> None:
        self.connection = connection

    @classmethod
    async def connect(cls, url: str, trust: ssl.SSLContext | None) -> "Websocket":
        from websockets.asyncio.client import connect

        return cls(await connect(url, ssl=trust, open_timeout=PATIENCE_S))

    async def exchange(self, draw: random.Random) -> bool:
        said = [draw.randbytes(draw.choice((0, 1, 500, 20_000, 65_536))) for _ in range(4)]
        for message in said:
            await self.connection.send(message)  # type: ignore[attr-defined]
        heard = [await self.connection.recv() for _ in said]  # type: ignore[attr-defined]
        return heard == said

    async def close(self) -> None:
        await self.connection.close()  # type: ignore[attr-defined]


class Queue:
    """redis' client: pipelines, transactions, and waits for what never comes."""

    def __init__(self, port: int, trust: ssl.SSLContext | None, name: int) -> None:
        from redis.asyncio import Redis

        tls = {} if trust is None else {"ssl": True, "ssl_ca_certs": self.authority}
        self.client = Redis(
            host="127.0.0.1",
            port=port,
            single_connection_client=True,
            socket_connect_timeout=PATIENCE_S,  # to make a context takes the loop milliseconds
            **tls,
        )
        self.name = f"uringio-{name}"

    authority: str = ""

    async def exchange(self, draw: random.Random) -> bool:
        value = draw.randbytes(draw.choice((0, 10, 20_000, 300_000)))
        async with self.client.pipeline(transaction=True) as pipe:
            pipe.set(self.name, value)
            pipe.get(self.name)
            pipe.rpush(f"{self.name}-list", value)
            pipe.lpop(f"{self.name}-list")
            _, got, _, popped = await pipe.execute()
        nothing = await self.client.blpop([f"{self.name}-never"], timeout=0.01)
        return bool(got == value and popped == value and nothing is None)

    async def close(self) -> None:
        await self.client.aclose()


# --- servers -------------------------------------------------------------------------------------


@contextmanager
def example(*command: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run an example that serves; yields its process and its port."""
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / command[0]), "--port", "0", *command[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("listening on"):
            raise SystemExit(f"{command[0]} does not serve:\n{line}{process.stdout.read()}")
        yield process, int(line.split()[-1])
    finally:
        process.kill()
        process.communicate()


@contextmanager
def redis_server(*tls: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a redis server on a port that nobody else has."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    ports = ["--port", "0", "--tls-port", str(port)] if tls else ["--port", str(port)]
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", *ports, *tls, "--save", "", "--dir", folder]
        command += ["--maxclients", "5000", "--bind", "127.0.0.1", "--tcp-backlog", "2048"]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "Ready to accept connections" in line:
                    break
            yield process, port
        finally:
            process.kill()
            process.communicate()


# --- load ----------------------------------------------------------------------------------------


async def worker(
    connect: Connect,
    exchanges: int,
    seed: int,
    count: "collections.Counter[str]",
    opening: asyncio.Semaphore,
    all_open: asyncio.Barrier,
) -> None:
    """Make *exchanges* on a connection, and cancel one in ten."""
    draw = random.Random(seed)
    async with opening:
        client = await connect()
        count["right" if await client.exchange(draw) else "wrong"] += 1
    await all_open.wait()
    for _ in range(exchanges):
        if draw.random() < 0.1:
            task = asyncio.ensure_future(client.exchange(draw))
            await asyncio.sleep(draw.random() * 0.02)
            if task.cancel():
                count["cancelled"] += 1
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is not None:
                count[f"cancelled with {task.exception()!r:.60}"] += 1
            await client.close()
            async with opening:
                client = await connect()
        count["right" if await client.exchange(draw) else "wrong"] += 1
    await client.close()


def descriptors(pid: int) -> int:
    """Count what *pid* has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


async def load(
    process: "subprocess.Popen[str]", connect: Connect, connections: int, exchanges: int
) -> "collections.Counter[str]":
    """Load a server; what came of it, by kind."""
    count: collections.Counter[str] = collections.Counter()
    opening, barrier = asyncio.Semaphore(OPENING_AT_ONCE), asyncio.Barrier(connections)
    client = await connect()  # so that what the server opens once is open
    await client.exchange(random.Random(0))
    await client.close()
    before = len(asyncio.all_tasks())
    held = descriptors(process.pid)
    async with asyncio.TaskGroup() as group:
        for seed in range(connections):
            group.create_task(worker(connect, exchanges, seed, count, opening, barrier))
    deadline = time.monotonic() + PATIENCE_S
    while descriptors(process.pid) > held and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    count["descriptors left in the server"] = max(descriptors(process.pid) - held, 0)
    while len(asyncio.all_tasks()) > before and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    count["tasks left in the client"] = max(len(asyncio.all_tasks()) - before, 0)
    return count


def end(process: "subprocess.Popen[str]") -> list[str]:
    """Ask the server to end; what is wrong with how it does."""
    process.send_signal(signal.SIGTERM)
    try:
        said, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return ["did not end"]
    if process.returncode not in {0, -signal.SIGTERM}:
        return [f"exit status {process.returncode}", said[-2000:]]
    return [said[-2000:]] if "Traceback" in said or "Warning" in said else []


def certificate(folder: Path) -> tuple[str, str, ssl.SSLContext]:
    """Make a certificate and a key for 127.0.0.1, and a context that trusts it."""
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    chain, key = folder / "certificate.pem", folder / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(chain))
    issued.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    trust = ssl.create_default_context(cafile=str(folder / "authority.pem"))
    return str(chain), str(key), trust


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Real programs on uringio's loop, under load.")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--exchanges", type=int, default=5)
    parser.add_argument("--only", default="", help="programs whose names match this")
    parser.add_argument("--backend", default="", help="of servers and clients")
    parser.add_argument("--loop", choices=LOOPS, default="uringio", help="of the clients")
    parser.add_argument("--json", type=Path, help="where to write the counts")
    options = parser.parse_args()
    if options.backend:
        os.environ["URINGIO_BACKEND"] = options.backend
    failed = False
    results: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        chain, key, trust = certificate(Path(folder))
        Queue.authority = str(Path(folder) / "authority.pem")
        for name, needs, server, connect in programs(chain, key, folder, trust):
            if not re.search(options.only, name):
                continue
            missing = [one for one in needs if not there(one)]
            if missing:
                print(f"{name:<22} skipped: no {', '.join(missing)} here")
                continue
            began = time.monotonic()
            with server() as (process, port):
                try:
                    with asyncio.Runner(loop_factory=LOOPS[options.loop]) as runner:
                        counts = runner.run(
                            load(process, connect(port), options.connections, options.exchanges)
                        )
                except Exception:  # the other programs are tried, too
                    traceback.print_exc()
                    print(f"{name:<22} failed", flush=True)
                    failed = True
                    continue
                faults = end(process)
            results[name] = dict(counts)
            right, cancelled = counts.pop("right"), counts.pop("cancelled")
            faults += [f"{what}: {times}" for what, times in counts.items() if times]
            failed |= bool(faults)
            print(
                f"{name:<22} {right:>6} right {cancelled:>5} cancelled "
                f"{time.monotonic() - began:>6.1f} s  {'; '.join(faults) or 'all well'}",
                flush=True,
            )
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return failed


def there(name: str) -> bool:
    """Whether a module, or a command, can be had."""
    return shutil.which(name) is not None or importlib.util.find_spec(name) is not None


def programs(
    chain: str, key: str, folder: str, trust: ssl.SSLContext
) -> Iterator[tuple[str, tuple[str, ...], Callable[[], object], Callable[[int], Connect]]]:
    """Yield name, what it needs, how it is served, and what connects to its port."""
    tls = ("--tls", chain, key)
    numbers = iter(range(1 << 62))

    async def web(url: str, trust: ssl.SSLContext | None) -> Client:
        return Web(url, trust)

    async def http2(url: str, trust: ssl.SSLContext | None) -> Client:
        return Http2(url, trust)

    async def queue(port: int, trust: ssl.SSLContext | None) -> Client:
        return Queue(port, trust, next(numbers))

    uvicorn = ("fastapi", "uvicorn", "aiohttp")
    for http in "h11", "httptools":
        yield (
            f"uvicorn {http}",
            uvicorn,
            (lambda h=http: example("web.py", "--http", h)),
            (lambda port: lambda: web(f"http://127.0.0.1:{port}", None)),
        )
    yield (
        "uvicorn TLS",
        uvicorn,
        (lambda: example("web.py", *tls)),
        (lambda port: lambda: web(f"https://127.0.0.1:{port}", trust)),
    )
    hypercorn = ("fastapi", "hypercorn", "httpx", "h2")
    yield (
        "hypercorn TLS h2",
        hypercorn,
        (lambda: example("hypercorn_h2.py", *tls)),
        (lambda port: lambda: http2(f"https://127.0.0.1:{port}", trust)),
    )
    yield (
        "aiohttp",
        ("aiohttp",),
        (lambda: example("aiohttp_pair.py", "--serve")),
        (lambda port: lambda: web(f"http://127.0.0.1:{port}", None)),
    )
    yield (
        "aiohttp TLS",
        ("aiohttp",),
        (lambda: example("aiohttp_pair.py", "--serve", *tls)),
        (lambda port: lambda: web(f"https://127.0.0.1:{port}", trust)),
    )
    yield (
        "websockets",
        ("websockets",),
        (lambda: example("websockets_echo.py", "--serve")),
        (lambda port: lambda: Websocket.connect(f"ws://127.0.0.1:{port}", None)),
    )
    yield (
        "websockets TLS",
        ("websockets",),
        (lambda: example("websockets_echo.py", "--serve", *tls)),
        (lambda port: lambda: Websocket.connect(f"wss://127.0.0.1:{port}", trust)),
    )
    yield "redis", ("redis", "redis-server"), redis_server, (lambda port: lambda: queue(port, None))
    secured = ("--tls-cert-file", chain, "--tls-key-file", key, "--tls-ca-cert-file",
               f"{folder}/authority.pem", "--tls-auth-clients", "no")  # fmt: skip
    yield (
        "redis TLS",
        ("redis", "redis-server"),
        (lambda: redis_server(*secured)),
        (lambda port: lambda: queue(port, trust)),
    )


if __name__ == "__main__":
    raise SystemExit(main())
