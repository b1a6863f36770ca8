"""
The model: any program of operations, buffers, leases and descriptors, and who owns what after each.

Each rule does one thing that a program may do, or cancels what is under way.  Beside every stream
runs a model of what it carries: how far its two directions were sent and received.  What travels is
a pattern in which each byte depends on its place, so a byte that is lost, doubled, moved or written
by somebody who should not have shows.

After each step it must be so that

- a buffer is opened by one handle at most, the one that the model names, and by no older one;
- memory that nobody has lent has not changed, nor has memory that is leased;
- each descriptor still names the file that it was opened as;
- the pool has as many buffers out as the model, the driver as many leases at most;
- what was received goes on exactly where it ended, whoever was cancelled in between.
"""

import itertools
import os
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

import uringio
from uringio import Buffer, testing
from uringio.errors import BorrowedError, BusyError, ClosedError, UsageError, UseAfterMoveError
from uringio.net import SocketStream
from uringio.testing.machines import Action, DriverMachine

SMALL = st.integers(0, 63)
LINK_COUNT_MAX = 3
BUFFER_COUNT_MAX = 6
ACTION_COUNT_MAX = 12
FILE_BYTES = 20_000
SIZES = (1, 10, 100, 3_000, 9_000)
# Above what the sockets between hold, so that the sender waits.
LONG_BYTES = 700_000
_CYCLE = bytes(range(251))
_names = itertools.count()


def pattern(seed: int, start: int, count: int) -> bytes:
    """What a direction carries from its byte *start* on."""
    first = (start + 17 * seed) % 251
    return (_CYCLE * (count // 251 + 2))[first : first + count]


@dataclass(eq=False)
class Flow:
    """One direction of a connection."""

    seed: int
    sent: int = 0  # surely
    received: int = 0
    closed: bool = False
    zero_copies: list[Action] = field(default_factory=list)  # any, cancelled, aborts it

    @property
    def torn(self) -> bool:
        """Whether it may end, or break, before all that was sent has come."""
        return self.closed or any(one.cancel_asked for one in self.zero_copies)

    def take(self, data: bytes) -> None:
        """Check what was received."""
        assert data == pattern(self.seed, self.received, len(data)), (
            f"{len(data)} bytes came that do not go on at byte {self.received}"
        )
        self.received += len(data)


@dataclass(eq=False)
class End:
    """One end of a connection."""

    stream: SocketStream
    outgoing: Flow
    incoming: Flow
    inode: object
    tcp: bool
    reading: Action | None = None
    writing: Action | None = None
    closed: bool = False
    other: "End | None" = None


@dataclass(eq=False)
class Held:
    """A buffer of the pool, and what the model knows of it."""

    handle: Buffer
    size: int
    content: bytes | None = None  # None: undefined
    user: Action | None = None
    view: memoryview | None = None
    stale: deque[Buffer] = field(default_factory=lambda: deque(maxlen=4))


@dataclass(eq=False)
class Errand:
    """What becomes of an action that has ended."""

    done: Callable[[object], None]
    undone: Callable[[BaseException], None]
    closing: tuple[End, ...] = ()


class Ownership(DriverMachine):
    """See the module's head."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = uringio.BufferPool(2 << 20, (4096, 16384))
        self.ends: list[End] = []
        self.buffers: list[Held] = []
        self.leases: list[tuple[memoryview, bytes]] = []
        self.errands: dict[Action, Errand] = {}
        self.listener: uringio.Listener | None = None
        self.spare: list[SocketStream] = []
        self.flow_count = itertools.count()
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        self.file: uringio.File | None = None
        self.opened: list[uringio.File] = []
        self.do(self.open_all)
        for tcp in (True, False):
            self.connect(tcp)
        for size in SIZES[1:4]:
            self.allocate(size)

    async def open_all(self) -> None:
        if self.on == "simulated":
            self.path = "/data"
        else:
            self.folder = tempfile.TemporaryDirectory(prefix="uringio-model-")
            self.path = os.path.join(self.folder.name, "data")
        self.file = await uringio.open_file(self.path, "w+b")
        await self.file.write_all(pattern(0, 0, FILE_BYTES))
        self.listener = await uringio.listen_tcp("127.0.0.1", 0)

    # --- who has what ----------------------------------------------------------------------------

    def inode_of(self, fd: int) -> object:
        if self.kernel is not None:
            return self.kernel.file_of(fd)
        found = os.fstat(fd)
        return found.st_dev, found.st_ino

    def end_at(self, which: int) -> End | None:
        alive = [end for end in self.ends if not end.closed]
        return alive[which % len(alive)] if alive else None

    def buffer_at(self, which: int) -> Held | None:
        return self.buffers[which % len(self.buffers)] if self.buffers else None

    def run(
        self,
        async_fn: Callable[[], Awaitable[object]],
        done: Callable[[object], None],
        undone: Callable[[BaseException], None],
        *closing: End,
    ) -> Action | None:
        """Start something, if not too much runs already; its outcome is looked at later."""
        if len(self.actions) >= ACTION_COUNT_MAX:
            return None
        action = self.start(async_fn)
        self.errands[action] = Errand(done, undone, closing)
        return action

    def ended(self, action: Action) -> None:
        """Hold what came of it against the model."""
        errand = self.errands.pop(action)
        for end in self.ends:
            if end.reading is action:
                end.reading = None
            if end.writing is action:
                end.writing = None
        if action.state == "done":
            errand.done(action.value)
            return
        assert action.error is not None
        if isinstance(action.error, UsageError):
            assert isinstance(action.error, ClosedError), repr(action.error)
            assert any(end.closed for end in errand.closing), "closed, and nobody had closed it"
        elif isinstance(action.error, AssertionError | ValueError | TypeError):
            raise action.error
        elif action.state == "failed":
            # A connection that was closed with bytes under way is reset; nothing else fails.
            assert isinstance(action.error, ConnectionError), repr(action.error)
            assert any(end.outgoing.torn or end.incoming.torn for end in errand.closing)
        else:
            assert action.cancel_asked, "cancelled, and nobody had asked for it"
        errand.undone(action.error)

    # --- connections -----------------------------------------------------------------------------

    @rule(tcp=st.booleans())
    def connect(self, tcp: bool) -> None:
        """Make a connection."""
        if len(self.ends) < 2 * LINK_COUNT_MAX:
            near, far = self.do(self._connected, tcp)
            there, back = Flow(next(self.flow_count)), Flow(next(self.flow_count))
            first = End(near, there, back, self.inode_of(near.fileno()), tcp)
            second = End(far, back, there, self.inode_of(far.fileno()), tcp, other=first)
            first.other = second
            self.ends += [first, second]

    async def _connected(self, tcp: bool) -> tuple[SocketStream, SocketStream]:
        if tcp:
            listener = await uringio.listen_tcp("127.0.0.1", 0)
            address = listener.local_address
            assert isinstance(address, tuple)
            connecting = uringio.connect_tcp("127.0.0.1", address[1])
        else:
            path = b"\0uringio model %d %d" % (os.getpid(), next(_names))
            listener = await uringio.listen_unix(path)
            connecting = uringio.connect_unix(path)
        async with listener:
            return await connecting, await listener.accept()

    @rule(which=SMALL)
    def close(self, which: int) -> None:
        """Close an end; whoever uses it gets `ClosedError`."""
        end = self.end_at(which)
        if end is None or which % 5:
            return
        assert end.other is not None
        for flow in (end.outgoing, end.incoming):
            flow.closed = True
        end.closed = True
        self.do(end.stream.aclose)
        for call in (lambda: end.stream.recv(1), lambda: end.stream.send_all(b"x")):
            try:
                call()
            except ClosedError:
                continue
            raise AssertionError("a closed stream takes calls")
        if end.other.closed:
            self.ends = [one for one in self.ends if one not in (end, end.other)]

    # --- sending ---------------------------------------------------------------------------------

    @rule(which=SMALL, size=st.sampled_from((*SIZES, LONG_BYTES)))
    def send(self, which: int, size: int) -> None:
        """Send from bytes."""
        end = self.end_at(which)
        if end is not None:
            data = pattern(end.outgoing.seed, end.outgoing.sent, size)
            self._send(end, size, lambda: end.stream.send_all(data))

    def _send(self, end: End, size: int, call: Callable[[], Awaitable[object]]) -> Action | None:
        if end.writing is not None:
            if self.has_begun(end.writing):
                self.refused(BusyError, end.stream.send_all, b"y")
            return None
        flow = end.outgoing

        def done(_: object) -> None:
            flow.sent += size

        def undone(error: BaseException) -> None:
            flow.sent += getattr(error, "done", 0)

        async def sending() -> object:
            return await call()

        end.writing = self.run(sending, done, undone, end)
        return end.writing

    @rule(which=SMALL, buffer=SMALL, zero_copy=st.booleans())
    def send_buffer(self, which: int, buffer: int, zero_copy: bool) -> None:
        """Send from a buffer, which moves."""
        end, held = self.end_at(which), self.buffer_at(buffer)
        if end is None or held is None or end.writing is not None or not self.may_move(held):
            return
        zero_copy = zero_copy and end.tcp
        flow, data = end.outgoing, pattern(end.outgoing.seed, end.outgoing.sent, held.size)
        held.handle.write(data)
        held.content = data

        async def sending() -> object:
            return await end.stream.send_buffer(held.handle, 0, held.size, zero_copy=zero_copy)

        def done(value: object) -> None:
            flow.sent += held.size
            self.moved_back(held, value)

        def undone(error: BaseException) -> None:
            flow.sent += getattr(error, "done", 0)
            self.back_where_it_was(held)

        end.writing = held.user = self.run(sending, done, undone, end)
        if zero_copy and end.writing is not None:
            flow.zero_copies.append(end.writing)
            end.incoming.zero_copies.append(end.writing)

    # --- receiving -------------------------------------------------------------------------------

    @rule(which=SMALL, most=st.sampled_from((1, 7, 500, 65_536)))
    def receive(self, which: int, most: int) -> None:
        """Receive bytes."""
        end = self.end_at(which)
        if end is None:
            return
        if end.reading is not None:
            if self.has_begun(end.reading) and not end.stream._unread:
                self.refused(BusyError, end.stream.recv, 5)
            return
        flow = end.incoming

        async def receiving() -> object:
            return await end.stream.recv(most)

        def done(value: object) -> None:
            assert isinstance(value, bytes)
            assert len(value) <= most
            assert value or flow.torn, "it ended, and nobody had ended it"
            flow.take(value)

        end.reading = self.run(receiving, done, lambda error: None, end)

    @rule(which=SMALL, buffer=SMALL)
    def receive_into(self, which: int, buffer: int) -> None:
        """Receive into a buffer, which moves."""
        end, held = self.end_at(which), self.buffer_at(buffer)
        if end is None or held is None or end.reading is not None or not self.may_move(held):
            return
        flow = end.incoming

        async def receiving() -> object:
            return await end.stream.recv_into(held.handle)

        def done(value: object) -> None:
            count = self.moved_back(held, value)
            held.content = None
            got = held.handle.read(0, count)
            assert got or flow.torn, "it ended, and nobody had ended it"
            flow.take(got)
            held.content = held.handle.read()

        def undone(error: BaseException) -> None:
            self.back_where_it_was(held)
            held.content = held.handle.read()  # undefined, but from now on it is what it is

        action = self.run(receiving, done, undone, end)
        end.reading = held.user = action

    @rule(which=SMALL)
    def receive_lease(self, which: int) -> None:
        """Receive where the kernel put it."""
        end = self.end_at(which)
        if end is None or end.reading is not None:
            return
        flow = end.incoming

        async def receiving() -> object:
            return await end.stream.recv_lease()

        def done(value: object) -> None:
            assert isinstance(value, memoryview)
            flow.take(bytes(value))
            self.leases.append((value, bytes(value)))

        end.reading = self.run(receiving, done, lambda error: None, end)

    @rule(which=SMALL)
    def end_lease(self, which: int) -> None:
        """Give a lease back."""
        if self.leases:
            view, _ = self.leases.pop(which % len(self.leases))
            view.release()

    # --- accepting, opening: descriptors that may come late --------------------------------------

    @rule(call=st.booleans())
    def accept(self, call: bool) -> None:
        """Wait for a connection, which a call may bring."""
        assert self.listener is not None
        listener = self.listener

        async def accepting() -> object:
            return await listener.accept()

        def done(value: object) -> None:
            assert isinstance(value, SocketStream)
            self.spare.append(value)

        self.run(accepting, done, lambda error: None)
        address = listener.local_address
        assert isinstance(address, tuple)

        async def calling() -> object:
            return await uringio.connect_tcp("127.0.0.1", address[1])

        if call and len(self.spare) < 10:
            self.run(calling, done, lambda error: None)

    @rule()
    def open_file(self) -> None:
        """Open a file once more."""

        async def opening() -> object:
            return await uringio.open_file(self.path)

        def done(value: object) -> None:
            assert isinstance(value, uringio.ReadFile)
            self.opened.append(value)  # type: ignore[arg-type]

        self.run(opening, done, lambda error: None)

    @rule()
    def close_spare(self) -> None:
        """Close what came of these."""
        while self.spare or self.opened:  # more may come while one is closed
            closing = self.spare.pop() if self.spare else self.opened.pop()
            self.do(closing.aclose)

    # --- files -----------------------------------------------------------------------------------

    @rule(buffer=SMALL, offset=st.integers(0, FILE_BYTES - 1))
    def read_file(self, buffer: int, offset: int) -> None:
        """Read a part of a file into a buffer, which moves."""
        held = self.buffer_at(buffer)
        if held is None or not self.may_move(held):
            return
        assert self.file is not None
        file = self.file

        async def reading() -> object:
            return await file.read_into(held.handle, offset)

        def done(value: object) -> None:
            count = self.moved_back(held, value)
            held.content = held.handle.read()
            assert held.content[:count] == pattern(0, offset, count), "another part of the file"

        def undone(error: BaseException) -> None:
            self.back_where_it_was(held)
            held.content = held.handle.read()

        held.user = self.run(reading, done, undone)

    @rule(buffer=SMALL, offset=st.integers(0, FILE_BYTES // 100))
    def write_file(self, buffer: int, offset: int) -> None:
        """Write what is there already, from a buffer, which moves."""
        held = self.buffer_at(buffer)
        if held is None or not self.may_move(held):
            return
        assert self.file is not None
        file = self.file
        held.content = pattern(0, offset, held.size)
        held.handle.write(held.content)

        async def writing() -> object:
            return await file.write_from(held.handle, offset)

        def done(value: object) -> None:
            assert self.moved_back(held, value) <= held.size

        held.user = self.run(writing, done, lambda error: self.back_where_it_was(held))

    # --- buffers ---------------------------------------------------------------------------------

    @rule(size=st.sampled_from(SIZES))
    def allocate(self, size: int) -> None:
        """Take a buffer out of the pool."""
        if len(self.buffers) < BUFFER_COUNT_MAX:
            handle = self.pool.allocate(size)
            assert handle is not None
            self.buffers.append(Held(handle, size, handle.read()))

    @rule(which=SMALL)
    def release(self, which: int) -> None:
        """Give a buffer up, or try to."""
        held = self.buffer_at(which)
        if held is None:
            return
        if self.is_lent(held):
            self.refused(UseAfterMoveError, held.handle.release)
        elif held.view is not None:
            self.refused(BorrowedError, held.handle.release)
        elif held.user is None:
            held.handle.release()
            self.refused(UseAfterMoveError, held.handle.read)
            self.buffers.remove(held)

    @rule(which=SMALL)
    def view(self, which: int) -> None:
        """Begin to look at a buffer, or end it."""
        held = self.buffer_at(which)
        if held is None or held.user is not None:
            return
        if held.view is not None:
            held.view.release()
            held.view = None
        else:
            held.view = held.handle.view().__enter__()

    def may_move(self, held: Held) -> bool:
        """Whether a buffer can be given to an operation; one that is viewed refuses."""
        if held.view is not None:
            self.refused(BorrowedError, held.handle.renewed)
        return held.user is None and held.view is None and len(self.actions) < ACTION_COUNT_MAX

    def moved_back(self, held: Held, value: object) -> int:
        """Take the new handle out of an operation's result."""
        assert isinstance(value, tuple)
        count, handle = value
        assert isinstance(handle, Buffer)
        assert handle is not held.handle
        held.stale.append(held.handle)
        held.handle, held.user = handle, None
        assert isinstance(count, int)
        return count

    @staticmethod
    def back_where_it_was(held: Held) -> None:
        """After an operation that came to nothing the old handle opens it."""
        held.user = None
        assert held.handle.size == held.size

    @staticmethod
    def refused(kind: type[UsageError], call: Callable[..., object], *arguments: object) -> None:
        """Expect a call to be refused at once."""
        try:
            call(*arguments)
        except kind:
            return
        raise AssertionError(f"{call!r} was not refused with {kind.__name__}")

    @staticmethod
    def has_begun(action: Action) -> bool:
        """Whether its operation is under way for certain: it starts in the pass after `start`."""
        return action.begun and action.state == "running" and not action.cancel_asked

    def is_lent(self, held: Held) -> bool:
        """Whether an operation has a buffer; one that has failed, be it unheard, has it no more."""
        if held.user is None or not self.has_begun(held.user):
            return False
        mover = held.handle.loan.mover
        operation = mover() if mover is not None else None
        return operation is not None and not operation.came_to_nothing()

    # --- cancelling ------------------------------------------------------------------------------

    @rule(which=SMALL, after=st.integers(0, 2))
    def cancel_after(self, which: int, after: int) -> None:
        """Cancel something a little later."""
        if self.actions:
            action = self.actions[which % len(self.actions)]
            for _ in range(after):
                self.pass_time(0)
            action.cancel()

    @rule(which=SMALL)
    def cancel_all(self, which: int) -> None:
        """Cancel everything that runs."""
        if not which % 8:
            for action in self.actions:
                action.cancel()

    @rule(passes=st.integers(1, 5))
    def let_some_run(self, passes: int) -> None:
        """Make a few passes, of which each may wait a little."""
        for _ in range(passes):
            self.pass_time(0.0002)

    # --- after each step -------------------------------------------------------------------------

    @invariant()
    def everything_has_one_owner(self) -> None:
        """See the module's head."""
        self.counts["steps"] += 1
        for held in self.buffers:
            for stale in held.stale:
                assert stale.key != held.handle.key, "two handles open one buffer"
                self.refused(UseAfterMoveError, stale.read)
            if held.user is None:
                assert held.content is not None
                assert held.handle.read() == held.content, "memory changed that nobody had lent"
            elif self.is_lent(held):
                self.refused(UseAfterMoveError, held.handle.read)
        for view, content in self.leases:
            assert view == content, "a leased buffer has changed"
        assert self.pool.stats().out_count == len(self.buffers)
        told = self.context.driver.statistics()
        # One may have arrived that its task has not been given yet.
        arriving = sum(end.reading is not None for end in self.ends)
        assert told.leased <= len(self.leases) + arriving
        assert not told.stray or self.on == "simulated", f"{told.stray} completions of nobody's"
        for end in self.ends:
            if not end.closed:
                assert self.inode_of(end.stream.fileno()) == end.inode, (
                    "another file has its number"
                )

    def finish_up(self) -> None:
        """Close everything, and see that it has all come back."""
        for view, _ in self.leases:
            view.release()
        self.leases.clear()
        for held in self.buffers:
            if held.view is not None:
                held.view.release()
            held.handle.release()
        assert self.pool.stats().out_count == 0
        assert self.context.driver.statistics().leased == 0
        for end in self.ends:
            self.do(end.stream.aclose)
        self.close_spare()
        assert self.listener is not None
        assert self.file is not None
        self.do(self.listener.aclose)
        self.do(self.file.aclose)
        if self.folder is not None:
            self.folder.cleanup()


class StormyOwnership(Ownership):
    """On a simulated kernel where all goes wrong that a program need not notice."""

    faults = testing.STORM


class RealOwnership(Ownership):
    """On io_uring."""

    on = "uring"


class PollingOwnership(Ownership):
    """On epoll."""

    on = "epoll"
