"""The HTTP/1.1 server adapter against recorded byte streams; no kernel, no scheduler."""

from collections.abc import AsyncIterator, Callable, Iterable

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.proto.corpus import AFTER, CHUNKED, MALFORMED, POST, SOUND
from tests.proto.memory import MemoryStream, step
from uringio.errors import ClosedError, RingError, UsageError
from uringio.proto._octets import ChunkedDecoder, ViolationError
from uringio.proto.http1 import BodyAbortedError, Chunk, EndReason, Http1Server, Limits
from uringio.streams import Stream

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

Event = tuple[object, ...]


async def record(server: Http1Server) -> list[Event]:
    """Serve a connection to its end as an echo; tell what happened, pieces of a body joined."""
    events: list[Event] = []
    async with server:
        while (request := await server.next_request()) is not None:
            body = bytearray()
            try:
                async for piece in request.body:
                    assert type(piece) is bytes
                    body += piece
            except BodyAbortedError:
                events.append(("aborted", request.method, request.target, bytes(body)))
                continue
            events.append(
                (
                    request.method,
                    request.target,
                    tuple(request.headers),
                    bytes(body),
                    tuple(server.trailers),
                )
            )
            await server.respond(200, [], bytes(body))
    assert server.end is not None
    events.append((server.end.reason, server.end.status))
    return events


def play(*arrivals: bytes | Exception, limits: Limits | None = None) -> tuple[list[Event], bytes]:
    stream = MemoryStream(arrivals)
    events = step(record(Http1Server(stream, limits=limits)))
    assert stream.closed_count == 1
    return events, stream.output


def responses(data: bytes, methods: Iterable[str]) -> list[tuple[int, bytes, dict[bytes, bytes]]]:
    """Parse what a server sent with h11's client: (status, body, headers) of each response."""
    client = h11.Connection(h11.CLIENT)
    client.receive_data(data)
    client.receive_data(b"")
    out = []
    for method in methods:
        client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        while type(event := client.next_event()) is h11.InformationalResponse:
            pass
        assert type(event) is h11.Response, event
        body = b""
        while type(part := client.next_event()) is h11.Data:
            body += part.data
        assert type(part) is h11.EndOfMessage
        out.append((event.status_code, body, dict(event.headers)))
        if client.our_state is not h11.DONE or client.their_state is not h11.DONE:
            break
        client.start_next_cycle()
    return out


@pytest.mark.parametrize("name", SOUND)
def test_sound_streams_give_their_requests(name: str) -> None:
    """Every request of a sound stream is delivered, answered in order, and nothing else is."""
    data, expected = SOUND[name]
    events, output = play(data)
    assert [(method, target, body) for method, target, _, body, _ in events[:-1]] == expected
    answers = responses(output, [method for method, _, _ in expected])
    assert [(status, body) for status, body, _ in answers] == [
        (200, b"" if method == "HEAD" else body) for method, _, body in expected
    ]
    assert events[-1][0] in {EndReason.FINISHED, EndReason.ANNOUNCED}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_streams_are_refused(name: str) -> None:
    """A malformed stream gets one fitting status and a close; nothing behind it is served."""
    data, statuses = MALFORMED[name]
    stream = MemoryStream([data])
    server = Http1Server(stream)
    events = step(record(server))
    reason, status = events.pop()
    assert reason is EndReason.REFUSED
    assert status in statuses
    assert all(event[0] == "aborted" for event in events), "a request was made of malformed bytes"
    [(answered, _, fields)] = responses(stream.output, ["GET"])
    assert answered == status
    assert fields[b"connection"] == b"close"
    assert stream.sent_eof
    assert stream.closed_count == 1


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests_behind_sound_ones_are_refused(name: str) -> None:
    """A request before the malformed one is served, then the refusal follows, then the close."""
    data, statuses = MALFORMED[name]
    stream = MemoryStream([GET + data])
    events = step(record(Http1Server(stream)))
    assert events[0][:2] == ("GET", "/")
    assert events[-1][0] is EndReason.REFUSED
    first, second = responses(stream.output, ["GET", "GET"])
    assert first[0] == 200
    assert second[0] in statuses | {400}
    assert stream.closed_count == 1


def test_malformed_unread_bodies_end_the_connection() -> None:
    """A body that turns out malformed while it is discarded gets no second response."""
    stream, server, results = answer(CHUNKED + b"zz\r\n" + GET, 200, [], b"ok", count=2)
    assert results == [2]
    assert stream.output.count(b"HTTP/1.1") == 1
    assert server.end is not None
    assert server.end.reason is EndReason.REFUSED


@pytest.mark.parametrize("name", [*SOUND, *MALFORMED])
def test_two_way_splits_change_nothing(name: str) -> None:
    """However a stream is cut into two reads, the events and the bytes of the answers agree."""
    data = SOUND[name][0] if name in SOUND else MALFORMED[name][0]
    whole = play(data)
    # Long streams repeat one byte for kilobytes; their edges and a stride through them suffice.
    step_size = 1 if len(data) < 2000 else len(data) // 50
    cuts = {
        *range(0, len(data), step_size),
        *range(min(len(data), 60)),
        *range(max(0, len(data) - 60), len(data)),
        *(at for limit in (8192, 65536) for at in range(limit - 3, limit + 4) if at < len(data)),
    }
    for cut in sorted(cuts):
        assert play(data[:cut], data[cut:]) == whole, f"cut at {cut}"


@pytest.mark.parametrize("name", [*SOUND, *MALFORMED])
def test_single_bytes_change_nothing(name: str) -> None:
    """A stream that arrives byte by byte gives the same events and answers as in one piece."""
    data = SOUND[name][0] if name in SOUND else MALFORMED[name][0]
    assert play(*(data[at : at + 1] for at in range(len(data)))) == play(data)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_splits_of_any_mixture_change_nothing(data: st.DataObject) -> None:
    """Streams glued together and mutated, cut anywhere, give the events of the uncut stream."""
    corpus = [entry[0] for entry in SOUND.values()] + [
        entry[0] for entry in MALFORMED.values() if len(entry[0]) < 500
    ]
    stream = b"".join(data.draw(st.lists(st.sampled_from(corpus), min_size=1, max_size=3)))
    if stream and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(stream) - 1))
        stream = stream[:at] + data.draw(st.binary(max_size=3)) + stream[at + 1 :]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert play(*pieces) == play(stream)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_noise_never_raises(noise: bytes) -> None:
    """Bytes without meaning end the connection and raise nothing, before and inside a body."""
    play(noise)
    play(b"GET /" + noise + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    play(b"GET / HTTP/1.1\r\nHost: a\r\n" + noise)
    play(CHUNKED + noise)


@given(
    st.lists(
        st.sampled_from(
            [
                b"0",
                b"1",
                b"5",
                b"a",
                b"F",
                b"\r",
                b"\n",
                b"\r\n",
                b";",
                b" ",
                b"\t",
                b"x=y",
                b"X: y",
                b"+",
            ]
        ),
        max_size=12,
    ),
)
@settings(max_examples=500, deadline=None)
def test_chunked_bodies_are_never_read_otherwise_than_by_h11(pieces: list[bytes]) -> None:
    """What our chunk decoder accepts, h11 accepts too, with the same bytes and the same end."""
    wire = b"".join(pieces)
    ours = ChunkedDecoder(8192, 100)
    buffer = bytearray(wire)
    body = bytearray()
    try:
        while piece := ours.take(buffer):
            body += piece
    except ViolationError:
        return  # we may be stricter
    theirs = h11.Connection(h11.SERVER)
    theirs.receive_data(CHUNKED + wire)
    assert type(theirs.next_event()) is h11.Request
    found = bytearray()
    while type(event := theirs.next_event()) is h11.Data:
        found += event.data
    assert found == body
    assert (type(event) is h11.EndOfMessage) == ours.done
    if ours.done:
        assert theirs.trailing_data[0] == buffer
        assert list(event.headers) == ours.trailers


def test_long_runs_of_blanks_cost_no_more_than_other_bytes() -> None:
    """Patterns that try every way to share out blanks would take minutes for 8 KiB of them."""
    blanks = b" \t" * 3900
    for value in (blanks + b"\x01", blanks + b"a" + blanks[:200] + b"\x01"):
        events, _ = play(CHUNKED + b"0\r\nX:" + value + b"\r\n\r\n")
        assert events[-1] == (EndReason.REFUSED, 400)
    decoder = ChunkedDecoder(8192, 100)
    decoder.take(bytearray(b"0\r\nX:" + blanks + b"a b \t\r\n\r\n"))
    assert decoder.trailers == [(b"x", b"a b")]
    for name in (b"X", b"Content-Length", b"Transfer-Encoding", b"Host", b"Expect"):
        for value in (blanks * 3, blanks * 3 + b"\x01", b"a" + blanks * 3 + b"a"):
            play(b"GET / HTTP/1.1\r\nHost: a\r\n" + name + b":" + value + b"\r\n\r\n")
    (sound, *_), _ = play(POST + b"Content-Length:" + blanks + b"2" + blanks + b"\r\n\r\nhi")
    assert sound[3] == b"hi"


def test_small_chunks_cannot_be_wrapped_in_much() -> None:
    """What surrounds chunks is bounded by what they hold, however the bytes are cut."""
    wrapped = b"1;" + b"x" * 200 + b"\r\na\r\n"
    for count, is_fine in ((70, True), (100, False)):
        wire = CHUNKED + wrapped * count + b"0\r\n\r\n"
        events, output = play(wire)
        assert (events[0][0] == "POST") == is_fine
        assert (events[-1] == (EndReason.REFUSED, 400)) != is_fine
        for cut in range(len(CHUNKED), len(wire), 997):
            assert play(wire[:cut], wire[cut:]) == (events, output)
    # Signed chunks of a useful size, as some clients send them, and many tiny ones are fine.
    signed = b"400;chunk-signature=" + b"0" * 64 + b"\r\n" + bytes(1024) + b"\r\n"
    for chunk in (signed, b"1\r\na\r\n"):
        assert play(CHUNKED + chunk * 1000 + b"0\r\n\r\n")[0][0][0] == "POST"


def test_requests_show_what_was_sent() -> None:
    """Method, target, version, fields and trailers reach the handler as sent, names lowered."""
    seen = []

    async def handle(server: Http1Server) -> None:
        request = await server.next_request()
        assert request is not None
        body = [piece async for piece in request.body]
        seen.append(
            (
                request.method,
                request.target,
                request.http_version,
                request.field(b"x"),
                request.field(b"missing"),
                body,
                server.trailers,
            )
        )
        await server.respond(204)

    head = b"PUT /a?b=c HTTP/1.1\r\nHost: h\r\nX: 1\r\nx: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
    stream = MemoryStream([head + b"2\r\nhi\r\n0\r\nT: v\r\n\r\n"])
    step(handle(Http1Server(stream)))
    assert seen == [("PUT", "/a?b=c", "1.1", b"1, 2", None, [b"hi"], ((b"t", b"v"),))]
    assert stream.output == b"HTTP/1.1 204 No Content\r\n\r\n"


async def pieces_of(*pieces: bytes, log: list[str] | None = None) -> AsyncIterator[bytes]:
    try:
        for piece in pieces:
            yield piece
    finally:
        if log is not None:
            log.append("closed")


# The collector closes a generator too; what `respond` closes must be closed while others hold it.
KEPT: list[object] = []


def answer(
    wire: bytes,
    status: int,
    headers: list[tuple[bytes, bytes]],
    body: Chunk | AsyncIterator[bytes] | Callable[[], AsyncIterator[object]] | None,
    count: int = 1,
    **stream_options: int,
) -> tuple[MemoryStream, Http1Server, list[object]]:
    """Answer up to *count* requests alike; return the stream, the server and what it returned."""
    KEPT.clear()
    stream = MemoryStream([wire], **stream_options)
    server = Http1Server(stream)
    results: list[object] = []

    async def handle() -> None:
        async with server:
            for _ in range(count):
                if await server.next_request() is None:
                    break
                made = body() if callable(body) else body
                KEPT.append(made)
                results.append(await server.respond(status, headers, made))
            await server.next_request()

    step(handle())
    return stream, server, results


def test_whole_bodies_get_their_length() -> None:
    """A body given as bytes is sent with its length, in one send while it is small."""
    stream, server, results = answer(GET, 200, [], b"hello")
    assert stream.sent == [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"]
    assert results == [5]
    assert server.end is not None
    assert server.end.reason is EndReason.FINISHED


def test_large_bodies_are_not_copied() -> None:
    """A large body goes out as the object that was given, after its head."""
    body = b"x" * 100_000
    stream, _, results = answer(GET, 200, [], body)
    assert [len(part) for part in stream.sent[1:]] == [len(body)]
    assert results == [len(body)]


def test_bytearrays_and_views_are_bodies_too() -> None:
    """Every kind of bytes can be a body or a piece of one."""
    stream, _, _ = answer(GET, 200, [], memoryview(b"abc"))
    assert stream.output.endswith(b"\r\n\r\nabc")
    stream, _, _ = answer(
        GET, 200, [(b"Content-Length", b"3")], lambda: pieces_of(bytearray(b"abc"))
    )
    assert stream.output.endswith(b"\r\n\r\nabc")


def test_views_are_measured_in_bytes() -> None:
    """A view of larger items, of rows or of every other byte is sent and framed as its bytes."""
    numbers = memoryview(bytes(range(24))).cast("I")
    rows = memoryview(bytes(range(24))).cast("B", (4, 6))
    gaps = memoryview(bytes(range(24)))[::2]
    for view in (numbers, rows, gaps):
        expected = view.tobytes()
        stream, _, results = answer(GET, 200, [], view)
        assert responses(stream.output, ["GET"])[0][1] == expected
        assert results == [len(expected)]

        async def pieces(view: memoryview = view) -> AsyncIterator[memoryview]:
            yield view
            yield view

        for fields in ([], [(b"Content-Length", b"%d" % (2 * len(expected)))]):
            stream, _, _ = answer(GET, 200, fields, pieces)
            assert responses(stream.output, ["GET"])[0][1] == expected * 2


def test_no_body_is_length_zero_or_none() -> None:
    """No body means length 0, and no length at all where a status has no content."""
    assert answer(GET, 404, [], None)[0].output == (
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    )
    assert answer(GET, 204, [(b"Content-Length", b"0")], None)[0].output == (
        b"HTTP/1.1 204 No Content\r\n\r\n"
    )
    assert answer(GET, 304, [], None)[0].output == b"HTTP/1.1 304 Not Modified\r\n\r\n"


def test_iterators_of_known_length() -> None:
    """Pieces of a body with Content-Length leave as they are, and empty ones do not matter."""
    stream, server, results = answer(
        GET + GET, 200, [(b"Content-Length", b"4")], lambda: pieces_of(b"ab", b"", b"cd"), count=2
    )
    assert stream.sent[1:3] == [b"ab", b"cd"]
    assert results == [4, 4]
    assert server.end is not None
    assert server.end.reason is EndReason.FINISHED


def test_iterators_of_unknown_length() -> None:
    """Without a length a body is chunked, for HTTP/1.0 ended by close."""
    stream, _, _ = answer(GET, 200, [], lambda: pieces_of(b"ab", b"cde"))
    assert stream.output.endswith(b"\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in stream.output
    stream, server, _ = answer(b"GET / HTTP/1.0\r\n\r\n", 200, [], lambda: pieces_of(b"ab", b"cde"))
    assert stream.output.endswith(b"Connection: close\r\n\r\nabcde")
    assert server.end is not None
    assert server.end.reason is EndReason.ANNOUNCED


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_head_has_the_head_of_get(method: bytes) -> None:
    """HEAD answers with the fields of GET and no byte more; the iterator is closed unread."""
    wire = method + GET[3:] + GET
    log: list[str] = []
    stream, _, results = answer(
        wire, 200, [(b"Content-Length", b"3")], lambda: pieces_of(b"abc", log=log), count=2
    )
    sent = [200, 200]
    assert [status for status, _, _ in responses(stream.output, [method.decode(), "GET"])] == sent
    assert results == [0 if method == b"HEAD" else 3, 3]
    assert stream.output.count(b"Content-Length: 3") == 2
    # A generator that was never started has nothing to clean up.
    assert log == (["closed"] if method == b"HEAD" else ["closed", "closed"])


def test_short_bodies_end_the_connection() -> None:
    """Fewer bytes than declared: the peer learns by the close, and gets no further response."""
    stream, server, results = answer(
        GET + GET, 200, [(b"Content-Length", b"9")], lambda: pieces_of(b"ab"), count=2
    )
    assert results == [2]
    assert stream.output.endswith(b"\r\n\r\nab")
    assert stream.closed_count == 1
    assert server.end is not None
    assert server.end.reason is EndReason.CUT


class Piecewise:
    """A part of a body that sends itself, all of it or less."""

    def __init__(self, content: bytes, announced: int) -> None:
        self.content = content
        self.announced = announced

    def __len__(self) -> int:
        return self.announced

    async def send_to(self, stream: Stream) -> int:
        await stream.send_all(self.content)
        return len(self.content)


async def parts_of(*parts: bytes | Piecewise) -> AsyncIterator[bytes | Piecewise]:
    for part in parts:
        yield part


@pytest.mark.parametrize("headers", [[(b"Content-Length", b"7")], []])
def test_parts_send_themselves(headers: list[tuple[bytes, bytes]]) -> None:
    """Parts and bytes take turns, with a declared length and chunked alike."""
    stream, server, results = answer(
        GET + GET, 200, headers, lambda: parts_of(b"ab", Piecewise(b"cde", 3), b"fg"), count=2
    )
    assert results == [7, 7]
    assert [body for _, body, _ in responses(stream.output, ["GET"] * 2)] == [b"abcdefg"] * 2
    assert server.end is not None
    assert server.end.reason is EndReason.FINISHED


@pytest.mark.parametrize("headers", [[(b"Content-Length", b"5")], []])
def test_parts_that_fall_short_cut_the_response(headers: list[tuple[bytes, bytes]]) -> None:
    """A part that is shorter than it said ends the connection: the peer can tell."""
    stream, server, _ = answer(
        GET + GET, 200, headers, lambda: parts_of(b"ab", Piecewise(b"c", 3)), count=2
    )
    assert stream.output.endswith(b"c")
    assert server.end is not None
    assert server.end.reason is EndReason.CUT


def test_long_bodies_are_misuse() -> None:
    """More bytes than declared never reach the peer; the handler is told."""
    with pytest.raises(UsageError):
        answer(GET, 200, [(b"Content-Length", b"1")], lambda: pieces_of(b"ab"))
    with pytest.raises(UsageError):
        answer(GET, 200, [(b"Content-Length", b"1")], b"ab")


def test_failing_iterators_cut_the_response() -> None:
    """An error of the body's maker passes through, the iterator is closed, the connection ends."""
    log: list[str] = []

    async def broken() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            raise LookupError
        finally:
            log.append("closed")

    stream = MemoryStream([GET + GET])
    server = Http1Server(stream)

    async def handle() -> None:
        async with server:
            await server.next_request()
            with pytest.raises(LookupError):
                await server.respond(200, [], broken())
            assert server.response_started
            assert await server.next_request() is None

    step(handle())
    assert log == ["closed"]
    assert not stream.output.endswith(b"0\r\n\r\n")
    assert server.end is not None
    assert server.end.reason is EndReason.CUT


@pytest.mark.parametrize(
    "headers",
    [
        [(b"X", b"a\r\nSet-Cookie: b")],
        [(b"X\r\nY", b"a")],
        [(b"X", b"a\x00")],
        [(b"", b"a")],
    ],
)
def test_invalid_fields_are_refused_before_a_byte_is_sent(
    headers: list[tuple[bytes, bytes]],
) -> None:
    """A response cannot be split by a field; the handler may still send another response."""
    stream = MemoryStream([GET])
    server = Http1Server(stream)

    async def handle() -> None:
        async with server:
            await server.next_request()
            with pytest.raises(UsageError):
                await server.respond(200, headers)
            assert stream.sent == []
            await server.respond(500)

    step(handle())
    assert stream.output.startswith(b"HTTP/1.1 500 ")


def test_responses_out_of_turn_are_misuse() -> None:
    """One response per request: none before, none twice, none skipped."""
    stream = MemoryStream([GET])
    server = Http1Server(stream)

    async def handle() -> None:
        with pytest.raises(UsageError):
            await server.respond(200)
        request = await server.next_request()
        assert request is not None
        with pytest.raises(UsageError):
            await server.next_request()
        with pytest.raises(UsageError):
            await server.respond(101)
        await server.respond(200)
        with pytest.raises(UsageError):
            await server.respond(200)
        assert await server.next_request() is None
        assert [piece async for piece in request.body] == []
        await server.aclose()

    step(handle())
    assert stream.output.count(b"HTTP/1.1") == 1


def test_bodies_of_earlier_requests_cannot_be_read() -> None:
    """Reading on in a body that was left behind is misuse, not the next request's bytes."""
    stream = MemoryStream([POST + b"Content-Length: 3\r\n\r\nabc" + GET])
    server = Http1Server(stream)

    async def handle() -> None:
        first = await server.next_request()
        assert first is not None
        await server.respond(200)
        assert await server.next_request() is not None
        assert [piece async for piece in first.body] == []  # discarded to its end
        await server.respond(200)

    step(handle())

    async def hoard() -> None:
        other = Http1Server(MemoryStream([POST + b"Content-Length: 999999\r\n\r\n"]))
        request = await other.next_request()
        assert request is not None
        await other.respond(200)
        assert await other.next_request() is None
        with pytest.raises(UsageError):
            await anext(request.body)

    step(hoard())


def test_continue_is_sent_when_the_body_is_wanted() -> None:
    """100 goes out with the first read of the body and not before; no body read, no 100."""
    head = POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    stream = MemoryStream([head, b"hi", GET])
    server = Http1Server(stream)

    async def handle() -> None:
        request = await server.next_request()
        assert request is not None
        assert stream.sent == []
        assert [piece async for piece in request.body] == [b"hi"]
        assert stream.sent == [b"HTTP/1.1 100 Continue\r\n\r\n"]
        await server.respond(200)
        assert await server.next_request() is not None

    step(handle())


def test_declined_continue_closes() -> None:
    """A final status without 100: nobody knows if the body comes, so the connection is closed."""
    head = POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    stream, server, _ = answer(head + b"hi" + AFTER, 401, [], None, count=2)
    [(status, _, fields)] = responses(stream.output, ["POST"])
    assert (status, fields[b"connection"]) == (401, b"close")
    assert server.end is not None
    assert server.end.reason is EndReason.ANNOUNCED


@pytest.mark.parametrize("length", [b"", b"Content-Length: 0\r\n"])
def test_expecting_nothing_changes_nothing(length: bytes) -> None:
    """Where there is no body to wait for there is no 100, and the connection goes on."""
    head = POST + b"Expect: 100-continue\r\n" + length + b"\r\n"
    events, output = play(head + GET)
    assert [event[:2] for event in events[:-1]] == [("POST", "/p"), ("GET", "/")]
    assert b"100 Continue" not in output
    assert b"close" not in output
    stream, _, results = answer(head + GET, 200, [], b"ok", count=2)
    assert results == [2, 2]
    assert b"close" not in stream.output


def test_expect_is_ignored_in_http_1_0() -> None:
    """HTTP/1.0 knows no 100."""
    wire = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
    assert b"100 Continue" not in play(wire)[1]


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 3\r\n\r\nabc",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ],
)
def test_unread_bodies_are_discarded(body: bytes) -> None:
    """A handler need not read a body: what is left of a small one does not disturb the next."""
    stream, _, results = answer(POST + body + GET, 200, [], b"ok", count=3)
    assert results == [2, 2]
    assert len(responses(stream.output, ["POST", "GET"])) == 2


def test_large_unread_bodies_close() -> None:
    """Too much left unread: with a known length the close is announced, else it just comes."""
    limit = Limits().discard_bytes_max
    stream, server, _ = answer(
        POST + b"Content-Length: %d\r\n\r\n" % (limit * 3) + bytes(limit * 3) + GET,
        200,
        [],
        b"ok",
        count=2,
    )
    [(_, _, fields)] = responses(stream.output, ["POST", "GET"])
    assert fields[b"connection"] == b"close"
    assert stream.sent_eof
    assert stream.arrivals == []  # read while lingering, so that no reset overtakes the response
    assert server.end is not None
    assert server.end.reason is EndReason.ANNOUNCED

    chunk = b"%x\r\n" % limit + bytes(limit) + b"\r\n"
    stream, server, results = answer(
        CHUNKED + chunk * 3 + b"0\r\n\r\n" + GET, 200, [], b"ok", count=2
    )
    assert results == [2]
    assert server.end is not None
    assert server.end.reason is EndReason.UNREAD


def test_lingering_is_bounded() -> None:
    """A refused peer that goes on sending is listened to for so many bytes, and no longer."""
    limits = Limits(linger_bytes_max=100_000)
    stream = MemoryStream([b"\x00", *[bytes(60_000)] * 5])
    step(record(Http1Server(stream, limits=limits)))
    assert len(stream.arrivals) == 3
    assert stream.closed_count == 1


@pytest.mark.parametrize(
    ("wire", "headers", "lingers"),
    [
        (GET, [(b"Connection", b"close")], True),
        (GET[:-2] + b"Connection: close\r\n\r\n", [], False),
        (GET[:-2] + b"Connection: close\r\n\r\n" + GET, [], True),
        (b"GET / HTTP/1.0\r\n\r\n", [], False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [], False),
    ],
    ids=["ours", "theirs", "theirs, but more came", "1.0", "1.0 keep-alive"],
)
def test_whoever_may_be_sending_gets_no_reset(
    wire: bytes, headers: list[tuple[bytes, bytes]], lingers: bool
) -> None:
    """Unless the peer asked for the close, what it sends is read until it has seen our end."""
    stream = MemoryStream([wire, GET * 3])
    server = Http1Server(stream)

    async def handle() -> None:
        async with server:
            while await server.next_request() is not None:
                await server.respond(200, headers, b"x")

    step(handle())
    [(status, body, fields)] = responses(stream.output, ["GET"])
    assert (status, body, fields[b"connection"]) == (200, b"x", b"close")
    assert stream.sent_eof == lingers
    assert (stream.arrivals == []) == lingers


def test_requests_per_connection_are_limited() -> None:
    """The last permitted response says close, and what was pipelined behind it is not served."""
    events, output = play(GET * 5, limits=Limits(requests_count_max=3))
    assert len(events) == 4
    answers = responses(output, ["GET"] * 5)
    assert [fields.get(b"connection") for _, _, fields in answers] == [None, None, b"close"]
    assert events[-1][0] is EndReason.ANNOUNCED


def test_handlers_may_close() -> None:
    """A handler's own Connection: close is obeyed."""
    stream, server, results = answer(GET * 2, 200, [(b"Connection", b"close")], b"x", count=2)
    assert results == [1]
    assert stream.closed_count == 1
    assert server.end is not None
    assert server.end.reason is EndReason.ANNOUNCED


def test_standing_fields_are_on_every_response() -> None:
    """Fields that each response gets are on refusals too, made anew each time."""
    count = 0

    def fields() -> list[tuple[bytes, bytes]]:
        nonlocal count
        count += 1
        return [(b"Date", b"%d" % count)]

    stream = MemoryStream([GET + b"\x00"])
    step(record(Http1Server(stream, standing_fields=fields)))
    answers = responses(stream.output, ["GET", "GET"])
    assert [(status, headers[b"date"]) for status, _, headers in answers] == [
        (200, b"1"),
        (400, b"2"),
    ]


def test_tunnels_are_not_opened() -> None:
    """CONNECT may be refused like any method, but not accepted by an ordinary response."""
    wire = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n" + GET
    _, _, results = answer(wire, 405, [], b"no", count=2)
    assert results == [2, 2]
    with pytest.raises(UsageError):
        answer(wire, 200, [], b"")


def test_limits_are_the_callers() -> None:
    """Each limit of the head can be set, and is exact."""
    line = b"GET /%s HTTP/1.1\r\n"
    rest = b"Host: a\r\n\r\n"
    fixed = len(line % b"")
    exact = Limits(request_line_bytes_max=fixed + 10)
    assert play(line % (b"a" * 10) + rest, limits=exact)[0][0][0] == "GET"
    assert play(line % (b"a" * 11) + rest, limits=exact)[0] == [(EndReason.REFUSED, 414)]
    exact = Limits(head_bytes_max=fixed + len(rest))
    assert play(line % b"" + rest, limits=exact)[0][0][0] == "GET"
    assert play(line % b"a" + rest, limits=exact)[0] == [(EndReason.REFUSED, 431)]
    exact = Limits(fields_count_max=1)
    assert play(line % b"" + rest, limits=exact)[0][0][0] == "GET"
    assert play(line % b"" + b"X: y\r\n" + rest, limits=exact)[0] == [(EndReason.REFUSED, 431)]


ERRORS = [
    ConnectionResetError(104, "reset"),
    BrokenPipeError(32, "pipe"),
    TimeoutError(110, "late"),
    ClosedError("closed by a colleague"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "before",
    [b"", b"GET", GET, GET[:-2], POST + b"Content-Length: 9\r\n\r\nabc", CHUNKED + b"5\r\nab"],
)
def test_broken_connections_end_quietly(before: bytes, error: Exception) -> None:
    """A connection that breaks while we receive ends, raises nothing, and is closed."""
    stream = MemoryStream([before, error])
    events = step(record(Http1Server(stream)))
    assert events[-1] == (EndReason.LOST, 0)
    assert stream.closed_count == 1


@pytest.mark.parametrize("limit", range(4))
def test_peers_that_stop_reading_end_quietly(limit: int) -> None:
    """A connection that breaks at any of our sends ends without an error; bodies are closed."""
    log: list[str] = []
    _, server, results = answer(
        GET * 3, 200, [], lambda: pieces_of(b"ab", b"cd", log=log), count=3, send_limit=limit
    )
    assert results == [min(2 * max(limit - 1, 0), 4)]
    assert server.end is not None
    assert server.end.reason is EndReason.LOST
    assert log == (["closed"] if limit else [])


def test_responding_to_a_peer_that_left_is_no_error() -> None:
    """Once the connection ended, a handler that still responds is not blamed for it."""
    stream = MemoryStream([CHUNKED + b"zz\r\n"])
    server = Http1Server(stream)

    async def handle() -> None:
        async with server:
            request = await server.next_request()
            assert request is not None
            with pytest.raises(BodyAbortedError):
                await anext(request.body)
            assert await server.respond(400, [], b"bad") == 0
            assert await server.next_request() is None

    step(handle())
    assert stream.output.count(b"HTTP/1.1") == 1


def test_responses_may_stream_the_request() -> None:
    """A body can be echoed while it arrives, without keeping it, and the connection goes on."""
    size = Limits().discard_bytes_max * 4
    wire = POST + b"Content-Length: %d\r\n\r\n" % size
    stream = MemoryStream([wire, *[bytes(size // 8)] * 8, GET])
    server = Http1Server(stream)

    async def handle() -> None:
        async with server:
            while (request := await server.next_request()) is not None:
                await server.respond(200, [], request.body)

    step(handle())
    first, second = responses(stream.output, ["POST", "GET"])
    assert len(first[1]) == size
    assert second[0] == 200


def test_a_broken_ring_is_not_a_broken_peer() -> None:
    """An error of the whole runtime is not swallowed with the errors of one connection."""
    stream = MemoryStream([RingError(5, "the ring", "restart")])
    with pytest.raises(RingError):
        step(record(Http1Server(stream)))


def test_closing_twice_is_harmless() -> None:
    """`aclose` may be repeated; a closed connection has no requests."""
    stream = MemoryStream([GET])
    server = Http1Server(stream)

    async def handle() -> None:
        await server.aclose()
        await server.aclose()
        assert await server.next_request() is None

    step(handle())
    assert server.end is not None
    assert server.end.reason is EndReason.CLOSED
    assert stream.sent == []
