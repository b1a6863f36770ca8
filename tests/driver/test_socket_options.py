"""Socket options: numbers against the kernel's headers, values there and back."""

import socket

import pytest

from tests.sys import header
from uringio._driver import messages, socket_options
from uringio._driver.socket_options import SocketOption
from uringio.errors import UsageError
from uringio.net import options

OPTIONS: dict[str, SocketOption[object]] = {
    name: value for name, value in vars(socket_options).items() if isinstance(value, SocketOption)
}

LEVELS = {"SO": "SOL_SOCKET", "IP": "IPPROTO_IP", "IPV6": "IPPROTO_IPV6", "TCP": "IPPROTO_TCP",
          "UDP": "IPPROTO_UDP"}  # fmt: skip


def level_of(name: str) -> str:
    return LEVELS[name.split("_", maxsplit=1)[0]]


@pytest.fixture(scope="module")
def in_headers() -> dict[str, int | None]:
    return header.evaluate([*OPTIONS, *map(level_of, OPTIONS)])


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_option_is_the_kernels(name: str, in_headers: dict[str, int | None]) -> None:
    """Level and number are what the installed headers say, and the name is the option's own."""
    option = OPTIONS[name]
    assert repr(option) == name
    if in_headers[name] is None:
        pytest.skip(f"the installed headers are older than {name}")
    assert (option.level, option.number) == (in_headers[level_of(name)], in_headers[name])


def test_every_option_is_public() -> None:
    """`uringio.net.options` exports each of them, and nothing else but their class."""
    assert set(options.__all__) == {*OPTIONS, "SocketOption"}
    assert len(OPTIONS) > 40


def test_items_of_messages_are_the_kernels() -> None:
    """The numbers of ancillary items are what the installed headers say."""
    rights = messages.descriptors_item([1])
    credentials = messages.credentials_item(messages.Credentials(1, 2, 3))
    segment = messages.segment_item(1000)
    found = header.evaluate(
        ["SOL_SOCKET", "SCM_RIGHTS", "SCM_CREDENTIALS", "IPPROTO_UDP", "UDP_SEGMENT"]
    )
    assert list(found.values()) == [
        rights.level, rights.kind, credentials.kind, segment.level, segment.kind,
    ]  # fmt: skip
    assert credentials.level == rights.level
    flags = header.evaluate(["MSG_CMSG_CLOEXEC", "MSG_TRUNC", "MSG_CTRUNC"])
    assert list(flags.values()) == [messages.MSG_CMSG_CLOEXEC, 0x20, 0x08]


def test_values_are_encoded_as_the_kernel_wants_them() -> None:
    """Flags become 0 or 1, a time to linger its struct, a name its bytes with a NUL."""
    assert options.SO_REUSEPORT.to(True) == (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    assert options.TCP_KEEPCNT.to(5) == (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5)
    assert options.SO_LINGER.to(None)[2] == bytes(8)
    assert options.TCP_CONGESTION.to("reno")[2] == b"reno\0"


def test_values_out_of_range_are_refused() -> None:
    """Before anything reaches the kernel."""
    with pytest.raises(ValueError, match="C int"):
        options.SO_SNDBUF.to(1 << 31)
    with pytest.raises(ValueError, match="linger"):
        options.SO_LINGER.to(-1)
    with pytest.raises(ValueError, match="longer"):
        options.TCP_CONGESTION.to("x" * 16)
    with pytest.raises(TypeError):
        options.IP_TTL.to(1.5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="SO_TYPE can only be read"):
        options.SO_TYPE.to(1)
