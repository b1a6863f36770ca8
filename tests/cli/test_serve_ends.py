"""How connections to `uringio serve` end: with a response that the client gets to see."""

import http.client
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.site import Served, serving
from tests.conftest import BACKENDS
from tests.kernel import uring_refusal

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
MIB = 1024 * 1024


@pytest.fixture(scope="module", params=BACKENDS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Serve a small file; the server must have nothing to say about any of its clients."""
    if request.param == "uring" and (refusal := uring_refusal()):
        pytest.skip(f"no uring driver here: {refusal}")
    folder: Path = tmp_path_factory.mktemp("site")
    (folder / "a").write_bytes(b"content")
    with serving(folder, request.param) as found:
        yield found
        assert found.stop() == (0, b"", b"")


def connect(served: Served) -> socket.socket:
    return socket.create_connection((served.host, served.port), timeout=50)


def read_all(client: socket.socket) -> list[tuple[int, bytes]]:
    """Read to the end, which must be no reset; the status and the body of each response."""
    said = b"".join(iter(lambda: client.recv(65536), b""))
    found = []
    while said:
        head, _, said = said.partition(b"\r\n\r\n")
        match = re.search(rb"\r\nContent-Length: (\d+)", head)
        length = int(match[1]) if match is not None else 0
        found.append((int(head.split(b" ")[1]), said[:length]))
        said = said[length:]
    return found


@pytest.mark.parametrize(
    ("fields", "chunk", "status"),
    [
        (b"Content-Length: 900000\r\n", bytes(900_000), 405),
        (b"Content-Length: 4194304\r\n", bytes(4 * MIB), 413),
        (b"Transfer-Encoding: chunked\r\n", b"100000\r\n" + bytes(MIB) + b"\r\n", 405),
    ],
    ids=["more than is read", "more than is allowed", "chunked"],
)
def test_who_sends_first_and_reads_then_sees_the_response(
    served: Served, fields: bytes, chunk: bytes, status: int
) -> None:
    """A body that nobody wants is taken for a while: a broken pipe would hide the answer."""
    with connect(served) as client:
        client.sendall(b"POST /a HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
        client.sendall(chunk)
        if b"chunked" in fields:
            client.sendall(b"0\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert [found for found, _ in read_all(client)] == [status]


def test_who_waits_for_100_need_not_send(served: Served) -> None:
    """The final status comes at once, and says that the connection ends; without a body not."""
    expect = b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
    with connect(served) as client:
        client.sendall(expect + b"Content-Length: 5\r\n\r\n")
        response = http.client.HTTPResponse(client)
        response.begin()
        assert (response.status, response.getheader("Connection")) == (405, "close")
        client.sendall(b"hello" + GET)  # too late: it is not taken for a request
        response.read()
        assert client.recv(1) == b""
    with connect(served) as client:
        client.sendall(expect + b"Content-Length: 0\r\n\r\n" + GET)
        client.shutdown(socket.SHUT_WR)
        assert [status for status, _ in read_all(client)] == [405, 200]


def test_what_is_pipelined_behind_an_error_is_not_answered(served: Served) -> None:
    """Responses to what came before, one refusal, and the end, however much is still sent."""
    smuggled = b"GET /a HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"
    with connect(served) as client:
        client.sendall(GET * 3 + smuggled + GET * 3)
        client.sendall(GET * 1000)
        assert [status for status, _ in read_all(client)] == [200, 200, 200, 400]


def test_the_last_of_a_thousand_responses_arrives(served: Served) -> None:
    """More requests than a connection may have: all that may be are answered, without a reset."""
    with connect(served) as client:
        sender = threading.Thread(target=client.sendall, args=(GET * 1500,))
        sender.start()
        found = read_all(client)
        sender.join()
    assert found == [(200, b"content")] * 1000


@pytest.mark.parametrize("field", [b"", b"Connection: keep-alive\r\n"])
def test_http_1_0_is_one_request(served: Served, field: bytes) -> None:
    """HTTP/1.0 is answered in HTTP/1.1 with close, and needs no Host."""
    with connect(served) as client:
        client.sendall(b"GET /a HTTP/1.0\r\n" + field + b"\r\n")
        assert read_all(client) == [(200, b"content")]


def test_upgrades_are_declined(served: Served) -> None:
    """An offer to leave HTTP is not taken up, and disturbs nothing."""
    offer = GET[:-2] + b"Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
    with connect(served) as client:
        client.sendall(offer + GET)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == [(200, b"content")] * 2


def test_bodies_of_gets_are_passed_over(served: Served) -> None:
    """A body with a GET is no request of its own."""
    with connect(served) as client:
        for body in (
            b"Content-Length: %d\r\n\r\n" % len(GET) + GET,
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(GET) + GET + b"\r\n0\r\nX: y\r\n\r\n",
        ):
            client.sendall(GET[:-2] + body)
        client.sendall(GET)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == [(200, b"content")] * 3
