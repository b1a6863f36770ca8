"""The table of malformed and smuggling inputs: each refused, however it is cut."""

import pytest

from tests.proto.corpus import MALFORMED
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
