"""Programs that are careless with what is registered with the ring."""

import contextlib
import gc
import os
import socket
import tempfile
from contextlib import AsyncExitStack

import uringio
from uringio import Buffer, BufferPool, lowlevel
from uringio.errors import UringioError
from uringio.lowlevel import FixedFd

from .lab import POISON, Lab, Wrong, endured, numbered, program, refusals


@program
def slots_closed_and_reused(lab: Lab) -> None:
    """Direct descriptors are closed under operations and their slots reused, installed, dropped."""
    rng = lab.rng

    async def main() -> None:
        held: dict[int, tuple[FixedFd, socket.socket]] = {}
        tasks = []

        async def receive(mark: int, file: FixedFd) -> None:
            memory = bytearray(500)
            count = await endured(lowlevel.fixed_recv_into, file, memory)
            if count and memory[:count].count(mark) != count:
                raise Wrong(f"slot of {mark} got {bytes(memory[:20])!r}")

        async def send(mark: int, file: FixedFd) -> None:
            await endured(lowlevel.fixed_send, file, bytes([mark]) * rng.randint(1, 2000))

        for mark in range(rng.randint(10, 100)):
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            with ours, contextlib.suppress(UringioError):
                held[mark] = (lowlevel.register_fd(ours), theirs)
            if mark not in held:
                theirs.close()
                return  # another backend
            for _ in range(rng.randint(0, 3) if held else 0):
                chosen = rng.choice(list(held))
                file, peer = held[chosen]
                tasks.append(lab.spawn(rng.choice((receive, send)), chosen, file))
                with contextlib.suppress(OSError):
                    peer.send(bytes([chosen]) * rng.randint(1, 300))
                with contextlib.suppress(OSError):
                    got = peer.recv(5000)
                    if got.count(chosen) != len(got):
                        raise Wrong(f"peer {chosen} got {got[:20]!r}")
            if lab.chance(0.5):
                await lab.passes(0, 2)
            if lab.chance(0.2) and held:
                owned = await endured(lowlevel.install_fd, rng.choice(list(held.values()))[0])
                if owned is not None and lab.chance(0.5):
                    owned.close()
                del owned
            if lab.chance(0.3):
                rng.choice(tasks or [lab.spawn(endured, lowlevel.nop)]).cancel()
            if lab.chance(0.5) and held:
                file, peer = held.pop(rng.choice(list(held)))
                with refusals():
                    if lab.chance(0.7):
                        file.close()
                        file.close()
                del file
                peer.close()
            lab.plant(5)
        for file, peer in held.values():
            peer.close()
            with refusals():
                file.close()
        for task in tasks:
            task.cancel()
            await task.wait()
            if isinstance(task.error, Wrong):
                raise task.error

    lab.run(main)
    lab.verdict()


@program
def registered_memory_misused(lab: Lab) -> None:
    """Registered pools are withdrawn, forked, dropped and registered again with reads in flight."""
    rng = lab.rng
    content = numbered(0, 200_000)

    async def main(path: str) -> None:
        pool = BufferPool(2 << 20)
        file = await uringio.open_file(path, "r+b")

        async def read() -> None:
            offset, size = rng.randrange(200_000), rng.choice((100, 4096, 60_000))
            buffer = pool.allocate(size) if lab.chance(0.8) else Buffer(size)
            if buffer is None:
                return
            done = await endured(file.read_into, buffer, offset)
            if done is not None:
                count, buffer = done
                if buffer.read(0, count) != content[offset : offset + count]:
                    raise Wrong("a file's bytes are not its own")
            if lab.chance(0.7):
                with refusals():
                    buffer.release()

        tasks = []
        for _ in range(rng.randint(1, 6)):
            async with AsyncExitStack() as stack:
                with refusals():
                    await stack.enter_async_context(pool.registered())
                with refusals():
                    await stack.enter_async_context(pool.registered())  # which it is already
                for _ in range(rng.randint(1, 20)):
                    tasks.append(lab.spawn(read))
                    if lab.chance(0.3):
                        await lab.passes(0, 2)
                    if lab.chance(0.3):
                        rng.choice(tasks).cancel()
                    if lab.chance(0.05):
                        _fork_and_scribble(pool)
            if lab.chance(0.2):
                del pool
                pool = BufferPool(2 << 20)
        for task in tasks:
            await task.wait()
            if isinstance(task.error, Wrong):
                raise task.error
        await endured(file.aclose)

    with tempfile.NamedTemporaryFile() as plain:
        plain.write(content)
        plain.flush()
        lab.run(main, plain.name)
    gc.collect()
    lab.verdict()


def _fork_and_scribble(pool: BufferPool) -> None:
    pid = os.fork()
    if not pid:
        try:
            kept = []
            while (buffer := pool.allocate(4096)) is not None:
                kept.append(buffer)
                buffer.write(bytes([POISON]) * 4096)
        finally:
            os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise Wrong(f"a child ended with {status}")
