"""The header rules of `uringio serve` on the wire: parts, conditions, codings, options, log."""

import contextlib
import email.parser
import gzip
import http.client
import os
import random
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.site import Served, serving
from tests.cli.test_serve import refused
from uringio.proto.validators import parse_http_date

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="the command asks /proc where files lie"
)

CONTENT = random.Random(3).randbytes(300_007)
TEXT = b"body { color: red }\n" * 1000


@pytest.fixture
def served(backend: str, tmp_path: Path) -> Iterator[Served]:
    """Serve a few files; the server must have nothing to say."""
    (tmp_path / "data.bin").write_bytes(CONTENT)
    (tmp_path / "empty.bin").write_bytes(b"")
    (tmp_path / "style.css").write_bytes(TEXT)
    with serving(tmp_path, backend) as found:
        yield found
        assert found.stop() == (0, b"", b"")


def fetch(
    client: http.client.HTTPConnection, target: str, method: str = "GET", **fields: str
) -> tuple[int, bytes, dict[str, str]]:
    """Ask with fields, underscores for dashes."""
    client.request(
        method, target, headers={name.replace("_", "-"): value for name, value in fields.items()}
    )
    with client.getresponse() as response:
        found = {name.lower(): value for name, value in response.getheaders()}
        return response.status, response.read(), found


def parts_of(body: bytes, fields: dict[str, str]) -> list[tuple[str, bytes]]:
    """Take a multipart body apart with the standard library's parser."""
    head = f"Content-Type: {fields['content-type']}\r\n\r\n".encode()
    message = email.parser.BytesParser().parsebytes(head + body)
    boundary = message.get_boundary()
    assert boundary is not None
    mark = f"\r\n--{boundary}".encode()
    pieces = body.split(mark)
    assert pieces[0] == b""
    assert pieces[-1] == b"--\r\n"
    found = []
    for piece in pieces[1:-1]:
        part_head, _, content = piece.partition(b"\r\n\r\n")
        match = re.search(rb"Content-Range: (bytes \d+-\d+/\d+)", part_head)
        assert match is not None
        found.append((match[1].decode(), content))
    return found


def test_a_thousand_parts_are_exact(served: Served) -> None:
    """1,000 ranged requests, single and multiple, each compared with the file."""
    chance = random.Random(7)
    size = len(CONTENT)
    with contextlib.closing(served.connect()) as client:
        for _ in range(1000):
            specs, expected = [], []
            for _ in range(chance.choice((1, 1, 1, 2, 5))):
                start = chance.randrange(size)
                stop = min(start + chance.choice((1, 10, 1000, 40_000)), size)
                kind = chance.randrange(3)
                if kind == 0:
                    specs.append(f"{start}-{stop - 1}")
                elif kind == 1:
                    start, stop = size - (stop - start), size
                    specs.append(f"-{stop - start}")
                else:
                    start, stop = max(start, size - 5000), size
                    specs.append(f"{start}-")
                expected.append((f"bytes {start}-{stop - 1}/{size}", CONTENT[start:stop]))
            status, body, fields = fetch(client, "/data.bin", Range="bytes=" + ", ".join(specs))
            assert status == 206, specs
            if len(expected) == 1:
                assert (fields["content-range"], body) == expected[0]
            else:
                assert parts_of(body, fields) == expected
            assert fields["content-length"] == str(len(body))


def test_what_is_no_part_is_416_or_the_whole(served: Served) -> None:
    """Behind the end: 416 with the size. Malformed, of HEAD, of something else: the whole."""
    with contextlib.closing(served.connect()) as client:
        status, _, fields = fetch(client, "/data.bin", Range="bytes=300007-")
        assert (status, fields["content-range"]) == (416, "bytes */300007")
        assert fetch(client, "/empty.bin", Range="bytes=0-")[0] == 416
        for value in ("bytes=5-4", "lines=1-2", "bytes=0-,0-", "bytes=x"):
            status, body, fields = fetch(client, "/data.bin", Range=value)
            assert (status, body == CONTENT) == (200, True)
            assert fields["accept-ranges"] == "bytes"
        status, body, fields = fetch(client, "/data.bin", "HEAD", Range="bytes=0-4")
        assert (status, fields["content-length"]) == (200, "300007")


def test_conditions(served: Served) -> None:
    """304 has no body and the tag; 412 for what is not expected; If-Range guards a part."""
    with contextlib.closing(served.connect()) as client:
        _, _, fields = fetch(client, "/data.bin")
        tag, modified = fields["etag"], fields["last-modified"]
        for name, value in (("If-None-Match", tag), ("If-Modified-Since", modified)):
            for method in ("GET", "HEAD"):
                status, body, found = fetch(client, "/data.bin", method, **{name: value})
                assert (status, body, found["etag"]) == (304, b"", tag)
                assert "content-length" not in found
                assert "date" in found
        assert fetch(client, "/data.bin", If_None_Match='"other"')[0] == 200
        assert fetch(client, "/data.bin", If_Match='"other"')[0] == 412
        assert fetch(client, "/data.bin", If_Match=tag)[0] == 200
        old = "Sun, 06 Nov 1994 08:49:37 GMT"
        assert fetch(client, "/data.bin", If_Unmodified_Since=old)[0] == 412
        for value in (tag, modified):
            assert fetch(client, "/data.bin", Range="bytes=1-2", If_Range=value)[0] == 206
        for value in ('"other"', f"W/{tag}", old):
            assert fetch(client, "/data.bin", Range="bytes=1-2", If_Range=value)[0] == 200
        # Fields on several lines are one list; two ranges or two dates are none.
        for name, values, expected in (
            ("If-None-Match", ('"x"', tag), 304),
            ("If-None-Match", (tag, '"x"'), 304),
            ("If-Match", (tag, '"x"'), 200),
            ("If-Modified-Since", (modified, modified), 200),
            ("Range", ("bytes=1-2", "bytes=3-4"), 200),
        ):
            client.putrequest("GET", "/data.bin")
            for value in values:
                client.putheader(name, value)
            client.endheaders()
            with client.getresponse() as response:
                assert response.status == expected, (name, values)
                response.read()
        # A file from the future is of now, for now.
        os.utime(served.folder / "data.bin", (4e9, 4e9))
        _, _, found = fetch(client, "/data.bin")
        assert parse_http_date(found["last-modified"].encode()) <= time.time()
        # A file that was changed is sent again.
        (served.folder / "data.bin").write_bytes(CONTENT + b"!")
        status, body, found = fetch(client, "/data.bin", If_None_Match=tag)
        assert (status, body) == (200, CONTENT + b"!")
        assert found["etag"] != tag


def test_compressed_siblings(served: Served) -> None:
    """The sibling that the client likes best, as what it is; never one that is out of date."""
    style = served.folder / "style.css"
    packed = {"gzip": gzip.compress(TEXT), "br": b"as if by brotli", "zstd": b"as if by zstandard"}
    with contextlib.closing(served.connect()) as client:
        status, body, plain = fetch(client, "/style.css", Accept_Encoding="gzip, br, zstd")
        assert (status, body) == (200, TEXT)
        assert "content-encoding" not in plain
        for coding, ending in (("gzip", "gz"), ("br", "br"), ("zstd", "zst")):
            Path(f"{style}.{ending}").write_bytes(packed[coding])
        tags = {plain["etag"]}
        for accept, coding in (
            ("gzip", "gzip"), ("gzip, br, zstd", "br"), ("gzip;q=0.2, zstd;q=0.1", "gzip"),
            ("zstd, gzip", "zstd"),
        ):  # fmt: skip
            status, body, fields = fetch(client, "/style.css", Accept_Encoding=accept)
            assert (status, body) == (200, packed[coding])
            assert fields["content-encoding"] == coding
            assert fields["content-type"] == "text/css; charset=utf-8"
            assert fields["vary"] == "Accept-Encoding"
            tags.add(fields["etag"])
            again = fetch(
                client, "/style.css", Accept_Encoding=accept, If_None_Match=fields["etag"]
            )
            assert again[0] == 304
            part = fetch(client, "/style.css", Accept_Encoding=accept, Range="bytes=1-3")
            assert part[:2] == (206, packed[coding][1:4])
        assert len(tags) == 4
        status, body, fields = fetch(client, "/style.css")
        assert (body, fields["vary"], fields["etag"]) == (TEXT, "Accept-Encoding", plain["etag"])
        # Fetched by its own name it is a file like others.
        fields = fetch(client, "/style.css.gz", Accept_Encoding="gzip")[2]
        assert fields["content-type"] == "application/gzip"
        assert "content-encoding" not in fields
        later = style.stat().st_mtime_ns + 10**10
        os.utime(style, ns=(later, later))
        assert fetch(client, "/style.css", Accept_Encoding="gzip, br, zstd")[1] == TEXT


def test_siblings_outside_are_not_served(backend: str, tmp_path: Path) -> None:
    """A sibling that is a link to the outside is passed over."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"inside")
    (tmp_path / "secret.gz").write_bytes(b"secret")
    (folder / "a.txt.gz").symlink_to("../secret.gz")
    os.mkfifo(folder / "a.txt.br")
    (folder / "a.txt.zst").mkdir()
    with serving(folder, backend) as served, contextlib.closing(served.connect()) as client:
        assert fetch(client, "/a.txt", Accept_Encoding="*")[:2] == (200, b"inside")


def test_options_for_pages(backend: str, tmp_path: Path) -> None:
    """--cors, --header and --index do what they say, refusals included."""
    (tmp_path / "start.htm").write_bytes(b"start")
    (tmp_path / "index.html").write_bytes(b"index")
    options = ["--cors", "--header", "Cache-Control: max-age=60", "--header", "X-Empty:",
               "--index", "start.htm"]  # fmt: skip
    with serving(tmp_path, backend, options) as served:
        with contextlib.closing(served.connect()) as client:
            for target, status in (("/", 200), ("/nowhere", 404)):
                found, body, fields = fetch(client, target)
                assert found == status
                assert fields["access-control-allow-origin"] == "*"
                assert fields["cache-control"] == "max-age=60"
                assert fields["x-empty"] == ""
            assert fetch(client, "/")[1] == b"start"
            status, body, fields = fetch(client, "/", "OPTIONS", Origin="http://a")
            assert (status, body) == (204, b"")
            assert fields["access-control-allow-methods"] == "GET, HEAD"
        assert b"max-age=60" in served.exchange(b"bad\r\n\r\n")
    with serving(tmp_path, backend, ["--index", "", "--cors", "http://b"]) as served:
        status, body, fields = served.get("/")
        assert (status, b"start.htm" in body) == (200, True)
        assert fields["access-control-allow-origin"] == "http://b"
        assert fields["content-security-policy"].startswith("default-src 'none'")
    with serving(tmp_path, backend) as served:
        assert served.get("/")[1] == b"index"
        status, _, fields = served.get("/", "OPTIONS")
        assert (status, fields["allow"]) == (405, "GET, HEAD")
        assert "access-control-allow-origin" not in fields


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--header", "nonsense"], "--header: 'nonsense' is not of the form 'Name: value'"),
        (
            ["--header", "A: b\r\nC: d"],
            r"--header: 'A: b\r\nC: d' is not of the form 'Name: value'",
        ),
        (["--header", "Content-Length: 3"], "--header: Content-Length is for the server to say"),
        (["--cors", "a\nb"], r"--cors: 'a\nb' is not an origin"),
        (["--index", "a/b"], "--index: 'a/b' is not the name of a file"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, argv: list[str], line: str) -> None:
    """An option that would make malformed responses keeps the server from beginning."""
    assert refused("serve", str(tmp_path), *argv) == line


LINE = re.compile(
    r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d 127\.0\.0\.1 "(?P<request>[^"]*)" (?P<status>\d+|-) '
    r"(?P<bytes>\d+) \d+\.\dms"
)


def test_the_log_has_every_request(backend: str, tmp_path: Path) -> None:
    """Time, peer, request, status, bytes, duration; refusals too; nothing can forge a line."""
    (tmp_path / "a").write_bytes(b"abc")
    with serving(tmp_path, backend, quiet=False) as served:
        with contextlib.closing(served.connect()) as client:
            fetch(client, "/a")
            fetch(client, "/a", "HEAD")
            fetch(client, "/nowhere")
            fetch(client, "/a", Range="bytes=1-1")
            for _ in range(500):
                fetch(client, "/a")
        served.exchange(b'GET /%0A"quoted\\" HTTP/1.1\r\nHost: a\r\n\r\n')
        served.exchange(b"GET /\nforged HTTP/1.1\r\n\r\n")
        status, said, errors = served.stop()
    assert (status, errors) == (0, b"")
    found = [LINE.fullmatch(line) for line in said.decode().splitlines()]
    assert all(found), said[:1000]
    seen = [(one["request"], one["status"], one["bytes"]) for one in found if one is not None]
    assert seen[:4] == [
        ("GET /a HTTP/1.1", "200", "3"), ("HEAD /a HTTP/1.1", "200", "0"),
        ("GET /nowhere HTTP/1.1", "404", "14"), ("GET /a HTTP/1.1", "206", "1"),
    ]  # fmt: skip
    assert seen[4:504] == [("GET /a HTTP/1.1", "200", "3")] * 500
    assert seen[504:] == [
        (r"GET /%0A\x22quoted\x5c\x22 HTTP/1.1", "404", "14"), ("-", "400", "0"),
    ]  # fmt: skip


def test_a_log_that_nobody_reads_holds_up_nothing(backend: str, tmp_path: Path) -> None:
    """A full pipe stops the log, not the server."""
    (tmp_path / ("x" * 200)).write_bytes(b"abc")
    with serving(tmp_path, backend, quiet=False) as served:
        with contextlib.closing(served.connect()) as client:
            for _ in range(950):  # some 250 bytes each: more than a pipe takes
                assert fetch(client, "/" + "x" * 200)[:2] == (200, b"abc")
                if not _ % 400:
                    client.close()
        served.stop()


def test_a_log_that_was_closed_holds_up_nothing(backend: str, tmp_path: Path) -> None:
    """The reader of the log may leave."""
    (tmp_path / "a").write_bytes(b"abc")
    with serving(tmp_path, backend, quiet=False) as served:
        assert served.process.stdout is not None
        served.process.stdout.close()
        with contextlib.closing(served.connect()) as client:
            for _ in range(300):
                assert fetch(client, "/a")[1] == b"abc"
        served.process.send_signal(15)
        assert served.process.wait(50) == 0


def test_pipelined_parts(served: Served) -> None:
    """Ranged requests in one go are answered in order."""
    wire = "".join(
        f"GET /data.bin HTTP/1.1\r\nHost: a\r\nRange: bytes={at}-{at + 9}\r\n\r\n"
        for at in range(0, 1000, 10)
    )
    wire += "GET /empty.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with socket.create_connection((served.host, served.port), timeout=50) as client:
        client.sendall(wire.encode())
        said = b"".join(iter(lambda: client.recv(65536), b""))
    bodies = re.findall(rb"HTTP/1\.1 206 [^\r]*\r\n(?:[^\r]+\r\n)+\r\n(.{10})", said, re.DOTALL)
    assert b"".join(bodies) == CONTENT[:1000]
