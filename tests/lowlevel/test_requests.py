"""Every maker of requests writes what liburing's function of its name writes."""

import inspect
import re
import struct
import sys
from pathlib import Path

import pytest

from tests.fresh import FreshPython
from tests.lowlevel.golden_requests import REQUESTS, A, B
from uringio import lowlevel
from uringio.lowlevel import Message, Request, SqeFlags, Vectors, _slots

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


# --- the other byte order ------------------------------------------------------------------------

# What stands where in a request: of most, and of those with other members at the same place.
PLAIN = "BBHiQQIIQHHIQQ"
MEMBERS = {
    "prep_uring_cmd": "BBHi II Q I I Q H H I 16s",
    "prep_cmd_sock": "BBHi II II I I Q H H I Q Q",
    "prep_cmd_": "BBHi II Q I I Q H H I Q Q",
    "prep_sendto": "BBHi Q Q I I Q H H HH Q Q",
    "prep_send_set_addr": "BBHi Q Q I I Q H H HH Q Q",
}
# The kernel swaps the halves of a poll's events on big-endian machines.
SWAPPED = {"prep_poll_add", "prep_poll_multishot", "prep_poll_update"}

# Makes the interpreter of a big-endian machine out of this one, as far as requests are concerned,
# and carries out the golden calls.
BIG_ENDIAN = """
import struct, sys
plain = {name: getattr(struct, name) for name in ("pack", "unpack", "pack_into", "unpack_from")}
for name, function in plain.items():
    setattr(struct, name, lambda form, *rest, function=function:
            function(form.replace("=", ">"), *rest))
kind = struct.Struct
struct.Struct = lambda form: kind(form.replace("=", ">"))
sys.byteorder = "big"
sys.path.insert(0, sys.argv[1])
from tests.lowlevel.test_requests import REQUESTS, filled
for call, own, *_ in REQUESTS:
    raw, keep = filled(call)
    if own >= 0:
        raw[own : own + 8] = bytes(8)
    print(raw.hex())
"""


def members_of(call: str) -> str:
    """Tell which members of the request a golden call writes."""
    name = re.findall(r"prep_\w+", call)[-1]
    return next((form for start, form in MEMBERS.items() if name.startswith(start)), PLAIN)


@pytest.mark.skipif(sys.byteorder == "big", reason="the golden bytes are little-endian")
def test_requests_of_a_big_endian_machine(fresh_python: FreshPython) -> None:
    """Each member has the golden value where a C compiler there would put it."""
    root = str(Path(__file__).resolve().parents[2])
    run = fresh_python(BIG_ENDIAN, root, options=("-X", "faulthandler")).check()
    lines = run.stdout.splitlines()
    assert len(lines) == len(REQUESTS)
    for (call, _, first, second), line in zip(REQUESTS, lines, strict=True):
        golden = "".join("0" * 16 if one == "0" else one for one in f"{first} {second}".split())
        form = members_of(call)
        expected = list(struct.unpack(f"<{form}", bytes.fromhex(golden)))
        if SWAPPED & set(re.findall(r"prep_\w+", call)):
            expected[7] = (expected[7] & 0xFFFF) << 16 | expected[7] >> 16
        assert list(struct.unpack(f">{form}", bytes.fromhex(line))) == expected, call


@pytest.mark.parametrize("order", ["little", "big"])
def test_processors_are_an_array_of_longs(monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    """The lowest long first in either byte order, each in its machine's own."""
    sign = "<" if order == "little" else ">"
    monkeypatch.setattr(_slots, "pack", lambda form, *rest: struct.pack(sign + form[1:], *rest))
    raw = _slots.processor_mask([0, 65, 66])
    assert struct.unpack(f"{sign}2Q", raw) == (1, 6)
    assert _slots.processor_mask([]) == bytes(8)
    with pytest.raises(ValueError, match="no processor -1"):
        _slots.processor_mask([-1])
