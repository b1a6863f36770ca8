"""
Which ops wait for which descriptor, for drivers that wait for readiness.

An op is attempted when it is submitted.  If its descriptor is not ready, it is queued on the
descriptor's reader or writer side, the poller is told of the descriptor, once and for both
directions, and each edge attempts what is queued.  A descriptor that never blocks is never watched.

When an attempt may be spared.  `Descriptor.dry` says that nothing can be read before the next
edge: the last attempt met EAGAIN, or a read from a TCP socket was short, which proves the same
(epoll(7)).  The proof does not hold for other kinds of sockets, whose reads also end at message and
credential boundaries, nor once the end of the stream, an error or urgent data was reported;
`Descriptor.exact` says whether it does.  So a receive in an echo server costs one read, not two.
"""

import errno
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from typing import Final, Protocol

from uringio._sys.numbers import (
    IPPROTO_TCP,
    MSG_CMSG_CLOEXEC,
    MSG_DONTWAIT,
    SO_PROTOCOL,
    SOL_SOCKET,
)
from uringio._sys.system import System

from . import op as o
from .attempts import RECV_BYTES_MAX, VALUED, locate, make_attempts, start_connecting
from .contract import Deliver
from .op import DONE, MAKES_DESCRIPTOR, RECV, SEND_ALL, SUBMITTED, Op
from .outcome import received, settle_failed
from .poll_bits import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP

__all__ = ["Descriptor", "Descriptors", "Poller"]

_PLAIN: Final = POLLIN | POLLOUT  # what every poller tells by itself
_TROUBLE: Final = POLLERR | POLLHUP | POLLRDHUP  # told unasked; the last: a kqueue's word for it
_ANY: Final = 0xFFFF
_TRANSFERS: Final = frozenset({
    o.RECV, o.RECV_INTO, o.SEND, o.SEND_ALL, o.SENDMSG, o.RECVMSG
})  # fmt: skip

# A read as long as this took what the peer had sent at once, or one piece of much more.
_LONG_BYTES: Final = 65536
# One send_all may not keep everybody else waiting while its peer reads as fast as it writes.
_SENDS_AT_ONCE: Final = 8


class Poller(Protocol):
    """What tells of edges; the bits are poll(2)'s."""

    name: str
    tells_ends: bool  # the end of a stream comes with the edge of the bytes before it

    def begin(self, table: Mapping[int, "Descriptor"], /) -> None:
        """Be shown the driver's table, before the first wait."""
        ...

    @property
    def wait_until(self) -> Callable[[int, int], list[tuple[int, int]]] | None:
        """Wait until a time on the system's clock [ns], exactly; None where `wait` is as exact."""
        ...

    @property
    def wait(self) -> Callable[[float, int], list[tuple[int, int]]]:
        """Return (fd, bits) of what has changed, in at most so many seconds (-1: for ever)."""
        ...

    def watch(self, fd: int, /) -> int:
        """Report the present state of *fd*, and from now on every edge: 0 or a positive errno."""
        ...

    def rearm(self, fd: int, room: bool, /) -> bool:
        """
        Tell of *fd*, which is watched, again if it can be read; False if it will not.

        Of room to write it needs to tell no more, unless *room* is true, before the next `watch`.
        """
        ...

    def watch_level(self, fd: int, /) -> None:
        """Report *fd* as long as it can be read."""
        ...

    def unwatch(self, fd: int, /) -> None:
        """Report nothing more of *fd*."""
        ...

    def close(self) -> None:
        """Let go of the poller's own descriptor."""
        ...


class Descriptor:
    """
    What is known of one file descriptor.

    Attributes:
        fd: Its number.
        stream: It was registered as non-blocking: READ and WRITE wait for readiness, and take no
            thread.
        watched: The poller knows it.
        deaf: It tells nothing of room to write; implies *watched*.
        dry: Nothing can be read before the next edge; implies *watched*.
        exact: A short read proves it dry.
        reader: The only one, if it is a RECV without flags; *readers* is empty then.
        readers, writers: Ops that met EAGAIN, oldest first.
        pollers: POLL ops.
        asked: The length of the RECVs that *reads* is for.
        size: What they read at most. [bytes]
        reads: Reads once for each step; see `Descriptors.prepare_reads`.
        send: Sends all of some bytes with MSG_* flags, or raises OSError; None until it is worth
            having, and where there is no such thing.
        sends: Something was sent before there was *send*.
    """

    __slots__ = (
        "asked", "deaf", "dry", "exact", "fd", "pollers", "reader", "readers", "reads", "send",
        "sends", "size", "stream", "watched", "writers",
    )  # fmt: skip

    def __init__(self, fd: int, stream: bool) -> None:
        self.fd = fd
        self.stream = stream
        self.watched = False
        self.deaf = False
        self.dry = False
        self.exact = False
        self.reader: Op[object] | None = None
        self.readers: list[Op[object]] = []
        self.writers: list[Op[object]] = []
        self.pollers: list[Op[object]] = []
        self.asked = -1
        self.size = 0
        self.reads: Iterator[bytes] = iter(())
        self.send: Callable[[bytes, int], int] | None = None
        self.sends = False

    def line_up(self, op: Op[object]) -> None:
        """Have the reader *op* wait."""
        if op.code == RECV and not op.flags and self.reader is None and not self.readers:
            self.reader = op
        else:
            self.unfold().append(op)

    def unfold(self) -> list[Op[object]]:
        """Return all readers as the list *readers*."""
        if self.reader is not None:
            # By operators alone: a signal handler finds it in one place.
            self.readers[:0] = (self.reader,)
            self.reader = None
        return self.readers

    def waiting(self) -> list[Op[object]]:
        """Return every op that waits."""
        return [*self.unfold(), *self.writers, *self.pollers]


class Descriptors:
    """
    The descriptors of one driver, and every op that waits for one.

    The ``start_*`` methods take an op that is SUBMITTED and whose memory is located.

    Attributes:
        table: By number; the driver's hot closures look into it themselves.
        attempts: See `uringio._driver.attempts`.
        deliver: Takes a settled op.
        unfinished: Descriptors whose first writer could go on and was interrupted for fairness.
        congested: Ops that connect to a Unix listener whose queue is full.
        departed: Numbers that the poller knows and nobody uses any more.
    """

    def __init__(self, system: System, poller: Poller, deliver: Deliver) -> None:
        self._system = system
        self._poller = poller
        self._bare_send = system.bare_send
        self.deliver = deliver
        self.table: dict[int, Descriptor] = {}
        self.attempts = make_attempts(system, self.adopt)
        self.unfinished: deque[Descriptor] = deque()
        self.congested: list[Op[object]] = []
        self.departed: list[int] = []

    def __len__(self) -> int:
        """Count the ops that wait."""
        return len(self.congested) + sum(len(one.waiting()) for one in self.table.values())

    # --- descriptors -----------------------------------------------------------------------------

    def adopt(self, fd: int, stream: bool = False) -> None:
        """Begin anew with a new descriptor, whatever had its number before."""
        self._depart_now(fd)
        self.table[fd] = Descriptor(fd, stream)

    def describe(self, fd: int) -> Descriptor:
        """Return what is known of *fd*, which may be nothing yet."""
        descriptor = self.table.get(fd)
        if descriptor is None:
            self._depart_now(fd)
            descriptor = self.table[fd] = Descriptor(fd, False)
        return descriptor

    def forget(self, fd: int) -> list[Op[object]]:
        """Drop what is known of *fd* and return the ops that were queued on it."""
        descriptor = self.table.pop(fd, None)
        if descriptor is None:
            return []
        return descriptor.waiting()

    def take_all(self) -> list[Op[object]]:
        """Forget every descriptor and return all that waited."""
        waiting = self.congested[:]
        self.congested.clear()
        self.unfinished.clear()
        for fd in list(self.table):
            waiting += self.forget(fd)
        return waiting

    def depart(self, fd: int) -> None:
        """
        Forget *fd*, whose owner may keep or close it, and end what was queued on it.

        The poller is told in the next turn, unless a CLOSE comes before, which makes it needless.
        """
        descriptor = self.table.get(fd)
        if descriptor is not None:
            if descriptor.watched:
                self.departed.append(fd)
            self._strand(fd)

    def depart_closing(self, fd: int) -> None:
        """Forget *fd*, which is about to be closed, and end what was queued on it."""
        if fd in self.departed:
            self.departed.remove(fd)
        self._strand(fd)

    def unwatch_departed(self) -> None:
        """Tell the poller of every descriptor that departed open."""
        while self.departed:
            self._poller.unwatch(self.departed.pop())

    def _depart_now(self, fd: int) -> None:
        if fd in self.departed:
            self.departed.remove(fd)
            self._poller.unwatch(fd)

    def _strand(self, fd: int) -> None:
        for op in self.forget(fd):
            self.finish(op, -errno.ECANCELED)

    # --- beginning -------------------------------------------------------------------------------

    def start_at_once(self, op: Op[object]) -> None:
        """Carry out what never waits."""
        self.finish(op, self.attempts[op.code](op))

    def start_reader(self, op: Op[object]) -> None:
        """Attempt, or wait for something to read."""
        descriptor = self.table.get(op.fd)
        if descriptor is not None and descriptor.dry and not _tells_nothing(op):
            descriptor.line_up(op)
        elif not self._try_reader(op, descriptor):
            self._wait(op, self.describe(op.fd).unfold())

    def start_writer(self, op: Op[object]) -> None:
        """Attempt, or wait for room to write."""
        descriptor = self.table.get(op.fd)
        if descriptor is not None and descriptor.writers:
            descriptor.writers.append(op)
        elif not self._try_writer(op):
            self._wait(op, self.describe(op.fd).writers)

    def go_on_sending(self, op: Op[object], res: int) -> None:
        """Continue a SEND_ALL of `bytes` whose first attempt had the result *res*."""
        if res > 0:
            locate(op)
            _advance(op, res)
            if not self._try_writer(op):
                self._wait(op, self.describe(op.fd).writers)
        elif _must_wait(op, res):
            self._wait(op, self.describe(op.fd).writers)
        else:
            self.finish(op, res)

    def send_early(self, descriptor: Descriptor, op: Op[object], data: bytes) -> int:
        """Send all of *data* for *op* while its descriptor has no `send`; a result or -errno."""
        if descriptor.sends:
            # A second time: making ready, which costs as much as a few sends, will pay.
            descriptor.send = self._system.sender(op.fd)
            if descriptor.send is not None:
                return descriptor.send(data, op.flags)
        descriptor.sends = True
        res = self._bare_send(op.fd, data, op.len, op.flags)
        return res if res >= 0 else -self._system.get_errno()

    def prepare_reads(self, descriptor: Descriptor, len_bytes: int) -> None:
        """
        Make `Descriptor.reads` for RECVs of *len_bytes*.

        Each step reads, and nothing is run between that and the storing of what it yields, where a
        call would let a signal handler in, whose exception would lose the bytes.
        """
        descriptor.asked = len_bytes
        descriptor.size = len_bytes if 0 < len_bytes < RECV_BYTES_MAX else RECV_BYTES_MAX
        descriptor.reads = map(
            self._system.read_bytes, repeat(descriptor.fd), repeat(descriptor.size)
        )

    def doubt(self, descriptor: Descriptor, got_bytes: int) -> None:
        """Find out whether a read of *got_bytes*, which does not prove it, left nothing."""
        # Behind a piece that was asked for as such there is more, and it is read at once.  Else
        # there most probably is not, and the poller is cheaper to ask than a read made in vain.
        descriptor.dry = False
        if 0 < got_bytes < descriptor.size or got_bytes >= _LONG_BYTES:
            room = bool(descriptor.writers or descriptor.pollers)
            descriptor.deaf = not room
            descriptor.dry = self._poller.rearm(descriptor.fd, room)

    def start_connect(self, op: Op[object]) -> None:
        """Begin to connect."""
        if not self._try_connect(op):
            self.congested.append(op)

    def start_poll(self, op: Op[object]) -> None:
        """Ask for the present state, or wait for it to change."""
        res = self.attempts[op.code](op)
        if res == -errno.EAGAIN:
            self._wait(op, self.describe(op.fd).pollers)
        else:
            self.finish(op, res)

    # --- going on --------------------------------------------------------------------------------

    # An op leaves its queue after its attempt, so that an exception (a signal handler's) in between
    # loses none; one that is found there with its outcome known already has had such luck.

    def serve_readers(self, descriptor: Descriptor) -> None:
        """Attempt the queued readers, until one finds nothing to read."""
        readers = descriptor.unfold()
        index = 0
        while index < len(readers):
            op = readers[index]
            if op.state != SUBMITTED or self._try_reader(op, descriptor):
                if op in readers:  # not if a handler has cancelled it meanwhile
                    readers.remove(op)
            elif _tells_nothing(op):
                index += 1
            else:
                break

    def serve_writers(self, descriptor: Descriptor) -> None:
        """Attempt the queued writers, until one finds no room."""
        writers = descriptor.writers
        while writers:
            op = writers[0]
            if op.state == SUBMITTED and not self._try_writer(op):
                break
            if op in writers:
                writers.remove(op)

    def serve_pollers(self, descriptor: Descriptor, bits: int = _ANY) -> None:
        """Ask for what the POLL ops wait for, if it may be among the *bits* that were told."""
        for op in descriptor.pollers[:]:
            if op.state == SUBMITTED:
                if not bits & (op.flags | _TROUBLE) and not op.flags & ~_PLAIN:
                    continue
                res = self.attempts[op.code](op)
                if res == -errno.EAGAIN:
                    continue
                self.finish(op, res)
            descriptor.pollers.remove(op)

    def serve_everybody(self) -> None:
        """Attempt every op that waits: edges may have been lost."""
        for descriptor in list(self.table.values()):
            descriptor.dry = False
            self.serve_pollers(descriptor)
            self.serve_readers(descriptor)
            self.serve_writers(descriptor)

    def serve_postponed(self) -> None:
        """Go on with what no edge will tell of."""
        for _ in range(len(self.unfinished)):
            self.serve_writers(self.unfinished.popleft())
        for op in self.congested[:]:
            if (op.state != SUBMITTED or self._try_connect(op)) and op in self.congested:
                self.congested.remove(op)

    def recv_failed(self, descriptor: Descriptor, op: Op[object], error: OSError) -> None:
        """Take what a read for *op*, the reader, raised."""
        if error.errno is None:
            raise error  # a signal handler's, such as a TimeoutError
        descriptor.dry = error.errno == errno.EAGAIN
        if not descriptor.dry:
            self.finish(op, -error.errno)
            descriptor.reader = None

    # --- ending ----------------------------------------------------------------------------------

    def finish(self, op: Op[object], res: int) -> None:
        """
        Settle *op* with a result like a completion's, and deliver it.

        Unless a signal handler has cancelled it behind its very call: then it has been delivered,
        and a descriptor that it made is nobody's.
        """
        if op.state > SUBMITTED:
            if res >= 0 and op.code in MAKES_DESCRIPTOR:
                self._system.close(res)
            return
        if res < 0:
            settle_failed(op, -res)
        else:
            if op.code in VALUED:
                op.value = res
            elif op.code == o.RECVMSG:
                op.value = received(op, res)
            op.memory = None
            op.hold = None
            op.state = DONE
        self.deliver(op)

    def withdraw(self, op: Op[object]) -> None:
        """Take *op* out of wherever it waits."""
        if op in self.congested:
            self.congested.remove(op)
            return
        descriptor = self.describe(op.fd)
        for queue in (descriptor.unfold(), descriptor.writers, descriptor.pollers):
            if op in queue:
                queue.remove(op)

    # --- trying ----------------------------------------------------------------------------------

    def _try_reader(self, op: Op[object], descriptor: Descriptor | None) -> bool:
        """Attempt *op*; False if it must wait."""
        size = RECV_BYTES_MAX if op.code == RECV and not 0 < op.len < RECV_BYTES_MAX else op.len
        res = self._attempt(op)
        if _must_wait(op, res):
            if descriptor is not None and not _tells_nothing(op):
                descriptor.dry = descriptor.watched
            return False
        if descriptor is not None and descriptor.exact and op.code != o.ACCEPT:
            descriptor.dry = 0 < res < size and not op.flags and op.code != o.RECVMSG
        self.finish(op, res)
        return True

    def _try_connect(self, op: Op[object]) -> bool:
        """Begin to connect; False if a Unix listener's queue is full."""
        res = start_connecting(self._system, op)
        if res == -errno.EAGAIN:
            return False
        if res == -errno.EINPROGRESS:
            self._wait(op, self.describe(op.fd).writers)
        else:
            self.finish(op, res)
        return True

    def _try_writer(self, op: Op[object]) -> bool:
        """Attempt *op*; False if it must wait, or go on in the next turn."""
        res = self._attempt(op)
        if op.code == SEND_ALL:
            for _ in range(_SENDS_AT_ONCE):
                if res <= 0 or res == op.len:
                    break
                _advance(op, res)
                res = self._attempt(op)
            else:
                if 0 < res < op.len:
                    _advance(op, res)
                    self.unfinished.append(self.describe(op.fd))
                    return False
        if _must_wait(op, res):
            return False
        self.finish(op, res)
        return True

    def _attempt(self, op: Op[object]) -> int:
        attempt = self.attempts[op.code]
        res = attempt(op)
        while res == -errno.EINTR:
            res = attempt(op)
        return res

    def _wait(self, op: Op[object], queue: list[Op[object]]) -> None:
        """Put *op* into *queue*, one of its descriptor's, and have the descriptor watched."""
        descriptor = self.describe(op.fd)
        # A POLL may be on a descriptor that others close, and its number may by now name another
        # file, of which the poller knows nothing.
        if descriptor.deaf and queue is not descriptor.readers:
            descriptor.watched = self._poller.rearm(op.fd, True)
            descriptor.deaf = False
        if not descriptor.watched or (op.code == o.POLL and not descriptor.stream):
            number = self._poller.watch(op.fd)
            if number:
                # EPERM: it has no readiness to wait for.  Of that io_uring says EINVAL.
                self.finish(op, -errno.EINVAL if number == errno.EPERM else -number)
                return
            descriptor.watched = True
            descriptor.deaf = False
            # (Of what others read from, it would say nothing.)
            theirs = queue is descriptor.pollers and not descriptor.stream
            descriptor.exact = not theirs and self._poller.tells_ends and self._is_tcp(op.fd)
        if queue is descriptor.readers and not _tells_nothing(op):
            descriptor.dry = True
        if queue is descriptor.readers:
            descriptor.line_up(op)
        else:
            queue.append(op)

    def _is_tcp(self, fd: int) -> bool:
        try:
            return self._system.getsockopt(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP
        except OSError:
            return False


def _tells_nothing(op: Op[object]) -> bool:
    """Whether MSG_* flags (PEEK, OOB, ...) keep the result from telling about the stream."""
    if op.code == o.RECVMSG:
        return op.flags & ~MSG_CMSG_CLOEXEC != 0
    return op.flags != 0 and op.code <= o.RECV_INTO


def _must_wait(op: Op[object], res: int) -> bool:
    return res == -errno.EAGAIN and not (op.flags & MSG_DONTWAIT and op.code in _TRANSFERS)


def _advance(op: Op[object], res: int) -> None:
    op.done_bytes += res
    op.addr += res
    op.len -= res
