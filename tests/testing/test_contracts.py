"""The contract suites pass what is right, on every driver and kernel, and refuse what is wrong."""

import errno
from collections.abc import Awaitable, Callable

import pytest

import uringio
from tests.testing import transports
from tests.testing.transports import Pair
from uringio import testing
from uringio.errors import BusyError, ClosedError, op_error
from uringio.streams import Stream

MakePair = Callable[[], Awaitable[Pair]]
PROFILES = ("6.18", "plain", "blocked", "kqueue", "poll")


@pytest.mark.parametrize("transport", transports.PAIRS)
def test_sockets_keep_the_stream_contract(backend: str, transport: str) -> None:
    """TCP and Unix streams on the real kernel do what every stream must."""
    uringio.run(testing.check_stream, transports.PAIRS[transport], backend=backend)


@pytest.mark.parametrize("transport", transports.LISTENERS)
def test_listeners_keep_the_listener_contract(backend: str, transport: str) -> None:
    """TCP and Unix listeners on the real kernel do what every listener must."""
    uringio.run(testing.check_listener, transports.LISTENERS[transport], backend=backend)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("faults", [testing.CALM, testing.STORM], ids=["calm", "storm"])
def test_simulated_sockets_keep_both_contracts(profile: str, faults: testing.FaultPlan) -> None:
    """So do the simulated ones, on every rung, also while much goes wrong that none may notice."""

    async def main() -> None:
        for make in transports.PAIRS.values():
            await testing.check_stream(make, clog_bytes=1 << 20)
        for listen in transports.LISTENERS.values():
            await testing.check_listener(listen)

    testing.run(main, profile=profile, faults=faults)


def check_memory(make: MakePair, clog_bytes: int = 1 << 17) -> None:
    """Check a pair of memory streams on a simulated kernel, where time costs nothing."""

    async def main() -> None:
        await testing.check_stream(make, clog_bytes=clog_bytes)

    testing.run(main)


def test_memory_streams_keep_the_stream_contract(backend: str) -> None:
    """The kit's own streams pass as sockets do, whoever runs the loop."""

    async def main() -> None:
        await testing.check_stream(transports.memory_pair, clog_bytes=1 << 17)

    uringio.run(main, backend=backend)


def test_memory_streams_of_three_bytes_keep_it_too() -> None:
    """However little they hold: every send waits then."""
    check_memory(transports.small_memory_pair, 300)


# --- streams that are wrong, each in one way -----------------------------------------------------


class Passing:
    """A stream that is right, made of another; each of its children is wrong in one way."""

    def __init__(self, inner: testing.MemoryStream) -> None:
        self.inner = inner

    async def recv(self, max_bytes: int = 65536, /) -> bytes:
        return await self.inner.recv(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview, /) -> None:
        await self.inner.send_all(data)

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def aclose(self) -> None:
        await self.inner.aclose()


class LosesWhatCancelledReceivesGot(Passing):
    """Received bytes pass a point where the cancellation finds them."""

    async def recv(self, max_bytes: int = 65536, /) -> bytes:
        data = await self.inner.recv(max_bytes)
        await uringio.sleep(0.00002)
        return data


class ReturnsTooMuch(Passing):
    """The bound is not heeded."""

    async def recv(self, max_bytes: int = 65536, /) -> bytes:
        return await self.inner.recv(max(2, max_bytes) if max_bytes > 0 else max_bytes)


class TakesZero(Passing):
    """A receive of nothing is not refused."""

    async def recv(self, max_bytes: int = 65536, /) -> bytes:
        return await self.inner.recv(max_bytes) if max_bytes else b""


class DropsTails(Passing):
    """A short send that is not resumed."""

    async def send_all(self, data: bytes | bytearray | memoryview, /) -> None:
        await self.inner.send_all(memoryview(data)[:70_000])


class EndsBothWays(Passing):
    """A half-close that is a whole one."""

    async def send_eof(self) -> None:
        await self.inner.aclose()


class CannotEnd(Passing):
    """The end is never told."""

    async def send_eof(self) -> None:
        await uringio.sleep(0)


class EndsOnce(Passing):
    """The second look at the end finds an error."""

    ended = False

    async def recv(self, max_bytes: int = 65536, /) -> bytes:
        if self.ended:
            raise op_error(errno.ENOTCONN, "recv")
        data = await self.inner.recv(max_bytes)
        self.ended = not data
        return data


class ClosesOnce(Passing):
    """The second close is an error."""

    closed = False

    async def aclose(self) -> None:
        if self.closed:
            raise ClosedError("closed already")
        self.closed = True
        await self.inner.aclose()


class ForgetsThatItIsClosed(Passing):
    """What is closed here looks like the peer's end."""

    async def recv(self, max_bytes: int = 65536, /) -> bytes:
        try:
            return await self.inner.recv(max_bytes)
        except ClosedError:
            return b""


class ServesTwoReaders(Passing):
    """A second reader waits in line."""

    async def recv(self, max_bytes: int = 65536, /) -> bytes:
        while True:
            try:
                return await self.inner.recv(max_bytes)
            except BusyError:
                await uringio.sleep(0.001)


class InterleavesWriters(Passing):
    """A second writer is let in between."""

    async def send_all(self, data: bytes | bytearray | memoryview, /) -> None:
        while True:
            try:
                return await self.inner.send_all(data)
            except BusyError:
                await uringio.sleep(0.001)


class NeverWaits(Passing):
    """It takes any amount, and sends it behind the caller's back."""

    def __init__(self, inner: testing.MemoryStream) -> None:
        super().__init__(inner)
        self.inner._outgoing.capacity_bytes = 1 << 40


class SendsIntoTheVoid(Passing):
    """Nobody learns that the peer has gone."""

    async def send_all(self, data: bytes | bytearray | memoryview, /) -> None:
        try:
            await self.inner.send_all(data)
        except BrokenPipeError:
            pass


class CopiesNothing(Passing):
    """Only `bytes` can be sent."""

    async def send_all(self, data: bytes | bytearray | memoryview, /) -> None:
        assert isinstance(data, bytes)
        await self.inner.send_all(data)


WRONG = [
    (LosesWhatCancelledReceivesGot, "loses no byte"),
    (ReturnsTooMuch, "returns from 1 to n bytes"),
    (TakesZero, "returns from 1 to n bytes"),
    (DropsTails, "What is sent arrives"),
    (EndsBothWays, "and may still send"),
    (CannotEnd, "and may still send"),
    (EndsOnce, 'then ``b""`` each time'),
    (ClosesOnce, "closed already"),
    (ForgetsThatItIsClosed, "raises `ClosedError`"),
    (ServesTwoReaders, "A second task that receives"),
    (InterleavesWriters, "A second task that sends"),
    (NeverWaits, "`send_all`|Senders wait"),
    (SendsIntoTheVoid, "a peer that has closed"),
    (CopiesNothing, "can be sent"),
]


@pytest.mark.parametrize(
    ("wrong", "behaviour"), WRONG, ids=lambda one: one.__name__ if isinstance(one, type) else ""
)
def test_a_wrong_stream_is_refused(wrong: type[Passing], behaviour: str) -> None:
    """Each of these is wrong in one way, and told so by the behaviour that it lacks."""

    async def make() -> tuple[Stream, Stream]:
        near, far = testing.memory_stream_pair()
        return near, wrong(far)  # in the second place: both places are looked at

    with pytest.raises(testing.ContractError, match=behaviour):
        check_memory(make)


def test_a_right_stream_of_this_shape_is_not_refused() -> None:
    """What is wrong above is the one thing that each changes."""

    async def make() -> tuple[Stream, Stream]:
        near, far = testing.memory_stream_pair()
        return near, Passing(far)

    check_memory(make)


# --- listeners that are wrong --------------------------------------------------------------------


class PassingListener:
    """A listener that is right; its children are not."""

    def __init__(self, inner: uringio.Listener) -> None:
        self.inner = inner

    async def accept(self) -> Stream:
        return await self.inner.accept()

    async def aclose(self) -> None:
        await self.inner.aclose()


class LosesConnections(PassingListener):
    """What a cancelled accept was about to take is dropped when it comes."""

    owed = 0

    async def accept(self) -> Stream:
        try:
            while self.owed:
                stream = await self.inner.accept()
                self.owed -= 1
                await stream.aclose()
            return await self.inner.accept()
        except uringio.Cancelled:
            self.owed = 1
            raise


class ClosesListenerOnce(PassingListener):
    """The second close is an error."""

    closed = False

    async def aclose(self) -> None:
        if self.closed:
            raise ClosedError("closed already")
        self.closed = True
        await self.inner.aclose()


class OneAcceptor(PassingListener):
    """A second acceptor is refused."""

    busy = False

    async def accept(self) -> Stream:
        if self.busy:
            raise BusyError("one at a time")
        self.busy = True
        try:
            return await self.inner.accept()
        finally:
            self.busy = False


@pytest.mark.parametrize(
    ("wrong", "behaviour"),
    [
        (LosesConnections, "A cancelled `accept`"),
        (ClosesListenerOnce, "may be repeated"),
        (OneAcceptor, "Several tasks may accept"),
    ],
    ids=lambda one: one.__name__ if isinstance(one, type) else "",
)
def test_a_wrong_listener_is_refused(wrong: type[PassingListener], behaviour: str) -> None:
    """Each is told by the behaviour that it lacks."""

    async def make() -> tuple[testing.Accepting, testing.Connect]:
        listener, connect = await transports.tcp_listener()
        assert isinstance(listener, uringio.Listener)
        return wrong(listener), connect

    async def main() -> None:
        await testing.check_listener(make)

    kernel = testing.SimKernel()
    with pytest.raises(testing.ContractError, match=behaviour):
        testing.run(main, kernel=kernel)
