"""
Generated programs whose outcomes must be the same on every driver and kernel, simulated or real.

A program is a list of steps on the two ends of a connection and on a file: sends and receives of
every kind, half-closes, closes, polls, timeouts, receives that wait and are cancelled later, reads,
writes and syncs.  What came of each step is written down in words; what is compared are these.
"""

import hashlib
import itertools
import os
from collections.abc import Awaitable, Sequence
from typing import NamedTuple

import uringio
from tests.testing.places import is_simulated, run_at, unlike
from uringio.net import PollEvents, SocketStream, poll
from uringio.testing._dice import Dice

# What travels has arrived after so long, simulated or real; on a busy machine, after the others.
SETTLE_SECONDS = (0.003, 0.05, 0.5)
FILE_BYTES = 6_000
_names = itertools.count()


class Step(NamedTuple):
    """One call: what, on which end, how many bytes."""

    action: str
    end: int
    count: int


ACTIONS = (
    "send", "send", "send", "send_buffer", "recv", "recv", "recv_into", "recv_lease",
    "recv_exactly", "recv_soon", "recv_expired", "wait", "wait", "cancel", "cancel", "end", "close",
    "address", "write_at", "write_at", "read_at", "read_at", "read", "write", "truncate", "size",
    "sync", "open_missing", "open_again", "read_expired", "expire", "poll", "poll_urgent",
)  # fmt: skip


def program(seed: int, length: int = 14) -> list[Step]:
    """Write a program; what is in flight stays below what the buffers hold."""
    dice = Dice(seed, "program")
    return [
        Step(dice.pick(ACTIONS), dice.below(2), 1 + dice.below(dice.pick((1, 100, 3_000))))
        for _ in range(length)
    ]


class Waiting:
    """A receive that goes on beside the program, one for each end."""

    def __init__(self) -> None:
        self.scope = uringio.CancelScope()
        self.outcome = ""

    async def run(self, stream: SocketStream, count: int) -> None:
        with self.scope:
            self.outcome = await words(_received(stream, count))
        if self.scope.cancelled_caught:
            self.outcome = "cancelled"


class Program:
    """One run of a program."""

    def __init__(
        self,
        ends: tuple[SocketStream, SocketStream],
        file: uringio.File,
        path: str,
        settle_seconds: float,
        group: uringio.TaskGroup,
    ) -> None:
        self.ends = ends
        self.file = file
        self.path = path
        self.settle_seconds = settle_seconds
        self.group = group
        self.waiting: dict[int, Waiting] = {}

    async def carry_out(self, step: Step) -> str:
        """Do one step; says what came of it, and of a receive that has ended meanwhile."""
        try:
            outcome = await self._carry_out(step)
        except (OSError, uringio.UringioError) as error:
            outcome = told_error(error)
        await uringio.sleep(self.settle_seconds)
        for end, waiting in sorted(self.waiting.items()):
            if waiting.outcome:
                outcome += f"; {end} got {waiting.outcome}"
                del self.waiting[end]
        return outcome

    async def _carry_out(self, step: Step) -> str:
        action, end, count = step
        stream, file = self.ends[end], self.file
        if action == "send":
            await stream.send_all(bytes([count & 0xFF]) * count)
            return "sent"
        if action == "send_buffer":
            buffer = uringio.Buffer.holding(bytes([count & 0xFF]) * count)
            moved, buffer = await stream.send_buffer(buffer)
            buffer.release()
            return f"sent {moved}"
        if action == "recv_exactly":
            # Only what is surely there, or the end, comes in time.
            with uringio.move_on_after(self.settle_seconds):
                return told(await stream.recv_exactly(count))
            return "not enough"
        if action in {"recv", "recv_soon", "recv_into", "recv_lease"}:
            with uringio.move_on_after(self.settle_seconds):
                return await self._receive(action, stream, count)
            return "nothing"
        if action == "recv_expired":
            with uringio.move_on_after(0):
                return told(await stream.recv(count))
            return "too late"
        if action == "wait":
            if end in self.waiting:
                return "waits already"
            self.waiting[end] = Waiting()
            self.group.start_soon(self.waiting[end].run, stream, count)
            return "waits"
        if action == "cancel":
            if end not in self.waiting:
                return "nothing to cancel"
            self.waiting[end].scope.cancel()
            return "asked"
        if action == "end":
            await stream.send_eof()
            return "ended"
        if action == "close":
            await stream.aclose()
            return "closed"
        if action in {"poll", "poll_urgent"}:
            both = PollEvents.IN | PollEvents.OUT
            with uringio.move_on_after(self.settle_seconds):
                return repr(await poll(stream, PollEvents.PRI if action == "poll_urgent" else both))
            return "not ready"
        if action == "expire":
            with uringio.timeout(self.settle_seconds / 2):
                await uringio.sleep(20 * self.settle_seconds)
            return "never"
        if action == "address":
            return f"{stream.remote_address == stream.local_address}"
        return await self._on_file(action, file, count)

    @staticmethod
    async def _receive(action: str, stream: SocketStream, count: int) -> str:
        if action == "recv_into":
            moved, buffer = await stream.recv_into(uringio.Buffer(count))
            data = buffer.read(0, moved)
            buffer.release()
            return told(data)
        if action == "recv_lease":
            with await stream.recv_lease() as view:
                return told(bytes(view))
        return told(await stream.recv(count))

    async def _on_file(self, action: str, file: uringio.File, count: int) -> str:
        data = bytes([count & 0xFF]) * count
        offset = count * 7 % FILE_BYTES
        if action == "write_at":
            return f"wrote {await file.write_at(offset, data)}"
        if action == "write":
            return f"wrote {await file.write(data)}"
        if action == "read_at":
            return told(await file.read_at(offset, count))
        if action == "read":
            return told(await file.read(count))
        if action == "read_expired":
            with uringio.move_on_after(0):
                return told(await file.read_at(offset, count))
            return "too late"
        if action == "truncate":
            await file.truncate(offset)
            return "truncated"
        if action == "size":
            return f"{(await file.stat()).st_size} bytes"
        if action == "sync":
            await file.fsync()
            return "synced"
        if action == "open_missing":
            async with await uringio.open_file(self.path + " missing"):
                return "opened"
        async with await uringio.open_file(self.path) as again:
            return told(await again.read_all())


async def _received(stream: SocketStream, count: int) -> str:
    return told(await stream.recv(count))


async def words(outcome: Awaitable[str]) -> str:
    try:
        return await outcome
    except (OSError, uringio.UringioError) as error:
        return told_error(error)


def told_error(error: BaseException) -> str:
    return f"{error.__class__.__name__} {getattr(error, 'errno', None)}"


def told(data: bytes) -> str:
    return f"{len(data)} {hashlib.blake2b(data, digest_size=4).hexdigest()}"


async def outcomes(
    steps: Sequence[Step], tcp: bool, settle_seconds: float, folder: str
) -> list[str]:
    """Carry a program out and write down what came of each step."""
    if tcp:
        listener = await uringio.listen_tcp("127.0.0.1", 0)
        address = listener.local_address
        assert isinstance(address, tuple)
        connecting = uringio.connect_tcp("127.0.0.1", address[1])
    else:
        name = b"\0uringio agreement %d %d" % (os.getpid(), next(_names))
        listener = await uringio.listen_unix(name)
        connecting = uringio.connect_unix(name)
    async with listener:
        first = await connecting
        second = await listener.accept()
    path = f"{folder}/{next(_names)}"
    async with (
        first,
        second,
        await uringio.open_file(path, "w+b") as file,
        uringio.TaskGroup() as group,
    ):
        run = Program((first, second), file, path, settle_seconds, group)
        told = [await run.carry_out(step) for step in steps]
        group.cancel_scope.cancel()
    return told


Difference = tuple[Step, dict[str, object]]


def differences(
    seeds: Sequence[int], tcp: bool, where: Sequence[str], folder: str
) -> dict[int, list[Difference]]:
    """
    Carry programs out at each of *where*, on a real kernel all at the same time.

    Returns:
        Those that differ, by seed: the step, and what came of it at each place.
    """
    left = list(seeds)
    found: dict[int, list[Difference]] = {}
    for settle_seconds in SETTLE_SECONDS:
        traces: dict[int, dict[str, list[str]]] = {seed: {} for seed in left}
        for place in where:
            for seed, trace in _traces(place, left, tcp, settle_seconds, folder).items():
                traces[seed][place] = trace
        found = {}
        for seed in left:
            if differing := unlike(traces[seed]):
                steps = program(seed)
                found[seed] = [(steps[at], told) for at, told in differing]
        # What differs may have been late; only it is looked at again, with more patience.
        left = list(found)
        if not left:
            break
    return found


def _traces(
    place: str, seeds: Sequence[int], tcp: bool, settle_seconds: float, folder: str
) -> dict[int, list[str]]:
    if not is_simulated(place):
        return run_at(place, 0, all_outcomes, seeds, tcp, settle_seconds, folder)
    return {
        seed: run_at(place, seed, outcomes, program(seed), tcp, settle_seconds, "")
        for seed in seeds
    }


async def all_outcomes(
    seeds: Sequence[int], tcp: bool, settle_seconds: float, folder: str
) -> dict[int, list[str]]:
    """Carry out the programs of *seeds* beside each other."""
    told: dict[int, list[str]] = {}

    async def one(seed: int) -> None:
        told[seed] = await outcomes(program(seed), tcp, settle_seconds, folder)

    async with uringio.TaskGroup() as group:
        for seed in seeds:
            group.start_soon(one, seed)
    return told
