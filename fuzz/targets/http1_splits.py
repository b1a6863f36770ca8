"""What a connection comes to does not depend on how its bytes were split; nothing is raised."""

from fuzz.choices import Choices
from tests.proto.test_http1 import play
from uringio.proto.http1 import EndReason

ALL_CUTS_BYTES_MAX = 160


def run(data: bytes) -> None:
    # The last bytes choose the cuts, so that a corpus holds plain requests.
    wire, choices = data, Choices(data[::-1])
    whole = play(wire) if wire else play()
    events, output = whole
    reason, status = events[-1]
    assert isinstance(reason, EndReason)
    if reason is EndReason.REFUSED:
        assert isinstance(status, int)
        assert 400 <= status < 600
        assert b" %d " % status in output
    if len(wire) <= ALL_CUTS_BYTES_MAX:
        for cut in range(1, len(wire)):
            assert play(wire[:cut], wire[cut:]) == whole, f"cut at {cut}"
    assert play(*(wire[at : at + 1] for at in range(len(wire)))) == whole, "byte by byte"
    pieces: list[bytes] = []
    start = 0
    while start < len(wire):
        stop = start + 1 + choices.below(24)
        pieces.append(wire[start:stop])
        start = stop
    assert play(*pieces) == whole, f"in {pieces}"
