"""The first promise of the command: a big tree, by curl, pipelined and in parts, byte for byte."""

import filecmp
import math
import random
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.backends import ON_EPOLL
from tests.cli.site import serving

MIB = 1024 * 1024
FILES_COUNT = 500
BIG_COUNT = 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make 500 files, log-uniform up to 8 MiB, three of 64 MiB, under 1 GiB in all."""
    chance = random.Random(20_000)
    folder = tmp_path_factory.mktemp("tree")
    total = 0
    for index in range(FILES_COUNT):
        if index < BIG_COUNT:
            size = 64 * MIB
        else:
            size = int(math.exp(chance.uniform(0, math.log(8 * MIB))))
        path = folder / f"{index % 7}" / f"{index % 31}" / f"{index}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(size))
        total += size
    assert total < 1024 * MIB
    yield folder
    shutil.rmtree(folder)  # half a gigabyte is too much to keep for the next three runs


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_every_file_of_a_tree_by_curl(backend: str, tree: Path, tmp_path: Path) -> None:
    """
    500 files arrive identical, 32 at a time, and the server holds what its backend says.

    With io_uring: a ring and no epoll; with epoll the reverse. It asks the running server in the
    middle of the work.
    """
    paths = sorted(path.relative_to(tree) for path in tree.rglob("*.bin"))
    assert len(paths) == FILES_COUNT
    with serving(tree, backend) as served:
        config = "".join(
            f'url = "http://{served.host}:{served.port}/{path}"\n'
            f'output = "{tmp_path}/{str(path).replace("/", "-")}"\n'
            for path in paths
        )
        curl = subprocess.Popen(
            [
                "curl",
                "-sS",
                "--fail",
                "-Z",
                "--parallel-max",
                "32",
                "-K",
                "-",
                "-w",
                "%{http_code}\n",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert curl.stdin is not None
        curl.stdin.write(config.encode())
        curl.stdin.close()
        assert curl.stdout is not None
        first = curl.stdout.readline()
        targets = served.fd_targets()
        rest = curl.stdout.read()
        curl.stdout.close()
        assert curl.wait() == 0
        assert re.fullmatch(rb"(200\n){500}", first + rest)
        for path in paths:
            copy = tmp_path / str(path).replace("/", "-")
            assert filecmp.cmp(tree / path, copy, shallow=False), path
            copy.unlink()
        assert served.stop() == (0, b"", b"")
    assert ("anon_inode:[io_uring]" in targets) == (backend == "uring")
    assert ("anon_inode:[eventpoll]" in targets) == (backend in ON_EPOLL)


def read_head(stream: BinaryIO) -> tuple[int, dict[bytes, bytes]]:
    """Read the head of a response: its status and its fields."""
    status = stream.readline()
    assert re.fullmatch(rb"HTTP/1\.1 \d{3} [A-Za-z ]+\r\n", status), status
    fields = {}
    while (line := stream.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    return int(status[9:12]), fields


def test_every_file_of_a_tree_pipelined(backend: str, tree: Path) -> None:
    """All 500 requests are sent at once; the responses come whole, in order, on one connection."""
    paths = sorted(tree.rglob("*.bin"), key=lambda path: path.name)
    wire = "".join(f"GET /{path.relative_to(tree)} HTTP/1.1\r\nHost: a\r\n\r\n" for path in paths)
    with serving(tree, backend) as served:
        with (
            socket.create_connection((served.host, served.port), timeout=60) as client,
            client.makefile("rb", buffering=1 << 20) as stream,
        ):
            client.sendall(wire.encode())
            client.shutdown(socket.SHUT_WR)
            for path in paths:
                status, fields = read_head(stream)
                assert (status, int(fields[b"content-length"])) == (200, path.stat().st_size)
                with path.open("rb") as file:
                    while expected := file.read(1 << 20):
                        assert stream.read(len(expected)) == expected, path
            assert stream.read() == b""
        assert served.stop() == (0, b"", b"")


def test_a_thousand_parts_of_a_tree(backend: str, tree: Path) -> None:
    """1,000 requests for parts of files of all sizes, pipelined: single, suffix, open, multiple."""
    chance = random.Random(7)
    paths = sorted(tree.rglob("*.bin"))
    with (
        serving(tree, backend) as served,
        socket.create_connection((served.host, served.port), timeout=60) as client,
        client.makefile("rb") as stream,
    ):
        for _ in range(10):
            asked = [one_of(chance, tree, chance.choice(paths)) for _ in range(100)]
            client.sendall(b"".join(request for request, _, _ in asked))
            for request, path, ranges in asked:
                status, fields = read_head(stream)
                body = stream.read(int(fields[b"content-length"]))
                assert status == 206, request
                assert (fields, body) == expected_parts(fields, path, ranges), request


Range = tuple[int, int]


def one_of(chance: random.Random, tree: Path, path: Path) -> tuple[bytes, Path, list[Range]]:
    """Make up a request for parts of a file; tell which they are."""
    size = path.stat().st_size
    specs, ranges = [], []
    for _ in range(chance.choice((1, 1, 1, 2, 3, 9))):
        length = min(size, int(math.exp(chance.uniform(0, 11))))
        start = chance.randrange(size - length + 1)
        kind = chance.choice(("both", "both", "suffix", "open", "beyond"))
        if kind == "both":
            specs.append(f"{start}-{start + length - 1}")
        elif kind == "suffix":
            specs.append(f"-{length}")
        elif kind == "open":
            specs.append(f"{size - length}-")
        else:
            specs.append(f"{size - length}-{size + chance.randrange(10**12)}")
        ranges.append((start, start + length) if kind == "both" else (size - length, size))
    if sum(stop - start for start, stop in ranges) > size:
        # Overlapping so much that a server rather sends the whole: another case, tested elsewhere.
        return one_of(chance, tree, path)
    target = path.relative_to(tree)
    request = f"GET /{target} HTTP/1.1\r\nHost: a\r\nRange: bytes={','.join(specs)}\r\n\r\n"
    return request.encode(), path, ranges


def expected_parts(
    fields: dict[bytes, bytes], path: Path, ranges: list[Range]
) -> tuple[dict[bytes, bytes], bytes]:
    """Return what a response with these parts says and holds, its boundary and tag taken over."""
    size, kind = path.stat().st_size, b"application/octet-stream"
    pieces = []
    with path.open("rb") as file:
        for start, stop in ranges:
            file.seek(start)
            pieces.append((b"bytes %d-%d/%d" % (start, stop - 1, size), file.read(stop - start)))
    if len(pieces) == 1:
        return fields | {b"content-range": pieces[0][0], b"content-type": kind}, pieces[0][1]
    mark, boundary = fields[b"content-type"].split(b"boundary=")
    assert mark == b"multipart/byteranges; "
    assert b"content-range" not in fields
    body = b"".join(
        b"\r\n--%s\r\nContent-Type: %s\r\nContent-Range: %s\r\n\r\n%s"
        % (boundary, kind, content_range, piece)
        for content_range, piece in pieces
    )
    return fields, body + b"\r\n--%s--\r\n" % boundary
