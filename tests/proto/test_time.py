"""The limits of time, by a clock that the tests turn; no kernel, no scheduler."""

from collections.abc import AsyncIterator, Callable, Coroutine, Generator

import pytest

from tests.proto.corpus import CHUNKED, POST
from tests.proto.memory import MemoryStream, step
from uringio.errors import UsageError
from uringio.proto.http1 import BodyAbortedError, EndReason, Http1Server, Limit, Limits

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Wait:
    """An await that ends when the test says so."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Interrupted(BaseException):
    """What a scheduler throws into a wait to end it."""


class SlowStream(MemoryStream):
    """A stream whose peer lets us wait: at its end of arrivals, or when it is to take bytes."""

    def __init__(self, *arrivals: bytes) -> None:
        super().__init__(arrivals)
        self.takes = True

    async def recv(self, max_bytes: int = 65536, /) -> bytes:
        while not self.arrivals:
            await Wait()
        return await super().recv(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview, /) -> None:
        while not self.takes:
            await Wait()
        await super().send_all(data)


class Running:
    """A coroutine, stepped from one wait to the next; dropped, it is closed."""

    def __init__(self, coroutine: Coroutine[object, None, None]) -> None:
        self.coroutine = coroutine
        self.done = False
        self.go_on()

    def go_on(self) -> None:
        """Run to the next wait, or the end."""
        try:
            self.coroutine.send(None)
        except StopIteration:
            self.done = True

    def cancel(self) -> None:
        """End the wait as cancellation does."""
        with pytest.raises(Interrupted):
            self.coroutine.throw(Interrupted())


async def answer_all(server: Http1Server) -> None:
    while (request := await server.next_request()) is not None:
        try:
            body = b"".join([piece async for piece in request.body])
        except BodyAbortedError:
            continue
        await server.respond(200, [], body)


def overdue_at(server: Http1Server, start: float, stop: float) -> float | None:
    """Sweep once a second; when the server names a limit, or None."""
    now = start
    while now <= stop:
        if server.check_time(now) is not None:
            return now
        now += 1.0
    return None


@pytest.mark.parametrize("before", [[], [GET]])
def test_idle_connections_end(before: list[bytes]) -> None:
    """No byte of a head within the time: the end is typed, and no response is sent for it."""
    stream = SlowStream(*before)
    server = Http1Server(stream)
    running = Running(answer_all(server))
    assert overdue_at(server, 100.0, 200.0) == 115.0
    running.cancel()
    sent = stream.output
    step(server.aclose())
    assert server.end is not None
    assert (server.end.reason, server.end.limit) == (EndReason.IDLE, Limit.IDLE_TIME)
    assert stream.output == sent
    assert stream.closed_count == 1


def test_each_wait_has_its_own_time() -> None:
    """A connection that is used may last: the time starts anew with every request."""
    stream = SlowStream(GET)
    server = Http1Server(stream)
    running = Running(answer_all(server))
    for hour in range(10):
        assert overdue_at(server, hour * 14.0, hour * 14.0 + 14.0) is None
        stream.arrivals.append(GET)
        running.go_on()
    assert stream.output.count(b" 200 OK") == 11


def test_slow_heads_get_408() -> None:
    """A byte now and then does not help: a head has its time from its first byte on."""
    stream = SlowStream(b"G")
    server = Http1Server(stream)
    running = Running(answer_all(server))
    now = 0.0
    while server.check_time(now) is None:
        stream.arrivals.append(b"E")
        running.go_on()
        now += 1.0
    assert now == 10.0
    running.cancel()
    stream.arrivals.append(b"more")  # is read while lingering
    stream.arrivals.append(ConnectionResetError(104, "reset"))
    step(server.aclose())
    assert server.end is not None
    assert (server.end.reason, server.end.status) == (EndReason.REFUSED, 408)
    assert server.end.limit is Limit.HEAD_TIME
    assert stream.output.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"Connection: close" in stream.output
    assert stream.closed_count == 1


@pytest.mark.parametrize("head", [POST + b"Content-Length: 9000\r\n\r\n", CHUNKED + b"2328\r\n"])
@pytest.mark.parametrize("rate", [0, 1, 499, 500, 2000])
def test_bodies_have_a_minimum_rate(head: bytes, rate: int) -> None:
    """Below 500 bytes a second, measured over the grace, a body gets 408; at 500 it does not."""
    stream = SlowStream(head + b"x" * 1000)
    server = Http1Server(stream)
    running = Running(answer_all(server))
    found: Limit | None = None
    for now in range(14):
        if (found := server.check_time(float(now))) is not None:
            break
        if rate:
            stream.arrivals.append(b"x" * rate)
            running.go_on()
            if stream.output:
                break
    if rate >= 500:
        assert found is None
        return
    assert found is Limit.BODY_RATE
    assert now == 5
    running.cancel()
    stream.arrivals.append(ConnectionResetError(104, "reset"))
    step(server.aclose())
    assert server.end is not None
    assert (server.end.reason, server.end.status) == (EndReason.REFUSED, 408)
    assert stream.output.startswith(b"HTTP/1.1 408 ")


def test_a_handler_may_take_its_time() -> None:
    """While the server works on a request the peer is not blamed."""
    stream = SlowStream(POST + b"Content-Length: 3\r\n\r\nabc")
    server = Http1Server(stream)

    async def handle() -> None:
        await server.next_request()
        await Wait()
        await server.respond(200)

    _running = Running(handle())
    assert overdue_at(server, 0.0, 500.0) is None


def test_a_handler_that_reads_on_learns_of_the_end() -> None:
    """Whoever still reads a body that is overdue gets `BodyAbortedError`, not the late bytes."""
    stream = SlowStream(POST + b"Content-Length: 3\r\n\r\n")
    server = Http1Server(stream)
    running = Running(answer_all(server))
    assert overdue_at(server, 0.0, 500.0) == 5.0
    stream.arrivals.append(b"abc")
    running.go_on()
    assert running.done
    stream.arrivals.append(ConnectionResetError(104, "reset"))
    step(server.aclose())
    assert stream.output.startswith(b"HTTP/1.1 408 ")


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield bytes(100_000)


def sending(acknowledged: Callable[[], int] | None) -> tuple[SlowStream, Http1Server, Running]:
    """Let a server send a body without end to a peer that takes nothing."""
    stream = SlowStream(GET)
    server = Http1Server(stream, acknowledged=acknowledged)

    async def handle() -> None:
        await server.next_request()
        stream.takes = False
        await server.respond(200, [], endless())

    return stream, server, Running(handle())


@pytest.mark.parametrize(("rate", "ends_at"), [(0, 10.0), (499, 10.0), (500, None)])
def test_readers_have_a_minimum_rate(rate: int, ends_at: float | None) -> None:
    """A peer that takes less than 500 bytes a second is dropped; at 500 it is kept."""
    taken = 1

    def acknowledged() -> int:
        return taken

    stream, server, running = sending(acknowledged)
    for now in range(100):
        if server.check_time(float(now)) is not None:
            break
        taken += rate
    else:
        assert ends_at is None
        return
    assert now == ends_at
    running.cancel()
    step(server.aclose())
    assert server.end is not None
    assert (server.end.reason, server.end.limit) == (EndReason.CUT, Limit.SEND_RATE)
    assert stream.output == b""
    assert stream.closed_count == 1


@pytest.mark.parametrize("acknowledged", [None, lambda: 0], ids=["stream", "kernel"])
def test_where_progress_is_unseen_a_send_gets_the_time_of_its_size(
    acknowledged: Callable[[], int] | None,
) -> None:
    """Without word of what the peer took, a piece has the grace and what 500 B/s would need."""
    _, server, _running = sending(acknowledged)
    # The head, of some eighty bytes, is what waits.
    assert overdue_at(server, 0.0, 500.0) == 11.0


def test_large_sends_get_longer_where_progress_is_unseen() -> None:
    """20 kB at 500 B/s are 40 s, beside the grace."""
    stream = SlowStream(GET)
    server = Http1Server(stream)

    async def handle() -> None:
        await server.next_request()
        stream.takes = False
        await server.respond(200, [], bytes(20_000))

    _running = Running(handle())
    end = overdue_at(server, 0.0, 500.0)
    assert end is not None
    assert 50.0 <= end <= 52.0


def test_limits_of_time_can_be_set() -> None:
    """Each limit of time is the caller's."""
    limits = Limits(idle_seconds=3, head_seconds=2)
    server = Http1Server(SlowStream(), limits=limits)
    _running = Running(answer_all(server))
    assert overdue_at(server, 0.0, 500.0) == 3.0
    server = Http1Server(SlowStream(b"G"), limits=limits)
    _running = Running(answer_all(server))
    assert overdue_at(server, 0.0, 500.0) == 2.0


# --- draining ------------------------------------------------------------------------------------


def test_draining_ends_idle_connections_soon() -> None:
    """Told to drain, a connection on which nothing is asked for ends within a moment."""
    server = Http1Server(SlowStream(GET), limits=Limits(drain_seconds=2))
    _running = Running(answer_all(server))
    assert overdue_at(server, 0.0, 10.0) is None
    server.drain()
    assert overdue_at(server, 10.0, 30.0) == 12.0
    assert server.end is not None
    assert server.end.reason is EndReason.DRAINED


def test_draining_finishes_what_was_asked_for() -> None:
    """What has come while draining is answered; the last response says that it is."""
    stream = SlowStream()
    server = Http1Server(stream)
    running = Running(answer_all(server))
    server.drain()
    stream.arrivals += [GET + GET, GET]
    running.go_on()
    assert running.done
    first, second = stream.output.split(b"HTTP/1.1 200 OK")[1:]
    assert b"Connection: close" not in first
    assert b"Connection: close" in second
    assert server.end is not None
    assert server.end.reason is EndReason.ANNOUNCED
    Running(server.aclose())
    assert stream.sent_eof
    assert stream.arrivals == []  # read, but not as a request, so that no reset takes the response


def test_an_idle_connection_can_go_on() -> None:
    """What came while it was being ended for idleness is a request like any other."""
    stream = SlowStream(GET)
    server = Http1Server(stream)
    with pytest.raises(UsageError):
        server.resume(GET)
    running = Running(answer_all(server))
    assert overdue_at(server, 0.0, 100.0) == 15.0
    running.cancel()
    server.resume(GET + GET[:9])
    running = Running(answer_all(server))
    assert stream.output.count(b"HTTP/1.1 200 OK") == 2
    assert overdue_at(server, 100.0, 200.0) == 110.0  # and its limits begin anew
    running.cancel()
    with pytest.raises(UsageError):
        server.resume(GET)
    Running(server.aclose())
    assert stream.output.count(b"HTTP/1.1 408 ") == 1


def test_what_was_closed_does_not_go_on() -> None:
    """After `aclose` nothing can be resumed."""
    stream = SlowStream()
    server = Http1Server(stream)
    running = Running(answer_all(server))
    assert overdue_at(server, 0.0, 100.0) == 15.0
    running.cancel()
    step(server.aclose())
    with pytest.raises(UsageError):
        server.resume(GET)


def test_draining_does_not_cut_a_response() -> None:
    """A body that is being sent goes to its end; heads and bodies keep their own limits."""
    stream = SlowStream(GET)
    server = Http1Server(stream, limits=Limits(drain_seconds=0))

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        stream.takes = False
        yield b"two"

    async def handle() -> None:
        await server.next_request()
        await server.respond(200, [], pieces())

    running = Running(handle())
    server.drain()
    assert overdue_at(server, 0.0, 9.0) is None
    stream.takes = True
    running.go_on()
    assert running.done
    assert stream.output.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
