"""Addresses between Python and the kernel: both ways, at the limits, and what does not fit."""

import os
import socket
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uringio._sys.sockaddr import AddressTuple, pack_sockaddr, unpack_sockaddr

INET = int(socket.AF_INET)
INET6 = int(socket.AF_INET6)
UNIX = int(socket.AF_UNIX)

ports = st.integers(0, 65535)
hosts_v4 = st.ip_addresses(v=4).map(str)
hosts_v6 = st.ip_addresses(v=6).map(lambda one: socket.inet_ntop(INET6, one.packed))
paths = st.binary(min_size=1, max_size=107).filter(lambda raw: 0 not in raw).map(os.fsdecode)


@given(host=hosts_v4, port=ports)
def test_ipv4_round_trip(host: str, port: int) -> None:
    """What goes in comes out."""
    assert unpack_sockaddr(pack_sockaddr(INET, (host, port))) == (host, port)


@given(
    host=hosts_v6,
    port=ports,
    flowinfo=st.integers(0, 0xFFFFF),
    scope_id=st.integers(0, 0xFFFFFFFF),
)
def test_ipv6_round_trip(host: str, port: int, flowinfo: int, scope_id: int) -> None:
    """All four parts survive, the scope among them."""
    address = (host, port, flowinfo, scope_id)
    assert unpack_sockaddr(pack_sockaddr(INET6, address)) == address


@given(path=paths)
def test_unix_path_round_trip(path: str) -> None:
    """Any path, also one that is no text in this machine's encoding."""
    assert unpack_sockaddr(pack_sockaddr(UNIX, path)) == path
    assert unpack_sockaddr(pack_sockaddr(UNIX, os.fsencode(path))) == path


@given(name=st.binary(max_size=107))
def test_abstract_name_round_trip(name: bytes) -> None:
    """Every byte counts, NULs inside and at the end too."""
    address = b"\0" + name
    assert pack_sockaddr(UNIX, address) == struct.pack("=H", UNIX) + address
    assert unpack_sockaddr(pack_sockaddr(UNIX, address)) == address


def test_ipv4_bytes_are_golden() -> None:
    """Family in the machine's order, port and address in the network's, then zeros."""
    raw = pack_sockaddr(INET, ("192.0.2.1", 0x1234))
    assert raw == struct.pack("=H", INET) + b"\x12\x34" + bytes([192, 0, 2, 1]) + bytes(8)


def test_ipv6_bytes_are_golden() -> None:
    """Port and flow information in the network's order, the scope in the machine's."""
    raw = pack_sockaddr(INET6, ("2001:db8::1", 0x1234, 0x56789, 7))
    host = bytes.fromhex("20010db8000000000000000000000001")
    assert raw == (
        struct.pack("=H", INET6) + b"\x12\x34\x00\x05\x67\x89" + host + struct.pack("=I", 7)
    )
    assert len(raw) == 28


def test_short_ipv6_tuples_mean_zeros() -> None:
    """Flow information and scope may be left out, as in the standard library."""
    full = pack_sockaddr(INET6, ("::1", 80, 0, 0))
    assert pack_sockaddr(INET6, ("::1", 80)) == full
    assert pack_sockaddr(INET6, ("::1", 80, 0)) == full  # type: ignore[arg-type]
    flow = pack_sockaddr(INET6, ("::1", 80, 9))  # type: ignore[arg-type]
    assert unpack_sockaddr(flow) == ("::1", 80, 9, 0)


def test_zone_is_resolved() -> None:
    """An interface behind the host, by name or number, becomes the scope; it is never dropped."""
    index, name = socket.if_nameindex()[0]
    for zone in (name, str(index)):
        raw = pack_sockaddr(INET6, (f"fe80::1%{zone}", 80))
        assert unpack_sockaddr(raw) == ("fe80::1", 80, 0, index)


def test_scope_goes_before_zone() -> None:
    """Where both are given, as getaddrinfo does, the number is what counts."""
    raw = pack_sockaddr(INET6, ("fe80::1%no-such-interface", 80, 0, 3))
    assert unpack_sockaddr(raw) == ("fe80::1", 80, 0, 3)


def test_unix_path_limits() -> None:
    """107 bytes and the closing NUL fit, an abstract name has all 108."""
    assert len(pack_sockaddr(UNIX, "p" * 107)) == 110
    assert len(pack_sockaddr(UNIX, b"\0" + b"a" * 107)) == 110
    for too_long in ("p" * 108, b"\0" + b"a" * 108, "ü" * 54):
        with pytest.raises(ValueError, match="the limit is 108"):
            pack_sockaddr(UNIX, too_long)


def test_unnamed_unix_address_is_the_family_alone() -> None:
    """The empty path is not the abstract name of length zero: bound to, it chooses a name."""
    assert pack_sockaddr(UNIX, "") == struct.pack("=H", UNIX)
    assert unpack_sockaddr(struct.pack("=H", UNIX)) == ""


@pytest.mark.parametrize("raw", [b"", b"\x01"])
def test_no_address_is_the_unnamed_one(raw: bytes) -> None:
    """The kernel answers length 0 for a peer without a name."""
    assert unpack_sockaddr(raw) == ""


def test_unix_path_ends_at_the_first_nul() -> None:
    """What the kernel left behind the path in the buffer is no part of it."""
    assert unpack_sockaddr(struct.pack("=H", UNIX) + b"/run/x\0old rest\0") == "/run/x"
    assert unpack_sockaddr(struct.pack("=H", UNIX) + b"/run/x") == "/run/x"


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (INET, ("127.0.0.1", -1)),
        (INET, ("127.0.0.1", 65536)),
        (INET, ("localhost", 80)),
        (INET, ("", 80)),
        (INET, ("127.1", 80)),
        (INET, ("::1", 80)),
        (INET, ("127.0.0.1\0", 80)),
        (INET, ("127.0.0.1", 80, 0, 0)),
        (INET, ("127.0.0.1",)),
        (INET, ()),
        (INET, "127.0.0.1:80"),
        (INET, "ab"),
        (INET6, ("127.0.0.1", 80)),
        (INET6, ("::1", 80, -1, 0)),
        (INET6, ("::1", 80, 1 << 20, 0)),
        (INET6, ("::1", 80, 0, -1)),
        (INET6, ("::1", 80, 0, 1 << 32)),
        (INET6, ("::1", 80, 0, 0, 0)),
        (INET6, ("fe80::1%no-such-interface", 80)),
        (INET6, ("fe80::1%99999999999999", 80)),
        (INET6, "::1"),
        (UNIX, ("127.0.0.1", 80)),
        (UNIX, "nul\0inside"),
        (UNIX, b"nul\0inside"),
        (UNIX, "\ud800"),
        (17, ("127.0.0.1", 80)),
    ],
)
def test_bad_address_is_a_value_error(family: int, address: AddressTuple) -> None:
    """Whatever does not fit is refused here, by one class of error, and never sent on."""
    with pytest.raises(ValueError, match=r".+"):
        pack_sockaddr(family, address)


@pytest.mark.parametrize(
    "raw",
    [
        pack_sockaddr(INET, ("127.0.0.1", 80))[:-1],
        pack_sockaddr(INET6, ("::1", 80))[:-1],
        pack_sockaddr(INET6, ("::1", 80))[:2],
        struct.pack("=H", 17) + bytes(20),
        b"\0\0",
    ],
)
def test_bad_bytes_are_a_value_error(raw: bytes) -> None:
    """An address that was cut short, or is of a family that we do not speak."""
    with pytest.raises(ValueError, match="family"):
        unpack_sockaddr(raw)


@given(raw=st.binary(max_size=140), family=st.sampled_from([INET, INET6, UNIX, 0, 17]))
def test_any_bytes_decode_or_are_refused(raw: bytes, family: int) -> None:
    """No input ends in anything but an address or a ValueError, and an address can be packed."""
    raw = struct.pack("=H", family) + raw
    try:
        address = unpack_sockaddr(raw)
    except ValueError:
        return
    if family != UNIX:
        flow_fits = len(address) < 4 or int(address[2]) <= 0xFFFFF
        assert not flow_fits or unpack_sockaddr(pack_sockaddr(family, address)) == address


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
@pytest.mark.parametrize(
    ("family", "address"),
    [
        (INET, ("127.0.0.1", 0)),
        (INET6, ("::1", 0, 0, 0)),
        (UNIX, b"\0%d-\0-name\0" % os.getpid()),
    ],
)
def test_kernel_reads_and_writes_the_same_bytes(family: int, address: AddressTuple) -> None:
    """What the standard library packs, we decode to what it decodes."""
    with socket.socket(family) as one:
        try:
            one.bind(address)
        except OSError as refusal:
            pytest.skip(f"cannot bind {address!r}: {refusal}")
        name = one.getsockname()
        assert unpack_sockaddr(pack_sockaddr(family, name)) == name
