"""The writer of responses, held against h11's."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uringio.errors import UsageError
from uringio.proto import _replies
from uringio.proto._messages import Field, Request, RequestBody
from uringio.proto._octets import LengthDecoder

NAMES = st.sampled_from([b"ETag", b"x-a", b"X-A", b"Vary", b"!#$%&'*+-.^_`|~0Az"])
VALUES = st.one_of(
    st.sampled_from([b"", b"a", b"a  b\tc", b"\x80\xff", b"a, b"]),
    st.binary(max_size=5).filter(lambda raw: _replies._NO_VALUE.search(raw) is None),
)
FRAMING = st.sampled_from([
    (b"Content-Length", b"5"), (b"content-length", b"0"), (b"Transfer-Encoding", b"chunked"),
    (b"TRANSFER-ENCODING", b"Chunked"), (b"Connection", b"close"), (b"Connection", b"keep-alive"),
    (b"connection", b"x-a, Close"), (b"Connection", b"x-a"),
])  # fmt: skip


def request_of(method: str, version: str, headers: list[Field]) -> Request:
    async def nothing(_: object) -> bytes:
        return b""

    return Request(method, "/", version, headers, RequestBody(LengthDecoder(0), nothing))


def fields_of(head: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Take a head apart: the first line, and the sorted fields, those of the connection singly."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    fields = set()
    for line in lines:
        name, _, value = line.partition(b": ")
        name = name.lower()
        values = value.lower().split(b", ") if name == b"connection" else [value]
        fields |= {(name, one) for one in values}
    if (b"connection", b"close") in fields:  # which says it all
        fields.discard((b"connection", b"keep-alive"))
    return first, sorted(fields)


@given(
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    version=st.sampled_from(["1.0", "1.1"]),
    asks=st.sampled_from([[], [(b"connection", b"close")], [(b"connection", b"keep-alive")]]),
    status=st.sampled_from([200, 204, 206, 304, 404, 500, 599]),
    fields=st.lists(st.one_of(st.tuples(NAMES, VALUES), FRAMING), max_size=4),
    standing=st.lists(st.tuples(NAMES, VALUES), max_size=2),
    length=st.sampled_from([None, 0, 5]),
)
def test_heads_are_those_of_h11(
    method: str,
    version: str,
    asks: list[Field],
    status: int,
    fields: list[Field],
    standing: list[Field],
    length: int | None,
) -> None:
    """The same line, fields, framing and end of connection that h11 would send, or a refusal."""
    request = request_of(method, version, [(b"host", b"a"), *asks])
    try:
        ours = _replies.response(request, status, fields, length, False, standing)
    except UsageError:
        names = [name.lower() for name, _ in fields]
        assert names.count(b"content-length") > 1 or names.count(b"transfer-encoding") > 1
        return
    theirs = h11.Connection(h11.SERVER)
    theirs.receive_data(f"{method} / HTTP/{version}\r\nHost: a\r\n".encode())
    theirs.receive_data(b"".join(b"%s: %s\r\n" % field for field in asks) + b"\r\n")
    while type(theirs.next_event()) is not h11.EndOfMessage:
        pass
    given_fields = list(fields)
    names = {name.lower() for name, _ in fields}
    if (
        length is not None
        and status not in {204, 304}
        and names.isdisjoint({b"content-length", b"transfer-encoding"})
    ):
        given_fields.append((b"Content-Length", b"%d" % length))
    reason = _replies._REASONS.get(status, b"")
    event = h11.Response(status_code=status, headers=[*given_fields, *standing], reason=reason)
    head = theirs.send(event)
    assert head is not None
    line, expected = fields_of(head)
    if status in {204, 304}:  # h11 passes on what says nothing here; a coding there is forbidden
        expected = [field for field in expected if field[0] != b"transfer-encoding"]
        expected = [field for field in expected if field[0] != b"content-length"]
        found = [field for field in fields_of(ours.head)[1] if field[0] != b"content-length"]
    else:
        found = fields_of(ours.head)[1]
    assert fields_of(ours.head)[0] == line
    assert found == expected
    size = 0 if ours.is_bodiless else 5
    try:
        parts = theirs.send_with_data_passthrough(h11.Data(data=b"12345")) if size else []
        body = b"".join(parts or []) + (theirs.send(h11.EndOfMessage()) or b"")
    except h11.LocalProtocolError:
        with pytest.raises(_replies.LengthError):
            ours.framed(5)
            ours.ended()
        return
    before, behind = ours.framed(5) if size else (b"", b"")
    assert before + b"12345"[:size] + behind + ours.ended() == body
    assert ours.closes == (theirs.our_state is not h11.DONE)


@pytest.mark.parametrize(
    "field",
    [
        (b"a b", b""), (b"", b"a"), (b"a:", b"b"), (b"a\r\n", b"b"), (b"\xe4", b"b"),
        (b"a", b"b\r\nc: d"), (b"a", b"\n"), (b"a", b"\x00"), (b"a", b"\x7f"), (b"a", b" b"),
        (b"a", b"b\t"), (b"a", b"\x0b"), (b"a", b"b\n"),
        (b"Content-Length", b"-1"), (b"Content-Length", b"1_0"), (b"Content-Length", b""),
        (b"Transfer-Encoding", b"gzip"), (b"Transfer-Encoding", b"gzip, chunked"),
    ],
)  # fmt: skip
def test_what_is_no_field_is_not_written(field: Field) -> None:
    """Whatever would end a line early, hide in a name or contradict the framing is refused."""
    request = request_of("GET", "1.1", [])
    for fields, standing in (([field], []), ([], [field])):
        with pytest.raises(UsageError, match="invalid response"):
            _replies.response(request, 200, fields, 0, False, standing)
