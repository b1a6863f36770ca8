"""
The cancel race: receives of every kind, a part of them cancelled, against a process that sends.

Some streams are read by a task each, in one of the ways there are, while one process writes the
numbered stream on all of them.  A part of the receives is cancelled, a few passes after it began:
before the kernel knows of it, while it waits, or as its bytes arrive.  At the end every byte must
have been received once, in order, whatever was cancelled; every buffer is back in its pool, every
provided buffer in the driver's, leased ones included, no descriptor is left open, and nothing is in
flight.
"""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uringio
from tests.surface.cancel_race_peer import numbered
from tests.surface.schedulers import Scheduler
from tests.surface.sweep import BUFFER_COUNT, Tally, burst, counting_orphans, open_descriptors
from uringio import Buffer, BufferPool, SocketStream
from uringio._driver import current
from uringio.errors import UseAfterMoveError

__all__ = ["KINDS", "Figures", "Race"]

KINDS = ("recv", "buffer", "foreign", "lease")
PEER = Path(__file__).with_name("cancel_race_peer.py")
STREAM_COUNT = 8
PEER_S = 60.0
LEASES_MAX = 6  # held by a stream at the same time
HASTE = 20  # cancelled receives too few
PASSES_MAX = 3  # how long after its beginning a receive may be cancelled
_SIZES = (1, 7, 300, 4096, 65536)


@dataclass
class Figures:
    """What became of a race's receives."""

    receives: int = 0
    cancelled: int = 0
    too_late: int = 0  # of those: the kernel had bytes for them already, which were kept
    outrun: int = 0  # were to be cancelled, and had been done before
    by_kind: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    received_bytes: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.by_kind.items())
        return (
            f"{self.receives} receives ({kinds}), {self.cancelled} cancelled "
            f"({self.too_late} with bytes to keep), {self.outrun} done before, "
            f"{self.received_bytes} bytes, {self.seconds:.1f} s"
        )


class _Doomed:
    """A receive that is to be cancelled."""

    __slots__ = ("cancel", "is_over", "passes", "was_told")

    def __init__(self, cancel: Callable[[], object], passes: int) -> None:
        self.cancel = cancel
        self.passes = passes
        self.is_over = False
        self.was_told = False


class Race:
    """
    One race.

    Args:
        scheduler: Whose tasks, and on which driver.
        count: Receives. [count]
        seed: Of every choice.
        share: Of them are cancelled. [fraction]
    """

    def __init__(self, scheduler: Scheduler, count: int, seed: int, share: float = 0.3) -> None:
        self.scheduler = scheduler
        self.count = count
        self.share = share
        self.seed = seed
        self.rng = random.Random(seed)
        self.figures = Figures()
        self.pool = BufferPool(4 << 20)
        self._doomed: list[_Doomed] = []
        self._readers = 0
        self.attempt = self._native if scheduler.name == "native" else self._edge

    def run(self) -> Figures:
        """
        Run it.

        Raises:
            AssertionError: Something was not accounted for.
        """
        began = time.monotonic()
        fds = open_descriptors()
        try:
            with counting_orphans(tally := Tally()):
                self.scheduler.run(self._main)
        except BaseException as error:
            error.add_note(f"{self.scheduler!r}, seed {self.seed}, after {self.figures}")
            raise
        assert open_descriptors() == fds, "the loop left descriptors open"
        assert not self.pool.stats().out_count, f"buffers are lost: {self.pool.stats()}"
        self.figures.too_late = tally.orphaned
        self.figures.seconds = time.monotonic() - began
        return self.figures

    async def _main(self) -> None:
        statistics = current.driver().statistics
        in_flight = statistics().in_flight
        fds = open_descriptors()
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            port = listener.local_address[1]
            with _sender(int(port), STREAM_COUNT, self.seed) as sender:
                async with _accepted(listener, STREAM_COUNT) as streams:
                    self._readers = STREAM_COUNT
                    readers = [self.scheduler.spawn(self._read_all, stream) for stream in streams]
                    await self._cancel_doomed()
                    positions = [await reader.result() for reader in readers]
                    assert sender.stdin is not None
                    assert sender.stdout is not None
                    sender.stdin.close()
                    for stream, position in zip(streams, positions, strict=True):
                        async for data in stream:
                            assert data == numbered(position[0], len(data)), (
                                "wrong bytes at the end"
                            )
                            position[0] += len(data)
                    sent = [int(one) for one in sender.stdout.readline().split()]
                    # Connections are accepted in the order in which they were made.
                    assert [position[0] for position in positions] == sent
                    self.figures.received_bytes = sum(sent)
        assert open_descriptors() == fds, "descriptors are left open"
        last = statistics()
        assert last.in_flight == in_flight, "operations are left in flight"
        assert last.stray == 0, "completions came for no operation"
        assert last.starved == 0, "buffers ran out with few receivers"
        await burst(BUFFER_COUNT)
        assert statistics().starved == 0, "a provided buffer is lost"

    async def _read_all(self, stream: SocketStream) -> list[int]:
        try:
            return await self._read(stream)
        except BaseException:
            self.figures.receives = self.count  # the others need not go on
            raise
        finally:
            self._readers -= 1

    async def _read(self, stream: SocketStream) -> list[int]:
        """Receive in all ways, checking every byte; return the position that was reached."""
        rng, figures = self.rng, self.figures
        position = [0]
        buffers = [self._allocate(size) for size in _SIZES]
        foreign = [bytearray(size) for size in _SIZES]
        leases: list[tuple[int, memoryview]] = []
        try:
            while figures.receives < self.count:
                figures.receives += 1
                kind, index = rng.choice(KINDS), rng.randrange(len(_SIZES))
                figures.by_kind[kind] += 1
                if kind == "recv":
                    got = await self.attempt(lambda: stream.recv(_SIZES[index]))
                    data = got if isinstance(got, bytes) else None
                elif kind == "buffer":
                    old = buffers[index]
                    moved = await self.attempt(lambda: stream.recv_into(old))
                    data = None
                    if isinstance(moved, tuple):
                        count, buffers[index] = moved
                        data = buffers[index].read(0, count)
                        _is_shut(old)
                    else:
                        assert old.size == _SIZES[index]  # the handle opens it again
                elif kind == "lease":
                    lease = await self.attempt(stream.recv_lease)
                    data = None
                    if isinstance(lease, memoryview):
                        leases.append((position[0], lease))
                        data = bytes(lease)
                        if len(leases) > rng.randrange(LEASES_MAX):
                            _end_lease(*leases.pop(rng.randrange(len(leases))))
                else:
                    memory = foreign[index]
                    count = await self.attempt(lambda: stream.recv_into(memory))
                    data = bytes(memory[:count]) if isinstance(count, int) else None
                    memory.append(0)  # nobody holds it any more
                    memory.pop()
                if data is not None:
                    assert data == numbered(position[0], len(data)), f"wrong bytes by {kind}"
                    position[0] += len(data)
        finally:
            for buffer in buffers:
                buffer.release()
            for start, lease in leases:
                _end_lease(start, lease)
        return position

    def _allocate(self, size: int) -> Buffer:
        buffer = self.pool.allocate(size)
        assert buffer is not None
        return buffer

    # --- cancelling ------------------------------------------------------------------------------

    async def _native(self, make: Callable[[], Awaitable[object]]) -> object:
        with uringio.CancelScope() as scope:
            doomed = self._doom(scope.cancel)
            value = await make()
            self._completed(doomed)
            return value
        self._cancelled(doomed)
        return None

    async def _edge(self, make: Callable[[], Awaitable[object]]) -> object:
        task = asyncio.current_task()
        assert task is not None
        doomed = self._doom(task.cancel)
        try:
            value = await make()
        except asyncio.CancelledError:
            task.uncancel()
            self._cancelled(doomed)
            return None
        self._completed(doomed)
        return value

    def _doom(self, cancel: Callable[[], object]) -> _Doomed | None:
        missing = self.share * self.figures.receives - self.figures.cancelled
        if missing <= 0:
            return None
        # Where bytes are quicker, more of them are cancelled before they have well begun.
        doomed = _Doomed(cancel, self.rng.randint(0, PASSES_MAX) if missing < HASTE else 0)
        self._doomed.append(doomed)
        return doomed

    def _completed(self, doomed: _Doomed | None) -> None:
        if doomed is not None:
            assert not doomed.was_told, "cancelled in time, and yet it has a value"
            doomed.is_over = True
            self.figures.outrun += 1

    def _cancelled(self, doomed: _Doomed | None) -> None:
        assert doomed is not None
        assert doomed.was_told
        doomed.is_over = True
        self.figures.cancelled += 1

    async def _cancel_doomed(self) -> None:
        """Go through those who are to be cancelled, pass after pass, until the readers are done."""
        while self._readers:
            waiting, self._doomed = self._doomed, []
            for one in waiting:
                if one.is_over:
                    continue
                one.passes -= 1
                if one.passes < 0:
                    one.was_told = True
                    one.cancel()
                else:
                    self._doomed.append(one)
            await self.scheduler.checkpoint()


def _end_lease(start: int, lease: memoryview) -> None:
    """Give a lease back, whose bytes must be what they were when it came."""
    with lease:
        assert lease == numbered(start, len(lease)), "a lease was written while it was out"


def _is_shut(old: Buffer) -> None:
    try:
        old.read(0, 1)
    except UseAfterMoveError:
        return
    raise AssertionError("the handle that was moved still opens the buffer")


@asynccontextmanager
async def _accepted(listener: uringio.Listener, count: int) -> AsyncIterator[list[SocketStream]]:
    streams = [await listener.accept() for _ in range(count)]
    try:
        yield streams
    finally:
        for stream in streams:
            await stream.aclose()


@contextmanager
def _sender(port: int, count: int, seed: int) -> "Iterator[subprocess.Popen[str]]":
    """Run the sender; it must end well."""
    with subprocess.Popen(
        [sys.executable, "-S", os.fspath(PEER), str(port), str(count), str(seed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield child
            assert child.wait(PEER_S) == 0
        finally:
            child.kill()
