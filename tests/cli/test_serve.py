"""`uringio serve` as its users have it: a subprocess, sockets, real files; both backends."""

import contextlib
import http.client
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from tests.backends import BACKENDS, ON_EPOLL
from tests.cli.site import SECRET, SIZES, Served, make_site, serving
from tests.fresh import FreshPython
from tests.kernel import uring_refusal
from uringio.cli import main

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="the tests ask /proc what a server has open"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Make a folder with files of every kind, and say what each target holds."""
    folder = tmp_path_factory.mktemp("around") / "site"
    return folder, make_site(folder)


@pytest.fixture(scope="module", params=BACKENDS)
def served(request: pytest.FixtureRequest, site: tuple[Path, dict[str, bytes]]) -> Iterator[Served]:
    """Serve the site; at the end it must still run, and have had nothing to say."""
    if request.param == "uring" and (refusal := uring_refusal()):
        pytest.skip(f"no uring driver here: {refusal}")
    with serving(site[0], request.param) as found:
        yield found
        assert found.stop() == (0, b"", b"")


def test_start_line_tells_where_and_how(served: Served) -> None:
    """One line: the folder, the URL, the backend, how to stop."""
    assert served.line == (
        f"Serving {served.folder} at http://127.0.0.1:{served.port}/ ({served.backend}); "
        "Ctrl-C to stop\n"
    )


def test_the_backend_is_the_one_asked_for(served: Served) -> None:
    """The uring backend has a ring and no epoll; the epoll backend has it the other way round."""
    served.get("/")
    targets = served.fd_targets()
    assert ("anon_inode:[io_uring]" in targets) == (served.backend == "uring")
    assert ("anon_inode:[eventpoll]" in targets) == (served.backend in ON_EPOLL)


def test_every_file_is_served_exactly(served: Served, site: tuple[Path, dict[str, bytes]]) -> None:
    """GET gives every file's bytes with its length and time; HEAD the same fields and no body."""
    for target, content in site[1].items():
        status, body, fields = served.get(target)
        assert (status, body == content) == (200, True), target
        assert fields["content-length"] == str(len(content))
        head_status, nothing, head_fields = served.get(target, "HEAD")
        assert (head_status, nothing) == (200, b"")
        fields.pop("date"), head_fields.pop("date")
        assert head_fields == fields


def test_fields_of_a_file(served: Served) -> None:
    """Type by ending, the time of modification, the time of day."""
    path = served.folder / "deep/er/file.txt"
    _, _, fields = served.get("/deep/er/file.txt")
    assert fields["content-type"] == "text/plain; charset=utf-8"
    assert fields["x-content-type-options"] == "nosniff"
    modified = parsedate_to_datetime(fields["last-modified"]).timestamp()
    assert modified == int(path.stat().st_mtime)
    assert parsedate_to_datetime(fields["date"]).timestamp() >= modified
    assert served.get("/sizes/1.bin")[2]["content-type"] == "application/octet-stream"


ESCAPES = [
    "/../secret.txt",
    "/../../../../../../etc/passwd",
    "/deep/../../secret.txt",
    "/deep/er/../../../secret.txt",
    "/./../secret.txt",
    "/..",
    "/../",
    "//../secret.txt",
    "/deep//../..//secret.txt",
    "/%2e%2e/secret.txt",
    "/%2E%2E/secret.txt",
    "/.%2e/secret.txt",
    "/%2e./secret.txt",
    "/..%2fsecret.txt",
    "/%2e%2e%2fsecret.txt",
    "/..%5csecret.txt",
    "/%5c..%5csecret.txt",
    "/..\\secret.txt",
    "/deep/..%5c..%5csecret.txt",
    "/%252e%252e/secret.txt",
    "/%c0%ae%c0%ae/secret.txt",
    "/%c0%ae%c0%ae%c0%afsecret.txt",
    "/%e0%80%ae%e0%80%ae/secret.txt",
    "/%uff0e%uff0e/secret.txt",
    "/..;/secret.txt",
    "/...//secret.txt",
    "/..%00/secret.txt",
    "/%00",
    "/deep/er/file.txt%00",
    "/deep/er/file.txt%00.html",
    "/secret.txt%00",
    "/%2fetc%2fpasswd",
    "//etc/passwd",
    "/%2f/etc/passwd",
    "/file:///etc/passwd",
    "http://127.0.0.1/../secret.txt",
    "/~root",
    "/" + "a" * 300,
    "/" + "a/" * 2000,
    "/links/in-absolute",
    "/links/in-by-outside",
    "/links/in-folder/../../../secret.txt",
    "/links/out",
    "/links/out-absolute",
    "/links/out-folder",
    "/links/out-folder/",
    "/links/out-folder/inner.txt",
    "/links/out-neighbour/secret.txt",
    "/links/out-root/etc/passwd",
    "/links/out-up/secret.txt",
    "/links/out-up/secrets/",
    "/links/out-device",
    "/links/out-proc",
    "/links/out-cwd/",
    "/links/broken",
    "/links/loop",
    "/links/in/",
    "/links/in/x",
    "/links/out-fd",
    "/" + "n" * 255,
    "/" + "n" * 256,
    "/" + "a/" * 1000 + "n" * 256,
    "/fifo",
    "/socket",
    "/fifo/",
    "/socket/x",
    "/links/to-fifo",
    "/links/to-socket",
]


@pytest.mark.parametrize("target", ESCAPES, ids=lambda target: target[:40])
def test_nothing_outside_is_served(served: Served, target: str) -> None:
    """Dots, encodings, NUL, backslashes, links, FIFOs: 400 or 404, and nothing of the outside."""
    answer = served.exchange(f"GET {target} HTTP/1.0\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b" ", 2)[1] in {b"400", b"404"}, head
    assert SECRET not in answer
    assert b"root:" not in answer
    assert len(body) < 100


def test_links_out_are_not_even_redirected(served: Served) -> None:
    """A folder outside is no folder here: it gets no slash, and no listing."""
    for name in ("out-folder", "out-root", "out-up", "out-neighbour", "out-cwd"):
        assert served.get(f"/links/{name}")[0] == 404
        assert served.get(f"/links/{name}/")[0] == 404


class Links(HTMLParser):
    """Collect the targets of links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append(dict(attrs)["href"] or "")


def links_of(served: Served, target: str) -> tuple[str, list[str]]:
    status, body, fields = served.get(target)
    assert status == 200
    assert fields["content-type"] == "text/html; charset=utf-8"
    page = body.decode("utf-8")
    links = Links()
    links.feed(page)
    base = f"http://here{target}"
    return page, [urlsplit(urljoin(base, link)).path for link in links.found]


def test_every_file_can_be_found_by_links(
    served: Served, site: tuple[Path, dict[str, bytes]]
) -> None:
    """Climbing down from the root by the listings' links alone reaches and fetches every file."""
    seen = {"/"}
    waiting = ["/"]
    files = set()
    while waiting:
        for target in links_of(served, waiting.pop())[1]:
            if target in seen or target.startswith("/links/in-folder"):
                continue
            seen.add(target)
            if not target.endswith("/"):
                files.add(target)
            elif target != "/indexed/":  # which shows its index in place of a listing
                waiting.append(target)
    expected = {target for target in site[1] if "in-folder" not in target}
    assert files == expected - {"/indexed/index.html"}
    for target in files:
        assert served.get(target)[1] == site[1][target]


def test_listing_is_plain(served: Served) -> None:
    """Names escaped and decoded, sizes, a way up, folders marked; nothing that is not served."""
    page, links = links_of(served, "/names/")
    assert "<title>/names/</title>" in page
    assert "a b&amp;&lt;c&gt;&quot;&#x27;.txt" in page
    assert "ä€.txt" in page
    assert "/" in links
    page, links = links_of(served, "/sizes/")
    assert '<td class="n">4.8 MiB</td>' in page
    assert len(links) == len(SIZES) + 6  # two to climb, three to sort, one up
    page, links = links_of(served, "/")
    assert "deep/" in page
    assert "fifo" not in page
    assert "socket" not in page
    page, links = links_of(served, "/links/")
    assert sorted(link for link in links if link.startswith("/links/") and link != "/links/") == [
        "/links/in", "/links/in-folder/",
    ]  # fmt: skip
    assert links_of(served, "/empty/")[1] == ["/", "/empty/", *["/empty/"] * 3, "/"]


def test_listing_has_a_head(served: Served) -> None:
    """HEAD of a listing has the length of its page, and no page."""
    _, body, _ = served.get("/sizes/")
    status, nothing, fields = served.get("/sizes/", "HEAD")
    assert (status, nothing, fields["content-length"]) == (200, b"", str(len(body)))


def test_index_is_shown_for_its_folder(served: Served) -> None:
    """A folder with index.html shows it."""
    status, body, fields = served.get("/indexed/")
    assert (status, body) == (200, b"<p>index\n")
    assert fields["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/deep", "/deep/"),
        ("/deep?a=b", "/deep/?a=b"),
        ("/deep/er", "/deep/er/"),
        ("//deep", "/deep/"),
        ("///deep//er", "/deep/er/"),
        ("http://evil.example/deep", "/deep/"),
        ("/links/in-folder", "/links/in-folder/"),
    ],
)
def test_folders_are_found_at_their_slash(served: Served, target: str, location: str) -> None:
    """A folder without its slash is redirected, always to a path of this host."""
    status, _, fields = served.get(target)
    assert (status, fields["location"]) == (301, location)


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "//evil.example/%2e%2e", "/%5Cevil.example/..", "//evil.example/../deep"],
)
def test_no_redirect_leaves(served: Served, target: str) -> None:
    """What looks like a host in a path is a name that is not there."""
    status, _, fields = served.get(target)
    assert status == 404
    assert "location" not in fields


@pytest.mark.parametrize(
    ("method", "status"),
    [("POST", 405), ("PUT", 405), ("DELETE", 405), ("OPTIONS", 405), ("PATCH", 405),
     ("TRACE", 405), ("BREW", 501), ("get", 501)],
)  # fmt: skip
def test_other_methods_are_refused(served: Served, method: str, status: int) -> None:
    """What the server cannot do it says, and the connection goes on."""
    wire = f"{method} /deep/er/file.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    answer = served.exchange(wire.encode() + b"GET /deep/er/file.txt HTTP/1.1\r\nHost: a\r\n\r\n")
    first, _, rest = answer.partition(b"HTTP/1.1 200 ")
    assert first.startswith(b"HTTP/1.1 %d " % status)
    assert (b"\r\nAllow: GET, HEAD\r\n" in first) == (status == 405)
    assert rest.endswith(b"\r\n\r\ndeep\n")


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n", 400),
        (b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70000 + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /deep/er/file.txt/ HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /deep/er/file.txt/x HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    ],
)  # fmt: skip
def test_bad_requests_are_answered(served: Served, wire: bytes, status: int) -> None:
    """Each kind of bad request gets the status that fits."""
    assert served.exchange(wire).startswith(b"HTTP/1.1 %d " % status)


def test_connections_are_kept(served: Served) -> None:
    """One connection carries many requests, errors among them."""
    with contextlib.closing(served.connect()) as client:
        client.connect()
        first = client.sock
        for target, status in [("/deep/er/file.txt", 200), ("/nowhere", 404), ("/deep", 301),
                               ("/sizes/5000011.bin", 200), ("/", 200)] * 3:  # fmt: skip
            client.request("GET", target)
            with client.getresponse() as response:
                response.read()
                assert response.status == status
        assert client.sock is first


def test_requests_may_be_pipelined(served: Served, site: tuple[Path, dict[str, bytes]]) -> None:
    """Requests sent in one go are answered in order, bodies exact."""
    targets = [f"/sizes/{size}.bin" for size in SIZES] * 3
    wire = "".join(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n" for target in targets)
    with socket.create_connection((served.host, served.port), timeout=50) as client:
        client.sendall(wire.encode())
        with client.makefile("rb") as stream:
            for target in targets:
                head = b"".join(iter(stream.readline, b"\r\n"))
                length = re.search(rb"Content-Length: (\d+)", head)
                assert length is not None
                assert stream.read(int(length[1])) == site[1][target], target


def test_many_at_once_are_exact(served: Served, site: tuple[Path, dict[str, bytes]]) -> None:
    """32 clients at a time get every file right."""
    targets = list(site[1]) * 4

    def fetch(target: str) -> bool:
        return served.get(target)[1] == site[1][target]

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(fetch, targets))


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_agrees(served: Served, site: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    """A client that others wrote fetches all sizes, 32 at a time, byte for byte."""
    targets = [f"/sizes/{size}.bin" for size in SIZES] * 4
    config = "".join(
        f'url = "http://{served.host}:{served.port}{target}"\noutput = "{tmp_path}/{index}"\n'
        for index, target in enumerate(targets)
    )
    subprocess.run(
        ["curl", "-sS", "--fail", "-Z", "--parallel-max", "32", "-K", "-"],
        input=config.encode(), check=True,
    )  # fmt: skip
    for index, target in enumerate(targets):
        assert (tmp_path / str(index)).read_bytes() == site[1][target]


def test_clients_may_leave(served: Served) -> None:
    """Clients that hang up in the middle cost the server nothing: no word, no descriptor."""
    before = sorted(served.fd_targets())
    for _ in range(20):
        with socket.create_connection((served.host, served.port), timeout=50) as client:
            client.sendall(b"GET /sizes/5000011.bin HTTP/1.1\r\nHost: a\r\n\r\n")
            client.recv(1)
            # Unread bytes turn the close into a reset.
    with contextlib.closing(served.connect()) as client:
        # Each answer means another pass of the server's loop; in some the leavers' ends come.
        for _ in range(1000):
            client.request("GET", "/deep/er/file.txt")
            with client.getresponse() as response:
                assert response.read() == b"deep\n"
            now = [target for target in served.fd_targets() if "5000011.bin" in target]
            if not now and len(served.fd_targets()) <= len(before) + 1:
                break
        else:
            pytest.fail("descriptors of clients that left are still open")


# --- servers of one test's own -------------------------------------------------------------------


def test_a_file_that_shrinks_is_cut(backend: str, tmp_path: Path) -> None:
    """A file truncated while it is sent ends the connection early; the client can tell."""
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    with serving(tmp_path, backend) as served:
        with contextlib.closing(served.connect()) as client:
            client.request("GET", "/big")
            with client.getresponse() as response:
                response.read(1)
                os.truncate(big, 1_000_000)
                with pytest.raises(http.client.IncompleteRead):
                    response.read()
        assert served.get("/big")[0] == 200
        assert served.stop() == (0, b"", b"")


def test_a_moved_folder_is_still_served(backend: str, tmp_path: Path) -> None:
    """The folder is held open: it may be renamed while it is served."""
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"a")
    with serving(folder, backend) as served:
        folder.rename(tmp_path / "new")
        assert served.get("/a.txt")[:2] == (200, b"a")
        assert b"a.txt" in served.get("/")[1]
        assert served.stop() == (0, b"", b"")


def test_swapped_links_never_lead_out(backend: str, tmp_path: Path) -> None:
    """A name that flips between a file, a link outside and a FIFO never shows the outside."""
    folder = tmp_path / "site"
    folder.mkdir()
    (tmp_path / "secret.txt").write_bytes(SECRET)
    (folder / "inside").write_bytes(b"inside")
    done = threading.Event()

    def flip() -> None:
        other = folder / "other"
        while not done.is_set():
            other.symlink_to("../secret.txt")
            other.replace(folder / "name")
            os.link(folder / "inside", other)
            other.replace(folder / "name")
            os.mkfifo(other)
            other.replace(folder / "name")

    flipper = threading.Thread(target=flip)
    with serving(folder, backend) as served:
        flipper.start()
        try:
            seen = {served.get("/name")[:2] for _ in range(400)}
        finally:
            done.set()
            flipper.join()
        assert {body for _, body in seen} <= {b"inside", b"404 Not Found\n"}
        assert served.stop() == (0, b"", b"")


def test_running_out_of_descriptors_is_503(backend: str, tmp_path: Path) -> None:
    """
    With no descriptor left a request gets 503, and the next one, with one again, its file.

    A connection that comes meanwhile waits to be accepted.
    """
    (tmp_path / "a.txt").write_bytes(b"a")
    with serving(tmp_path, backend) as served:
        with (
            contextlib.closing(served.connect()) as client,
            contextlib.closing(served.connect()) as other,
        ):
            client.request("GET", "/a.txt")
            client.getresponse().read()
            pid = served.process.pid
            before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))  # 0, 1, 2 are in use
            other.request("GET", "/a.txt")
            client.request("GET", "/a.txt")
            with client.getresponse() as response:
                assert response.status == 503
                response.read()
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
            client.request("GET", "/a.txt")
            assert client.getresponse().read() == b"a"
            # io_uring had looked at the limit before it was lowered.
            if other.getresponse().read() != b"a":
                other.request("GET", "/a.txt")
                assert other.getresponse().read() == b"a"
        assert served.stop() == (0, b"", b"")


def test_more_connections_than_may_be_wait_their_turn(backend: str, tmp_path: Path) -> None:
    """With --max-connections 2, a third is neither refused nor answered until one has ended."""
    (tmp_path / "a.txt").write_bytes(b"a")
    with serving(tmp_path, backend, ["--max-connections", "2"]) as served, ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(served.connect())) for _ in range(5)]
        for _ in range(2):
            for client in clients[:2]:
                client.request("GET", "/a.txt")
                assert client.getresponse().read() == b"a"
        for client in clients[2:]:
            client.request("GET", "/a.txt")
        for _ in range(20):
            clients[0].request("GET", "/a.txt")
            assert clients[0].getresponse().read() == b"a"
        for client in clients[2:]:
            assert not select.select([client.sock], [], [], 0)[0]
        for ended, client in enumerate(clients[2:]):
            clients[ended].close()
            assert client.getresponse().read() == b"a"
        clients[3].close()
        clients[4].close()
        assert served.get("/a.txt")[:2] == (200, b"a")
        assert served.stop() == (0, b"", b"")


def test_a_full_server_ends_in_order(backend: str, tmp_path: Path) -> None:
    """SIGTERM while as many connections are open as may be: the open ones end, and the server."""
    (tmp_path / "a.txt").write_bytes(b"a")
    with (
        serving(tmp_path, backend, ["--max-connections", "1"]) as served,
        contextlib.closing(served.connect()) as client,
    ):
        client.request("GET", "/a.txt")
        assert client.getresponse().read() == b"a"
        assert served.stop(signal.SIGTERM) == (0, b"", b"")


def test_ctrl_c_ends_it_in_the_middle(backend: str, tmp_path: Path) -> None:
    """Ctrl-C with connections idle, reading a head and sending a body: status 0, not a word.

    The one whose body nobody reads lasts as long as the grace, and no longer.
    """
    with (tmp_path / "big").open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    with (
        serving(tmp_path, backend, ["--grace", "0.3"]) as served,
        contextlib.ExitStack() as stack,
    ):
        for wire in (b"", b"GET / HT", b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n"):
            client = socket.create_connection((served.host, served.port), timeout=50)
            stack.enter_context(client)
            client.sendall(wire)
        assert client.recv(1) == b"H"
        assert served.stop(signal.SIGINT) == (0, b"", b"")


def test_ipv6_urls_have_brackets(backend: str, tmp_path: Path) -> None:
    """The start line's URL can be opened, also for IPv6."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"no IPv6 loopback: {error}")
    (tmp_path / "a.txt").write_bytes(b"a")
    with serving(tmp_path, backend, ["--host", "::1"]) as served:
        assert "http://[::1]:" in served.line
        assert served.get("/a.txt")[1] == b"a"


# --- what cannot begin ---------------------------------------------------------------------------


def refused(*argv: str) -> str:
    """Run the command; it must fail with status 2 and one line, which is returned."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "uringio", *argv],
        capture_output=True, timeout=50, check=False, env=FreshPython.environment(),
    )  # fmt: skip
    assert run.returncode == 2, run
    assert run.stdout == b""
    lines = run.stderr.decode().splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("uringio serve: ")
    return lines[0].removeprefix("uringio serve: ")


def test_a_port_in_use_is_one_line(backend: str, tmp_path: Path) -> None:
    """Somebody has the port: one line says which, why, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refused("serve", str(tmp_path), "--port", port, "--backend", backend)
    assert line == (
        f"cannot listen on 127.0.0.1 port {port}: Address already in use; "
        "--port takes another, --port 0 any that is free"
    )


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    """No such folder, or not a folder: one line says which, and why."""
    missing = tmp_path / "missing"
    assert refused("serve", str(missing)) == f"cannot serve {missing}: No such file or directory"
    missing.write_bytes(b"")
    assert refused("serve", str(missing)) == f"cannot serve {missing}: Not a directory"


def test_a_bad_host_is_one_line(tmp_path: Path) -> None:
    """An address that is not this machine's, or none: one line."""
    line = refused("serve", str(tmp_path), "--host", "192.0.2.1", "--port", "0")
    assert line == (
        "cannot listen on 192.0.2.1 port 0: Cannot assign requested address; "
        "--host takes an address of this machine, 0.0.0.0 or :: all of them"
    )
    line = refused("serve", str(tmp_path), "--host", "", "--port", "0")
    assert line.startswith("cannot listen on '' port 0: ")


def test_an_odd_name_of_a_folder_is_one_line(tmp_path: Path) -> None:
    """A name with a line's end, or none, is quoted: the message stays one line and says which."""
    odd = str(tmp_path / "a\nb")
    said = refused("serve", odd)
    assert said == f"cannot serve $'{tmp_path}/a\\nb': No such file or directory"
    assert refused("serve", "") == "cannot serve '': No such file or directory"


@pytest.mark.parametrize("argv", [["--port", "70000"], ["--port", "x"], ["--backend", "iocp"], []])
def test_bad_usage_is_status_2(argv: list[str]) -> None:
    """Bad arguments are argparse's to report; no command at all shows the help."""
    run = subprocess.run(
        [sys.executable, "-m", "uringio", *(["serve", ".", *argv] if argv else [])],
        capture_output=True, timeout=50, check=False, env=FreshPython.environment(),
    )  # fmt: skip
    assert run.returncode == 2
    assert b"usage: uringio" in run.stderr
    assert b"Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (
            ["serve", "--port", "x"],
            "argument --port: 'x' is not a whole number",
        ),
        (["serve", "--workers", "2.5"], "argument --workers: '2.5' is not a whole number"),
        (["serve", "--grace", "x"], "argument --grace: 'x' is not a number of seconds"),
        (["cp", "-x", "a", "b"], "uringio cp: error: unrecognized arguments: -x"),
        (["probe", "more"], "uringio probe: error: unrecognized arguments: more"),
    ],
)
def test_bad_usage_says_what_is_wrong(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words of the user's, under the usage of the command that was called."""
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"usage: uringio {argv[0]} ")
    assert said.endswith(told + "\n")


def test_help_is_status_0() -> None:
    """Asking for help is no error, and loads neither the server nor h11."""
    code = """
        import sys
        from uringio.cli import main
        assert main(["--help"]) == 0
        assert main(["serve", "--help"]) == 0
        assert not {"h11", "attrs", "uringio.cli.serve"} & set(sys.modules)
    """
    run = FreshPython()(code).check()
    assert "serve" in run.stdout
