"""The table of malformed and smuggling inputs: each refused, however it is cut."""

import http.client
import io

import h11
import pytest

from tests.proto.corpus import MALFORMED, SOUND
from tests.proto.memory import MemoryStream, step
from tests.proto.test_http1 import play, record, responses
from tests.proto.torture import TORTURE
from uringio.proto.http1 import EndReason, Http1Server


def test_the_table_is_large_and_has_no_input_twice() -> None:
    """At least 300 different malformed inputs, with those of the corpus."""
    wires = [wire for wire, _ in (*TORTURE.values(), *MALFORMED.values())]
    assert len(set(wires)) == len(wires)
    assert len(wires) >= 300


@pytest.mark.parametrize("name", TORTURE)
def test_inputs_are_refused_however_they_are_cut(name: str) -> None:
    """One fitting status, then the close; the request behind is never seen; no cut changes it."""
    wire, statuses = TORTURE[name]
    stream = MemoryStream([wire])
    server = Http1Server(stream)
    events = step(record(server))
    assert events[-1][0] is EndReason.REFUSED, events
    assert events[-1][1] in statuses
    assert all(event[0] == "aborted" for event in events[:-1]), "malformed bytes made a request"
    [(answered, _, fields)] = responses(stream.output, ["GET"])
    assert answered == events[-1][1]
    assert fields[b"connection"] == b"close"
    assert b"smuggled" not in stream.output
    assert stream.closed_count == 1
    whole = play(wire)
    for cut in range(1, len(wire)):
        assert play(wire[:cut], wire[cut:]) == whole, f"cut at {cut}"


def as_h11_reads(wire: bytes) -> list[tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]]:
    """Read requests by h11 alone: method, target, fields and body of each."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(wire)
    connection.receive_data(b"")
    found = []
    while type(request := connection.next_event()) is h11.Request:
        body = b""
        while type(event := connection.next_event()) is h11.Data:
            body += event.data
        assert type(event) is h11.EndOfMessage
        found.append((request.method, request.target, list(request.headers), body))
        connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        connection.send(h11.EndOfMessage())
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            break
        connection.start_next_cycle()
    return found


def as_the_standard_library_reads(wire: bytes) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    """Read the head of the first request by `http.client`: its first line, its fields."""
    stream = io.BytesIO(wire)
    line = stream.readline().split()
    fields = http.client.parse_headers(stream)
    return line, [(name.lower().encode(), value.strip().encode("latin-1"))
                  for name, value in fields.items()]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in SOUND if not name.startswith("empty")])
def test_what_is_accepted_means_the_same_to_others(name: str) -> None:
    """
    Two other parsers find the same requests in a stream: neither more, nor other bodies.

    Left out are the empty lines before a request, which RFC 9112 section 2.2 allows and h11 not.
    """
    wire = SOUND[name][0]
    ours = [
        (event[0].encode(), event[1].encode(), list(event[2]), event[3])
        for event in step(record(Http1Server(MemoryStream([wire]))))[:-1]
    ]
    assert ours == as_h11_reads(wire)
    line, fields = as_the_standard_library_reads(wire)
    assert line[:2] == list(ours[0][:2])
    # h11 makes the one name of a coding lower case, as `uringio` therefore does.
    assert [(name, value.replace(b"Chunked", b"chunked")) for name, value in fields] == ours[0][2]
