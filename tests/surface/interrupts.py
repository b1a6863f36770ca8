"""
The interrupt sweep: a real signal at every bytecode of the drivers, the ring, the loops.

A program makes its preparations, and from then on every instruction of the library's own code that
submits, reaps, settles and closes is counted.  It is run once for each of them: when the count is
reached, the signal is raised.  Two kinds of signals:

- ``interrupt``: SIGINT, whose handler is the library's (or `asyncio.Runner`'s).  It is called at
  exactly that instruction, which is harsher than Python, where it waits for the next call or jump.
  KeyboardInterrupt must come out of the program.
- ``raise``: SIGUSR1, whose handler is the program's and raises.  It is called where the interpreter
  calls handlers: behind the next call, jump or function entry.

and ``hook``: each callback that a program may hand to the library raises.

A handler that raises while the loop, or a handle, is being closed is not tried: it breaks that off,
and what is left open then is found by finalizers, which warn.

Whatever happens, the books must balance: each byte that a peer has sent was received, or kept for
the next reader, or is still in the socket, in this order and once; each task has ended; nothing is
in flight; no descriptor, buffer, thread or warning is left.
"""

import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import uringio
from tests.backends import LIBRARY
from tests.surface import schedulers
from tests.surface.schedulers import Scheduler, Spawned
from uringio import Buffer, SocketStream, files
from uringio._driver import current
from uringio._driver.op import RECV, Op

__all__ = ["HOOKS", "KINDS", "PROGRAMS", "RAISED_IN", "Books", "Sweeper", "cells"]

KINDS = ("interrupt", "raise", "hook")
# What is tried with a handler that raises. asyncio's tasks do not survive an exception of a signal
# handler (it has `add_signal_handler` for that), and neither does the result that is just being
# handed to the program: the handle of a buffer, a lease or a file goes the way of any local.
RAISED_IN = ("receive", "send", "timers", "cancel", "close")
# Whose code is swept; `_run.interrupt`, which handles the signal, is not.
SWEPT = ("uringio._driver", "uringio._ring", "uringio._own", "uringio._run.loop",
         "uringio._run.accidents", "uringio.aio.passes", "uringio.net._closing")  # fmt: skip
# Out of these no exception comes, wherever it is raised: the interpreter reports and drops it.
FINALIZERS = {"__del__", "_came_back", "end_view"}
# Broken off by a program's own handler, these leave descriptors open: see the top.
ENDS = {"close", "close_driver", "aclose", "attempt_close", "run_down"}
# Broken off, these leave the harness, not the library, waiting.
HARNESS = {"require_task", "open"}
HUNG_SECONDS = 20.0
CHUNK = bytes(range(256)) * 64


class StopError(BaseException):
    """What the program's own handler, or one of its hooks, raises."""


class HungError(BaseException):
    """The program does not end."""


@dataclass
class Books:
    """What a sweep has counted: points tried, and at how many of them something was wrong."""

    points: int = 0
    struck: int = 0
    lost: int = 0
    twice: int = 0
    leaked: int = 0
    problems: list[str] = field(default_factory=list)
    dropped: int = 0  # KeyboardInterrupts raised in a finalizer, where the interpreter drops them


class World:
    """What one run of a program has, and what it must account for."""

    def __init__(self, scheduler: Scheduler, hook: Callable[[], None]) -> None:
        self.scheduler = scheduler
        self.hook = hook
        self.begin: Callable[[], None] = lambda: None
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.kept = ours.dup()  # what nobody has received is found here
        self.kept.setblocking(False)
        self._fd = ours.detach()
        self.stream: SocketStream | None = None
        self.driver: Any = None
        self.sent = b""
        self.got = bytearray()
        self.outgoing = 0
        self.completed = 0
        self.spawned: list[Spawned[None]] = []
        self.timers: list[bool] = []
        self.unread: Any = ()
        self.at_end: Any = None
        self.main_ended = False

    def open(self) -> SocketStream:
        self.driver = current.driver()
        self.driver.register(self._fd)
        stream = SocketStream(self.driver, self._fd)
        self.unread = stream._unread
        self.stream = stream
        self._fd = -1
        return stream

    def feed(self, data: bytes) -> None:
        self.peer.send(data)
        self.sent += data

    def spawn(self, async_fn: Callable[[], Any]) -> Spawned[None]:
        spawned = self.scheduler.spawn(async_fn)
        self.spawned.append(spawned)
        return spawned

    def was_told(self) -> bool:
        """Whether a task that nobody asks heard of it."""
        return any(isinstance(one.error, StopError) for one in self.spawned)

    def balance(self, books: Books) -> None:
        """Close what is the test's, and note what is missing or too much."""
        received = bytes(self.got) + b"".join(one for one in self.unread if type(one) is bytes)
        with suppress(OSError):
            while rest := self.kept.recv(1 << 20, socket.MSG_DONTWAIT):
                received += rest
        if received != self.sent:
            more = len(received) >= len(self.sent)
            books.twice += more
            books.lost += not more
            books.problems.append(f"received {received[:30]!r}, sent {self.sent[:30]!r}")
        arrived = b""
        with suppress(OSError):
            while rest := self.peer.recv(1 << 20):
                arrived += rest
        if not self.completed * len(CHUNK) <= len(arrived) <= self.outgoing * len(CHUNK):
            books.lost += 1
            books.problems.append(f"{len(arrived)} bytes arrived, {self.completed} chunks")
        if arrived != (CHUNK * (self.outgoing + 1))[: len(arrived)]:
            books.twice += 1
            books.problems.append("other bytes arrived than were sent")
        self.peer.close()
        self.kept.close()
        if self._fd >= 0:
            os.close(self._fd)
        if self.at_end is not None:
            if self.at_end.in_flight:
                books.lost += 1
                books.problems.append(f"{self.at_end.in_flight} in flight at the end")
            if self.at_end.stray:
                books.twice += 1
                books.problems.append(f"{self.at_end.stray} stray completions")
            if self.at_end.leased:
                books.leaked += 1
                books.problems.append(f"{self.at_end.leased} leased at the end")
        for spawned in self.spawned:
            # asyncio gives up on cancelling the rest when it is interrupted there.
            if not spawned.ended and not (self.main_ended and self.scheduler.name == "asyncio"):
                books.lost += 1
                books.problems.append("a task was never resumed")


# --- the programs --------------------------------------------------------------------------------


async def receive(world: World) -> None:
    """Receive, with data there and not there yet."""
    stream = world.open()
    world.begin()
    world.feed(b"12")
    world.got += await stream.recv()
    world.spawn(partial(later, world, b"345"))
    world.got += await stream.recv()
    await stream.aclose()


async def later(world: World, data: bytes) -> None:
    try:
        await world.scheduler.checkpoint()
    finally:  # or main would wait for ever
        with suppress(OSError):
            world.feed(data)


async def send(world: World) -> None:
    """Send with and without a copy."""
    stream = world.open()
    world.begin()
    for _ in range(2):
        world.outgoing += 1
        await stream.send_all(CHUNK)
        world.completed += 1
    buffer = Buffer.holding(CHUNK)
    world.outgoing += 1
    _, buffer = await stream.send_buffer(buffer)
    world.completed += 1
    buffer.release()
    await stream.aclose()


async def receive_into(world: World) -> None:
    """Receive into buffers that move."""
    stream = world.open()
    buffer = Buffer(100)
    world.begin()
    try:
        for data in (b"1", b"23"):
            world.feed(data)
            count, buffer = await stream.recv_into(buffer)
            world.got += buffer.read(0, count)
        world.spawn(partial(later, world, b"4"))
        count, buffer = await stream.recv_into(buffer)
        world.got += buffer.read(0, count)
    finally:
        # Whatever has happened, a handle opens it again.
        await stream.aclose()
        buffer.release()


async def lease(world: World) -> None:
    """Receive without a copy."""
    stream = world.open()
    world.begin()
    for data in (b"12", b"3"):
        world.feed(data)
        with await stream.recv_lease() as view:
            world.got += view
            del view
    await stream.aclose()


async def use_files(world: World) -> None:
    """Open, write, read, close."""
    world.driver = current.driver()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        world.begin()
        async with await files.open_file(folder + "/f", "xb+") as file:
            assert await file.write_at(0, b"content") == 7
            buffer = Buffer(100)
            count, buffer = await file.read_into(buffer, 0)
            assert buffer.read(0, count) == b"content"
            await file.fsync()
            assert (await file.stat()).st_size == 7


async def wait(world: World) -> None:
    """Wait for deadlines, one of them cancelled."""
    world.driver = current.driver()
    world.begin()

    async def nap(seconds: float) -> None:
        await uringio.sleep(seconds)

    world.spawn(partial(nap, 0.0))
    cancelled = world.spawn(partial(nap, 3600.0))
    await world.scheduler.checkpoint()
    cancelled.cancel()
    await nap(0.00001)
    for spawned in world.spawned:
        await spawned.wait()


async def cancel(world: World) -> None:
    """Cancel receives: before the kernel has them, when it waits, when data is on its way."""
    stream = world.open()
    world.begin()

    async def read() -> None:
        world.got += await stream.recv()

    for checkpoints, data in ((0, b""), (1, b""), (2, b"12")):
        spawned = world.spawn(read)
        for _ in range(checkpoints):
            await world.scheduler.checkpoint()
        if data:
            world.feed(data)
        spawned.cancel()
        await spawned.wait()
    if len(world.got) < len(world.sent):
        world.got += await stream.recv()
    await stream.aclose()


async def close(world: World) -> None:
    """Close under a receive, under a send that waits, and at the end with work in flight."""
    stream = world.open()
    world.begin()

    async def read() -> None:
        with suppress(uringio.ClosedError):
            world.got += await stream.recv()

    reader = world.spawn(read)
    await world.scheduler.checkpoint()
    await stream.aclose()
    await reader.wait()

    async def hang() -> None:
        await uringio.sleep(3600)

    world.spawn(hang)
    await world.scheduler.checkpoint()


Program = Callable[[World], Awaitable[None]]

PROGRAMS: dict[str, Program] = {
    "receive": receive,
    "send": send,
    "into": receive_into,
    "lease": lease,
    "files": use_files,
    "timers": wait,
    "cancel": cancel,
    "close": close,
}


# --- hooks ---------------------------------------------------------------------------------------


async def hook_done_callback(world: World) -> None:
    """The callback of an op, beside a task that awaits another."""
    stream = world.open()
    world.feed(b"12")
    op = uringio.sleep(0)
    op.add_done_callback(lambda _: world.hook())
    op.add_done_callback(lambda _: world.timers.append(True))
    world.got += await stream.recv()
    await uringio.sleep(0)
    await stream.aclose()


async def hook_run_soon(world: World) -> None:
    """A function given to the loop."""
    stream = world.open()
    world.feed(b"12")
    if world.scheduler.name == "native":
        from uringio._run import running

        running.context().run_soon(world.hook)
    else:
        asyncio.get_running_loop().call_soon(world.hook)
    world.got += await stream.recv()
    await world.scheduler.checkpoint()
    await stream.aclose()


class Orphanage:
    """An owner that keeps what it is given, and raises."""

    def __init__(self, world: World) -> None:
        self.world = world

    def orphan(self, _op: Op[Any], value: object, /) -> None:
        if isinstance(value, bytes):
            self.world.got += value
        self.world.hook()


async def hook_orphan(world: World) -> None:
    """The owner of a cancelled op that had got something."""
    stream = world.open()

    async def read() -> None:
        op: Op[bytes] = Op(RECV, stream.fileno(), len_=100, owner=Orphanage(world))
        world.got += await op

    spawned = world.spawn(read)
    for _ in range(3):
        await world.scheduler.checkpoint()
    world.feed(b"12")
    world.driver.turn(0)
    try:
        spawned.cancel()
    finally:
        await spawned.wait()
        await stream.aclose()


async def hook_finalizer(world: World) -> None:
    """The finalizer of something that an op's value keeps alive."""
    stream = world.open()

    class Finalized:
        def __del__(self) -> None:
            world.hook()

    def make() -> object:
        return Finalized()

    await uringio.offload(make)
    world.feed(b"12")
    world.got += await stream.recv()
    await stream.aclose()


async def hook_handler(world: World) -> None:
    """The exception handler of a loop, or the log's, when a callback has failed."""
    stream = world.open()
    world.feed(b"12")

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            world.hook()

    def fail(_: object) -> None:
        raise LookupError

    handler = Handler()
    logging.getLogger("uringio").addHandler(handler)
    if world.scheduler.name == "asyncio":
        asyncio.get_running_loop().set_exception_handler(lambda *_: world.hook())
    try:
        uringio.sleep(0).add_done_callback(fail)
        world.got += await stream.recv()
        await uringio.sleep(0)
        await stream.aclose()
    finally:
        logging.getLogger("uringio").removeHandler(handler)


HOOKS: dict[str, Program] = {
    "callback": hook_done_callback,
    "run_soon": hook_run_soon,
    "orphan": hook_orphan,
    "finalizer": hook_finalizer,
    "handler": hook_handler,
}


# --- striking ------------------------------------------------------------------------------------


def swept_codes() -> set[types.CodeType]:
    """Find every code object of the library that is swept."""
    found: set[types.CodeType] = set()
    stack: list[object] = []
    for name, module in list(sys.modules.items()):
        if name.startswith(SWEPT):
            for value in vars(module).values():
                members = vars(value).values() if isinstance(value, type) else [value]
                stack += [m.fget if isinstance(m, property) else m for m in members]
    while stack:
        item = stack.pop()
        code = item if isinstance(item, types.CodeType) else getattr(item, "__code__", None)
        if isinstance(code, types.CodeType) and code not in found and "uringio" in code.co_filename:
            found.add(code)
            stack += code.co_consts
    return found


# Counts and strikes; compiled under a name which says that it is nobody's, so that whoever looks
# whose code was interrupted sees the code behind it.
_COUNTER = """
def at_instruction(code, offset):
    state.count += state.armed
    if state.count == state.index and state.armed:
        state.index = -1
        state.strike()

def at_call(frame, event, argument):
    if event == "call":
        if frame.f_code not in state.codes:
            frame.f_trace_lines = False
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return at_call
    if event == "opcode":
        if state.continuous is not None:
            return state.continuous
        at_instruction(None, 0)
    return at_call
"""


class Sweeper:
    """Strikes at instructions, counted from `arm` on; one at a time in a process."""

    def __init__(self) -> None:
        self.codes = swept_codes()
        self.armed = 0
        self.count = 0
        self.index = -1
        self.strike: Callable[[], object] = lambda: None
        self.continuous: Callable[..., object] | None = None
        namespace: dict[str, Any] = {"state": self, "__name__": "sweep"}
        exec(compile(_COUNTER, "<frozen sweep>", "exec"), namespace)
        self._at_instruction = namespace["at_instruction"]
        self._at_call = namespace["at_call"]
        raise_ = ctypes.CDLL(None)["raise"]
        argument_count = 2 if sys.version_info >= (3, 12) else 3  # that it gets, and ignores
        raise_.argtypes = [ctypes.c_int, *[ctypes.py_object] * argument_count]
        raise_.restype = None
        # What the interpreter calls directly: no frame of Python's in which a handler could run.
        self._raise_c = partial(raise_, signal.SIGUSR1)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count and strike while the block runs."""
        if sys.version_info >= (3, 12):
            monitoring = sys.monitoring
            event = monitoring.events.INSTRUCTION
            monitoring.use_tool_id(monitoring.DEBUGGER_ID, "sweep")
            monitoring.register_callback(monitoring.DEBUGGER_ID, event, self._at_instruction)
            for code in self.codes:
                monitoring.set_local_events(monitoring.DEBUGGER_ID, code, event)
            try:
                yield
            finally:
                for code in self.codes:
                    monitoring.set_local_events(monitoring.DEBUGGER_ID, code, 0)
                monitoring.register_callback(monitoring.DEBUGGER_ID, event, None)
                monitoring.free_tool_id(monitoring.DEBUGGER_ID)
            return
        before = sys.gettrace()
        sys.settrace(self._at_call)
        try:
            yield
        finally:
            sys.settrace(before)

    def keep_raising(self) -> None:
        """Raise SIGUSR1 at each instruction from the next on, until its handler has run."""
        self.continuous = self._raise_c
        if sys.version_info >= (3, 12):
            monitoring = sys.monitoring
            event = monitoring.events.INSTRUCTION
            monitoring.register_callback(monitoring.DEBUGGER_ID, event, self._raise_c)

    def stop_raising(self, frame: types.FrameType | None = None) -> None:
        """Go back to counting, in *frame* and all around it."""
        self.continuous = None
        while frame is not None and sys.version_info < (3, 12):
            if frame.f_trace is self._raise_c:
                frame.f_trace = self._at_call
            frame = frame.f_back
        if sys.version_info >= (3, 12):
            monitoring = sys.monitoring
            event = monitoring.events.INSTRUCTION
            monitoring.register_callback(monitoring.DEBUGGER_ID, event, self._at_instruction)

    # --- runs ------------------------------------------------------------------------------------

    def sweep(
        self, kind: str, name: str, scheduler: str, backend: str, every: int = 1, first: int = 1
    ) -> Books:
        """Sweep one program; *every* so many instructions, from the *first* on."""
        books = Books()
        with quiet(books, kind), self.watching():
            if kind == "hook":
                for hooked in HOOKS.values():
                    for error in (StopError, LookupError):
                        self._run(books, hooked, schedulers.make(scheduler, backend), kind, error)
                return books
            made = schedulers.make(scheduler, backend)
            self._run(Books(), PROGRAMS[name], made, "count")
            self._run(books, PROGRAMS[name], made, "count")
            books.points = 0
            total = self.count
            for index in range(first, total + 1, every):
                self.index = index
                self._run(books, PROGRAMS[name], made, kind)
        return books

    def _run(
        self,
        books: Books,
        program: Program,
        scheduler: Scheduler,
        kind: str,
        error: type[BaseException] = StopError,
    ) -> None:
        books.points += 1
        index, before = self.index, descriptors()
        state = {"struck": False}
        where = ""

        def hook() -> None:
            state["struck"] = True
            raise error

        def interrupt() -> None:
            signal.raise_signal(signal.SIGINT)

        def handle(_number: int, frame: types.FrameType | None) -> None:
            self.stop_raising(frame)
            if self.armed and frame is not None and may_raise(frame):
                state["struck"] = True
                nonlocal where
                where = f" in {frame.f_code.co_qualname}:{frame.f_lineno}"
                raise StopError

        world = World(scheduler, hook)
        if kind == "count":
            self.index = -1
        self.count = 0
        self.strike = (
            self.keep_raising if kind == "raise" else partial(signal.raise_signal, signal.SIGINT)
        )
        world.begin = self.arm if kind != "hook" else world.begin
        before_usr1 = signal.signal(signal.SIGUSR1, handle)
        heard: BaseException | None = None
        problems, dropped = len(books.problems), books.dropped
        signal.setitimer(signal.ITIMER_REAL, HUNG_SECONDS, 1.0)
        try:
            scheduler.run_and_leave(main, world, program)
        except BaseException as caught:
            heard = caught
        finally:
            self.armed = 0
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.stop_raising()
            signal.signal(signal.SIGUSR1, before_usr1)
        if isinstance(heard, HungError):
            books.lost += 1
            books.problems.append("hung")
        struck = state["struck"] or (kind == "interrupt" and self.index == -1)
        books.struck += struck
        expected: tuple[type[BaseException], ...] = (KeyboardInterrupt,)
        if kind != "interrupt":
            expected = (StopError, LookupError)
        if heard is None and books.dropped > dropped:
            pass
        elif kind == "interrupt" and struck and not isinstance(heard, KeyboardInterrupt):
            books.lost += 1
            books.problems.append(f"ended with {heard!r} instead of KeyboardInterrupt")
        elif heard is not None and not contains(heard, (*expected, HungError)):
            books.lost += 1
            books.problems.append(f"ended with {heard!r}")
        elif kind == "raise" and struck and heard is None and not world.was_told():
            books.lost += 1
            books.problems.append("the handler's exception was lost")
        heard = None
        world.balance(books)
        world = None  # type: ignore[assignment]
        # A thread whose open was cancelled closes what it has opened when it gets to it.
        for _ in range(6000):  # half a minute, on a machine that has no time for that thread
            left = descriptors() - before
            if not left:
                break
            gc.collect()
            time.sleep(0.005)
        else:
            books.leaked += 1
            books.problems.append(f"descriptors {sorted(left)}")
            for fd, _ in left:
                with suppress(OSError):
                    os.close(fd)
        books.problems[problems:] = [f"{index}{where}: {one}" for one in books.problems[problems:]]

    def arm(self) -> None:
        """Begin to count."""
        self.count = 0
        self.armed = 1


async def main(world: World, program: Program) -> None:
    """Run *program*, and note what the driver says at its end."""
    try:
        await program(world)
        for spawned in world.spawned:
            if program is not close:
                await spawned.wait()
        if program is not close:
            world.at_end = world.driver.statistics()
    finally:
        if world.stream is not None:
            await world.stream.aclose()
        world.main_ended = True


def may_raise(frame: types.FrameType) -> bool:
    """Whether *frame* is swept code, and no finalizer's."""
    module = str(frame.f_globals.get("__name__", ""))
    if not module.startswith(SWEPT) or module.startswith("uringio._own"):
        return False
    at: types.FrameType | None = frame
    while at is not None:
        if at.f_code.co_name in FINALIZERS | ENDS | HARNESS:
            return False
        at = at.f_back
    return True


def contains(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Whether *error* is one of *kinds*, or a group with one, or came of one."""
    if isinstance(error, BaseExceptionGroup):
        return any(contains(one, kinds) for one in error.exceptions)
    return isinstance(error, kinds)


def descriptors() -> set[tuple[int, str]]:
    """Return what is open, but for a library that closes its own when it likes."""
    found: set[tuple[int, str]] = set()
    if LIBRARY:
        return found
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add((int(name), os.readlink("/proc/self/fd/" + name)))
    return found


@contextmanager
def quiet(books: Books, kind: str) -> Iterator[None]:
    """Count warnings and what finalizers raise as leaks; end what hangs."""

    def hung(*_: object) -> None:
        raise HungError

    def unraisable(about: Any) -> None:
        if isinstance(about.exc_value, KeyboardInterrupt):
            books.dropped += 1
        elif not isinstance(about.exc_value, StopError | LookupError):
            books.leaked += 1
            books.problems.append(f"in {about.object!r}: {about.exc_value!r}")

    def warned(message: object, category: type[Warning], *_: object) -> None:
        if "BaseEventLoop.shutdown" in str(message) or (
            kind == "raise" and category is RuntimeWarning
        ):
            return  # asyncio's own, interrupted before its first step
        books.leaked += 1
        books.problems.append(f"{category.__name__}: {message}")

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    level = logging.root.manager.disable
    alarm = signal.signal(signal.SIGALRM, hung)
    interrupts = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = warned  # type: ignore[assignment]
            yield
            gc.collect()
    finally:
        signal.signal(signal.SIGINT, interrupts)
        signal.signal(signal.SIGALRM, alarm)
        logging.disable(level)
        sys.unraisablehook = hook


def cells() -> Iterator[tuple[str, str, str]]:
    """Name what there is to sweep: kind, program, scheduler; on each driver."""
    for program in PROGRAMS:
        for scheduler in schedulers.NAMES:
            yield "interrupt", program, scheduler
    for program in RAISED_IN:
        yield "raise", program, "native"
    for scheduler in schedulers.NAMES:
        yield "hook", "hooks", scheduler


def run_cell(kind: str, program: str, scheduler: str, backend: str, *, every: int) -> Books:
    """Sweep one cell, in a process that does nothing else."""
    import uringio._driver.epoll
    import uringio._driver.uring
    import uringio.aio  # noqa: F401 - their code is to be found

    for name in ("uringio", "asyncio"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    sweeper = Sweeper()
    gc.collect()
    gc.freeze()
    return sweeper.sweep(kind, program, scheduler, backend, every)
