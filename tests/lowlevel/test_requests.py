"""Every maker of requests writes what liburing's function of its name writes."""

import inspect
import re
import sys

import pytest

from tests.lowlevel.golden_requests import REQUESTS, A, B
from uringio import lowlevel
from uringio.lowlevel import Message, Request, SqeFlags, Vectors

# As many as liburing 2.15 has; and the one that it lacks.
COUNT_IN_LIBURING = 104
WITHOUT_TWIN = {"prep_recv_zc"}

MAKERS = sorted(name for name in lowlevel.__all__ if name.startswith("prep_"))


def filled(call: str) -> tuple[bytearray, Request]:
    """Carry out a golden call, and return what it wrote."""
    request = Request()
    names = {name: getattr(lowlevel, name) for name in (*MAKERS, "FILE_INDEX_ALLOC")}
    names |= {
        "A": A,
        "B": B,
        "V": Vectors([bytearray(1), bytearray(2)], writable=True),
        "M": Message(),
        "r": request,
    }
    exec(call, names)
    return request.raw, request


@pytest.mark.skipif(sys.byteorder == "big", reason="the golden bytes are little-endian")
@pytest.mark.parametrize("row", REQUESTS, ids=[one[0] for one in REQUESTS])
def test_request_is_liburings(row: tuple[str, int, str, str]) -> None:
    """All 64 bytes are the same, but for the addresses of structures that we make ourselves."""
    call, own, first, second = row
    golden = "".join("0" * 16 if one == "0" else one for one in f"{first} {second}".split())
    raw, _keep = filled(call)
    if own >= 0:
        assert raw[own : own + 8] != bytes(8)
        raw[own : own + 8] = bytes(8)
    assert raw.hex() == golden


def test_every_maker_has_a_golden_request() -> None:
    """All of liburing's are there, and each was compared."""
    compared = {name for call, *_ in REQUESTS for name in re.findall(r"prep_\w+", call)}
    assert set(MAKERS) == compared
    assert len(set(MAKERS) - WITHOUT_TWIN) == COUNT_IN_LIBURING


@pytest.mark.parametrize("name", MAKERS)
def test_maker_is_documented(name: str) -> None:
    """Fields, lifetime, kernel, fallback and source of each; user_data and flags are taken."""
    function = getattr(lowlevel, name)
    text = inspect.getdoc(function) or ""
    needed = ["Fields: ", "Lifetime: ", "Kernel: ", "Fallback: ", "ource: "]
    if name != "prep_send_set_addr":
        needed.append("Results: ")
        assert {"user_data", "flags"} <= set(inspect.signature(function).parameters)
    assert [one for one in needed if one not in text] == []


def test_user_data_and_flags_reach_the_request() -> None:
    """Both stand where the kernel looks for them, in a request of any kind."""
    request = Request()
    lowlevel.prep_nop(request, user_data=2**64 - 1, flags=SqeFlags.IO_LINK | SqeFlags.ASYNC)
    assert request.raw[1] == 0x14
    assert request.raw[32:40] == b"\xff" * 8
