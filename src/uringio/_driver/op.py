"""
The op: the one parcel that crosses rooms.

An op is neutral data: which operation, on what, with which memory, and in the end its outcome.  It
carries no closure of any driver, so the same op can be packed into an SQE or attempted after epoll
said so.  Field names are the SQE's; the table below says what each operation reads.

=========  ==========  =========  ==================  =============  ======================  =======
operation  fd          memory     addr                len            off / flags             value
=========  ==========  =========  ==================  =============  ======================  =======
NOP                                                                                          0
RECV       socket                 1: never stands     most bytes     - / MSG_*               bytes
RECV_INTO  socket      writable   (from memory)       bytes          - / MSG_*               count
SEND       socket      readable   (from memory)       bytes          - / MSG_*               count
SEND_ALL   socket      readable   (from memory)       bytes          - / MSG_*               None
SEND_ZC    socket      readable   (from memory)       bytes          - / MSG_*               None
ACCEPT     listener               sockaddr out or 0                  socklen out or 0 / -    fd
CONNECT    socket      sockaddr   (from memory)                      its length / -          None
SHUTDOWN   socket                                     SHUT_*                                 None
CLOSE      any                                                                               None
OPEN       directory   path, NUL  (from memory)       mode           - / O_*                 fd
READ       file        writable   (from memory)       bytes          offset / RWF_*          count
WRITE      file        readable   (from memory)       bytes          offset / RWF_*          count
READV      file        (`Vectored.pieces`)                           offset / RWF_*          count
WRITEV     file        (`Vectored.pieces`)                           offset / RWF_*          count
FSYNC      file                                                      - / IORING_FSYNC_*      None
FALLOCATE  file                    bytes               FALLOC_FL_*    offset                  None
FTRUNCATE  file                                                      size                    None
OPENAT2    directory   how, path   (from memory)  1: may be tried                            fd
STATX      directory   room, path  (from memory)       STATX_*        - / AT_*                None
RENAME     directory   two paths   (from memory)       directory too  see below / RENAME_*    None
UNLINK     directory   path        (from memory)                      - / AT_REMOVEDIR        None
MKDIR      directory   path        (from memory)       mode                                   None
SYMLINK    directory   two paths   (from memory)                      see below               None
LINK       directory   two paths   (from memory)       directory too  see below / AT_*        None
POLL       any                                                       - / POLL* mask          mask
SENDMSG    socket                 msghdr              1              - / MSG_*               count
RECVMSG    socket                 msghdr out          1              - / MSG_*               message
TIMEOUT                                                              deadline on the clock   None
OFFLOAD                                                              (`Offload.function`)    result
READY                                                                                        None
EVENT                                                                (until `Driver.fire`)   None
=========  ==========  =========  ==================  =============  ======================  =======

RECV_LEASE is RECV whose value may be a view of the buffer, which goes back when that has gone; what
its ``hold`` is true for waits when there are no spares.

SENDMSG_ZC is SENDMSG as SEND_ZC is SEND_ALL; for SENDMSG_UNIX see `uring_datagrams`.  DIRECT is the
operation of its `Direct.row` on a direct descriptor, of which INSTALL makes another number.
POLL_AGAIN is POLL on the file of an earlier one, surely not closed since; POLL_ON: `uring_polls`.
READ_MANY is many READs as one: see `uringio._driver.many`.

READ_CACHED is READ into memory as long as `len`, carried out while it is submitted where nothing
needs waiting; otherwise it becomes a READ.  Only for descriptors without O_DIRECT.  An OPENAT2
with 1 as `len` may be tried with RESOLVE_CACHED first, by drivers that would need a thread for it:
on one that has 32 in flight the try saves 6 us of 17, and half on a single one; a ring needs none.

Paths end in a NUL.  Where there are two, both lie in the memory and `off` says where the second
begins: the new name of RENAME and LINK, the place of SYMLINK, whose first is what it points to;
`len` is the second's directory.  OPENAT2's memory begins with an ``open_how``, STATX's with
writable room for a ``struct statx``.  What a msghdr points to is in `hold`: see `messages`.

Life of an op.  NEW: made, not started; dropping it now is a mistake worth a warning.  SUBMITTED: a
driver has it, and with it everything the kernel may touch.  CANCELLING: cancellation was asked for;
the kernel may still do the work.  DONE: the outcome is known and waits for delivery.  SPENT:
delivered; only now may the op be used again.  STALE: superseded before it was started.  HERE: as
NEW, but what it is to receive lies in `later`; natively, awaiting it waits for nothing.  The table
`TRANSITIONS` is the whole of it, and `tests/driver/test_op.py` holds the hot closures against it.

Cancellation is a request.  Whatever the kernel answers after it, the awaiter gets the cancelled
exception when the terminal completion arrives; what was done anyway goes to the owner's `orphan`.

One use, one `use` number.  Owners may reuse an op object (`renew`), so each submission gets a
number that is never given again; it is the SQE's ``user_data``, and late or unknown completions
find nothing under it.
"""

from collections import deque
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Final, Generic, NoReturn, Protocol, TypeAlias, TypeVar, cast

from uringio._sys.memory import Pinned, ReadableBuffer
from uringio.errors import BusyError, UsageError

from . import current
from .forgotten import close_unclaimed, warn_never_awaited

if TYPE_CHECKING:
    from .contract import Driver

__all__ = [
    "CANCELLING", "DONE", "HERE", "MAKES_DESCRIPTOR", "MAX_RW_COUNT", "NEW", "OPERATION_NAMES",
    "SPENT", "STALE", "SUBMITTED", "TRANSITIONS", "Awaited", "Offload", "Op", "Owner", "names",
    "renew",
]  # fmt: skip

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Later: TypeAlias = deque[bytes | OSError] | list[bytes | OSError]

MAX_RW_COUNT: Final = 0x7FFFF000  # what the kernel moves at most in one call [bytes]

# --- operations: dense, so that tables are lists -------------------------------------------------
NOP: Final = 0
RECV: Final = 1
RECV_INTO: Final = 2
SEND: Final = 3
SEND_ALL: Final = 4
ACCEPT: Final = 5
CONNECT: Final = 6
SHUTDOWN: Final = 7
CLOSE: Final = 8
OPEN: Final = 9
READ: Final = 10
WRITE: Final = 11
FSYNC: Final = 12
POLL: Final = 13
TIMEOUT: Final = 14
OFFLOAD: Final = 15
READY: Final = 16
EVENT: Final = 17
SENDMSG: Final = 18
RECVMSG: Final = 19
READV: Final = 20
WRITEV: Final = 21
FALLOCATE: Final = 22
FTRUNCATE: Final = 23
OPENAT2: Final = 24
STATX: Final = 25
RENAME: Final = 26
UNLINK: Final = 27
MKDIR: Final = 28
SYMLINK: Final = 29
LINK: Final = 30
READ_CACHED: Final = 31
RECV_LEASE: Final = 32
SEND_ZC: Final = 33
DIRECT: Final = 34
INSTALL: Final = 35
SENDMSG_ZC: Final = 36
SENDMSG_UNIX: Final = 37
POLL_AGAIN: Final = 38
POLL_ON: Final = 39
READ_MANY: Final = 40

OPERATION_NAMES: Final = (
    "nop", "recv", "recv_into", "send", "send_all", "accept", "connect", "shutdown", "close",
    "open", "read", "write", "fsync", "poll", "timeout", "offload", "ready", "event", "sendmsg",
    "recvmsg", "readv", "writev", "fallocate", "ftruncate", "openat2", "statx", "rename", "unlink",
    "mkdir", "symlink", "link", "read", "recv", "send_zc", "direct", "install", "sendmsg_zc",
    "sendmsg", "poll", "poll", "read",
)  # fmt: skip

# Operations whose value is a descriptor, which somebody has to close.
MAKES_DESCRIPTOR: Final = frozenset({ACCEPT, OPEN, OPENAT2, INSTALL})

# Where the first path stands in the memory of operations that take one.
PATH_STARTS: Final = {
    OPEN: 0, OPENAT2: 24, STATX: 256, RENAME: 0, UNLINK: 0, MKDIR: 0, SYMLINK: 0, LINK: 0,
}  # fmt: skip

# --- states --------------------------------------------------------------------------------------
NEW: Final = 0
SUBMITTED: Final = 1
CANCELLING: Final = 2
DONE: Final = 3
SPENT: Final = 4
STALE: Final = 5
HERE: Final = 6

TRANSITIONS: Final[dict[int, frozenset[int]]] = {
    NEW: frozenset({SUBMITTED, SPENT, STALE}),  # SPENT: its task was cancelled before it started
    SUBMITTED: frozenset({CANCELLING, DONE}),
    CANCELLING: frozenset({DONE}),
    DONE: frozenset({SPENT}),
    SPENT: frozenset({NEW, HERE}),
    HERE: frozenset({NEW, SPENT, STALE}),
    STALE: frozenset(),
}


class Owner(Protocol):
    """What an op's maker hears from the driver; the only call that goes upwards."""

    def orphan(self, op: "Op[T]", value: object, /) -> None:
        """
        Take what the kernel did although the awaiter had been cancelled.

        *value* is what the awaiter would have got from the driver: received bytes, a new
        descriptor, or the `OpError` that the kernel answered.  Must not raise and must not wait.
        """
        ...


class Op(Generic[T_co]):
    """
    One operation, awaitable once, under the native scheduler and under asyncio alike.

    It starts when it is first awaited, or given a done callback; until then nothing happened.
    Under asyncio it answers the future protocol, so that ``asyncio.wait_for(op, 1)``, ``gather``
    and ``shield`` take it as it is.

    Cancellation: the awaiter gets the scheduler's cancelled exception once the kernel has let go of
    the operation's memory, and never a result instead.
    """

    __slots__ = (
        "__weakref__",
        "_asyncio_future_blocking",
        "_cancel_message",
        "addr",
        "code",
        "context",
        "done_bytes",
        "error",
        "fd",
        "finish",
        "flags",
        "hold",
        "home",
        "later",
        "len",
        "memory",
        "off",
        "owner",
        "standing",
        "state",
        "use",
        "value",
        "waiter",
    )

    _cancel_message: object  # set by `cancel` only

    def __init__(
        self,
        code: int,
        fd: int = -1,
        addr: int = 0,
        len_: int = 0,
        off: int = 0,
        flags: int = 0,
        memory: ReadableBuffer | None = None,
        owner: Owner | None = None,
        finish: Callable[[object], T_co] | None = None,
    ) -> None:
        self.code = code
        self.fd = fd
        self.addr = addr
        self.len = len_
        self.off = off
        self.flags = flags
        self.memory = memory
        self.owner = owner
        self.finish = finish
        self.state = NEW
        self.value: object = None
        self.error: BaseException | None = None
        self.waiter: object = None  # the scheduler's: a task, or a callable that takes the op
        self.context: Context | None = None
        self.hold: Pinned | None = None  # what keeps `memory` at its address
        self.later: Later | None = None  # of a receive: see `uring_standing`
        self.standing = False
        self.home: Driver | None = None  # the only driver that may run it; None: any
        self.done_bytes = 0
        self.use = 0
        # asyncio's task takes this for the sign that it may wait, and clears it; True is the rule.
        self._asyncio_future_blocking = True

    def __await__(self) -> "Generator[Op[T_co], None, T_co]":
        if self.state:
            if self.state != HERE:
                raise self._not_new()
            scheduler = current.here.scheduler
            if scheduler is not None and self.later and scheduler.driver is self.home:
                task = scheduler.task
                if task is not None and not task.attention:
                    # Operators, behind which no signal handler runs that could lose the bytes.
                    first = self.later[0]
                    if type(first) is bytes:
                        self.state = SPENT
                        del self.later[0]
                        return first  # type: ignore[return-value]  # a receive of bytes
            self.state = NEW
        try:
            yield self
        except BaseException:
            if self.done() and self.value is not None and self.owner is not None:
                # A signal handler's, where it was to be taken.  (Not `done`: the next user's.)
                self.owner.orphan(self, self.value)
                self.value = None
            raise
        # The scheduler has thrown `error` already, if there is one.
        value = self.value
        self.value = None  # a reused op must not keep a payload alive until its next use
        if self.finish is None:
            return value  # type: ignore[return-value]  # a cast is a call, and this is hot
        if isinstance(value, _Finished):
            return cast(T_co, value.value)
        return self.finish(value)

    def __repr__(self) -> str:
        states = ("new", "submitted", "cancelling", "done", "spent", "stale", "here")
        fd = f" fd={self.fd}" if self.fd >= 0 else ""
        return f"<Op {OPERATION_NAMES[self.code]}{fd} {states[self.state]}>"

    def __del__(self) -> None:
        state: int | None = getattr(self, "state", None)
        if state is None:
            return  # a signal handler raised before it was one
        if state == NEW:
            if self.code != READY:
                warn_never_awaited(self, self.code == CLOSE)
        elif self.value is not None and self.finish is not None and self.code in MAKES_DESCRIPTOR:
            close_unclaimed(self)

    def _not_new(self) -> Exception:
        if self.state == STALE:
            return BusyError(
                f"{self!r} was superseded: the same call was made again on this handle before "
                "this one was awaited"
            )
        return UsageError(f"{self!r} was awaited already; an operation runs once")

    # --- the future protocol of asyncio ----------------------------------------------------------

    def add_done_callback(
        self, callback: "Callable[[Op[T_co]], object]", *, context: Context | None = None
    ) -> None:
        """
        Call *callback* with the op when it is done, in *context*; starts the op if it is new.

        An op that cannot be started is done with the error that says why: asyncio's task does not
        survive an exception from here.

        Raises:
            BusyError: The op was superseded.
        """
        self._asyncio_future_blocking = True
        if context is None:
            context = copy_context()
        if self.state == HERE:
            self.state = NEW
        if self.state == NEW:
            self.waiter = callback
            self.context = context
            try:
                driver = current.here.driver
                if driver is None or (self.home is not None and self.home is not driver):
                    driver = current.driver_for_start(self)  # which says what is wrong
                self.home = driver
                driver.submit(self)
            except Exception as error:
                taken = self.home if self.state != NEW else None
                if taken is None or not taken.cancel(self, error):
                    self._refuse(error)
                # Else a signal handler raised when the driver had it already.
        elif self.state == SPENT:
            current.call_soon(callback, self, context)
        elif self.state == STALE:
            raise self._not_new()
        elif self.waiter is None or self.waiter is _nobody:
            self.waiter = callback
            self.context = context
        else:
            if not isinstance(self.waiter, _CallbackList):
                self.waiter = _CallbackList(self.waiter, self.context)
                self.context = None
            self.waiter.entries.append((cast("Callable[[Op[object]], object]", callback), context))

    def remove_done_callback(self, callback: "Callable[[Op[T_co]], object]") -> int:
        """Forget *callback*; returns how many were removed."""
        waiter = self.waiter
        if isinstance(waiter, _CallbackList):
            before = len(waiter.entries)
            waiter.entries[:] = [entry for entry in waiter.entries if entry[0] != callback]
            return before - len(waiter.entries)
        if waiter is not None and waiter == callback:
            self.waiter = _nobody
            return 1
        return 0

    def cancel(self, msg: object = None) -> bool:
        """
        Ask the kernel to stop; False when the outcome was already delivered.

        The op stays in flight until its terminal completion.  A new op is started and stopped, so
        that its owner hears of it in the one way there is.
        """
        if self.state in {NEW, HERE}:
            self.add_done_callback(_nobody)
        if self.state == SPENT or self.state == STALE:
            return False
        self._cancel_message = msg
        # Not the current driver: tasks are cancelled between two runs of their loop, too.
        driver = self.home if self.home is not None else current.driver_of(self)
        return driver.cancel(self)

    def done(self) -> bool:
        """Whether the outcome has been delivered."""
        return self.state == SPENT

    def came_to_nothing(self) -> bool:
        """
        Whether it has ended without a result, or can never begin.

        For operations whose success has a value; for the others it says True once they are done.
        """
        state = self.state
        if state in (DONE, SPENT):
            return self.error is not None or self.value is None
        return state == STALE

    def cancelled(self) -> bool:
        """Whether the outcome is a cancellation."""
        return self.state == SPENT and _is_cancellation(self.error)

    def exception(self) -> BaseException | None:
        """Return the error of a finished op; raises the cancelled exception if it was cancelled."""
        self._require_finished()
        if self.error is not None and _is_cancellation(self.error):
            raise self.error
        return self.error

    def result(self) -> T_co:
        """Return the value of a finished op, or raise its error."""
        if self.state != SPENT:
            self._require_finished()
        self.waiter = None  # a reused op must not keep its last task alive
        if self.error is not None:
            raise self.error
        if self.finish is not None:
            # asyncio's task asks for the result before it resumes the coroutine, and callbacks may
            # ask often: convert once, and mark the conversion for whoever comes next.
            if not isinstance(self.value, _Finished):
                self.value = _Finished(self.finish(self.value))
            return cast(T_co, self.value.value)
        return self.value  # type: ignore[return-value]  # a cast is a call, and this is hot

    def get_loop(self) -> object:
        """Return the asyncio loop that runs here, which is the only one that may await the op."""
        scheduler = current.here.scheduler
        if scheduler is None:
            # asyncio's task compares this with its own loop and fails with a clear error; it would
            # not survive an exception.
            return None
        return scheduler.asyncio_loop()

    def _make_cancelled_error(self) -> BaseException:
        # asyncio.gather asks its children for the exception to raise.
        if self.error is not None and _is_cancellation(self.error):
            return self.error
        return cast("_CancelledMaker", current.loop()).make_cancelled_error(self)

    def _refuse(self, error: Exception) -> None:
        """End an op that its driver would not take."""
        callback, context = self.waiter, self.context
        self.waiter = _nobody
        self.error = error
        self.memory = None
        self.state = SPENT
        current.call_soon(cast("Callable[[Op[T_co]], object]", callback), self, context)

    def _require_finished(self) -> None:
        if self.state != SPENT:
            raise UsageError(f"{self!r} is not finished")


class Offload(Op[T_co]):
    """
    A call made by a worker thread, as an op.

    Cancelling abandons the call: the awaiter is told at once, the thread finishes unheard.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], T_co]) -> None:
        super().__init__(OFFLOAD)
        self.function = function


class Awaited(Offload[T_co]):
    """
    Something that any thread may bring about, as an op.

    Attributes:
        tell: Has the driver take `outcome`; the driver's, None until the op has started.
        outcome: Value and error, once it was brought about.
    """

    __slots__ = ("outcome", "tell")

    def __init__(self) -> None:
        super().__init__(_never)
        self.tell: Callable[[], None] | None = None
        self.outcome: tuple[object, BaseException | None] | None = None

    def end(self, value: object = None, error: BaseException | None = None) -> None:
        """
        End it; from anywhere, also out of a finalizer, and also before it has started.

        After the first end, or a cancellation, nothing happens.
        """
        if self.outcome is None:
            self.outcome = value, error
            if self.tell is not None:
                self.tell()


def _never() -> NoReturn:
    raise AssertionError("nobody calls what is awaited")


def names(op: Op[object]) -> list[bytes]:
    """Return the paths that *op* was given in its memory, for whoever reports on it."""
    start = PATH_STARTS.get(op.code)
    if start is None or op.memory is None:
        return []
    return bytes(op.memory)[start:].split(b"\0")[:-1]


class _Finished:
    """A value that has been through `Op.finish`."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class _CancelledMaker(Protocol):
    """The part of our asyncio loop that an op knows."""

    def make_cancelled_error(self, op: "Op[T]", /) -> BaseException: ...


class _CallbackList:
    """Several done callbacks in the one place of an op's waiter."""

    __slots__ = ("entries",)

    def __init__(self, first: object, context: Context | None) -> None:
        self.entries = [(cast("Callable[[Op[object]], object]", first), context)]

    def __call__(self, op: Op[object]) -> None:
        # Directly, one after another, like a single waiter: with a pass between, a task could be
        # cancelled after its data had come, and the data would be lost.
        failure: BaseException | None = None
        for callback, context in list(self.entries):
            try:
                if context is None:
                    callback(op)
                else:
                    context.run(callback, op)
            except BaseException as error:
                failure = failure or error
        if failure is not None:
            raise failure


def _nobody(op: Op[T]) -> None:
    """Stand in for the waiter of an op that nobody awaits any more."""


def renew(op: Op[T]) -> Op[T]:
    """
    Return *op*, spent, as new for its next use.

    Raises:
        BusyError: It is still in flight.
    """
    if op.state != SPENT:
        raise BusyError(f"{op!r} is still in use: one task at a time")
    op.state = NEW
    op.error = None
    op.done_bytes = 0
    return op


def _is_cancellation(error: BaseException | None) -> bool:
    # Both schedulers' cancelled exceptions stand outside Exception; nothing else of ours does.
    return error is not None and not isinstance(error, Exception)
