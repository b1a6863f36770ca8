"""What a file server says: targets, types, dates, pages."""

import html.parser
import time
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uringio.proto.listing import Entry, Order, listing_page, size_text
from uringio.proto.static import TargetError, content_type, http_date, parse_target


@pytest.mark.parametrize(
    ("target", "segments", "is_folder"),
    [
        ("/", (), True),
        ("/a", (b"a",), False),
        ("/a/", (b"a",), True),
        ("/a/b.txt?x=/../y", (b"a", b"b.txt"), False),
        ("/a//b", (b"a", b"b"), False),
        ("//evil.example/x", (b"evil.example", b"x"), False),
        ("/%41%20b", (b"A b",), False),
        ("/%C3%A4", ("ä".encode(),), False),
        ("/%ff", (b"\xff",), False),
        ("/...", (b"...",), False),
        ("/..a", (b"..a",), False),
        ("/a+b", (b"a+b",), False),
        ("/a%3Fb%23c", (b"a?b#c",), False),
        ("/%5c..%5cx", (b"\\..\\x",), False),
        ("/..%5c..%5cetc", (b"..\\..\\etc",), False),
        ("/%252e%252e", (b"%2e%2e",), False),
        ("http://h/x/", (b"x",), True),
        ("HTTPS://h:1/x", (b"x",), False),
        ("http://h", (), True),
        ("http://h?q", (), True),
    ],
)
def test_targets_name_files(target: str, segments: tuple[bytes, ...], is_folder: bool) -> None:
    """A target gives the decoded names along its path."""
    parsed = parse_target(target)
    assert parsed.segments == segments
    assert parsed.is_folder == is_folder


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("*", 400),
        ("a", 400),
        ("", 400),
        ("host:80", 400),
        ("ftp://h/x", 400),
        ("/a#b", 400),
        ("/%", 400),
        ("/%4", 400),
        ("/%zz", 400),
        ("/%+1", 400),
        ("/%00", 400),
        ("/a%00.txt", 400),
        ("/..", 404),
        ("/../etc/passwd", 404),
        ("/a/../b", 404),
        ("/./a", 404),
        ("/%2e%2e/x", 404),
        ("/%2E%2e/x", 404),
        ("/.%2e/x", 404),
        ("/a%2fb", 404),
        ("/..%2f..%2fetc%2fpasswd", 404),
        ("http://h/../x", 404),
        ("http:///x", 400),
        ("http://:80/x", 400),
        ("http://u@h/x", 400),
        ("http://h:p/x", 400),
        ("http://[h/x", 400),
        ("http://h\\x/y", 400),
    ],
)
def test_targets_that_name_nothing(target: str, status: int) -> None:
    """What is malformed or could climb is refused by its form."""
    with pytest.raises(TargetError) as caught:
        parse_target(target)
    assert caught.value.status == status


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=4), st.booleans())
def test_no_target_climbs(names: list[bytes], encode_all: bool) -> None:
    """Names of any bytes either come back as they are, or are refused."""
    escaped = [
        "".join(
            chr(byte) if not encode_all and chr(byte).isascii() and chr(byte).isalnum()
            else f"%{byte:02x}"
            for byte in name
        )
        for name in names
    ]  # fmt: skip
    target = "/" + "/".join(escaped)
    if any(b"\0" in name or b"/" in name or name in {b".", b".."} for name in names):
        with pytest.raises(TargetError):
            parse_target(target)
    else:
        parsed = parse_target(target)
        assert parsed.segments == tuple(names)
        assert parsed.path == (b"/".join(names) or b".")


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/a", b"/a/"),
        ("/a?x=1", b"/a/?x=1"),
        ("//evil.example", b"/evil.example/"),
        ("///evil.example//x", b"/evil.example/x/"),
        ("/%5cevil.example", b"/%5Cevil.example/"),
        ("http://evil.example/a", b"/a/"),
        ("/%0d%0aX:y", b"/%0D%0AX%3Ay/"),
        ("/%ff", b"/%FF/"),
    ],
)
def test_redirects_stay_here(target: str, location: bytes) -> None:
    """Where a folder is said to be is always a path on this host."""
    found = parse_target(target).folder_location
    assert found == location
    assert urlsplit(urljoin("http://here/", found.decode())).netloc == "here"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"index.html", b"text/html; charset=utf-8"),
        (b"INDEX.HTM", b"text/html; charset=utf-8"),
        (b"a.txt", b"text/plain; charset=utf-8"),
        (b"a.md", b"text/markdown; charset=utf-8"),
        (b"a.js", b"text/javascript; charset=utf-8"),
        (b"a.css", b"text/css; charset=utf-8"),
        (b"a.json", b"application/json; charset=utf-8"),
        (b"a.svg", b"image/svg+xml; charset=utf-8"),
        (b"a.png", b"image/png"),
        (b"a.wasm", b"application/wasm"),
        (b"a.woff2", b"font/woff2"),
        (b"a.tar.gz", b"application/gzip"),
        (b"a.tgz", b"application/gzip"),
        (b"a.unknown", b"application/octet-stream"),
        (b"Makefile", b"application/octet-stream"),
        (b".html", b"application/octet-stream"),
        (b"a.", b"application/octet-stream"),
        (b"a.\xff\r\n", b"application/octet-stream"),
    ],
)
def test_types_follow_the_ending(name: bytes, kind: bytes) -> None:
    """The type depends on the ending alone; text says its charset."""
    assert content_type(name) == kind


@given(st.integers(-30610224000, 253402300799))
def test_dates_are_read_back(seconds: int) -> None:
    """Another parser finds the same second (from the year 1000, before which it guesses)."""
    assert int(parsedate_to_datetime(http_date(seconds).decode()).timestamp()) == seconds


def test_dates_out_of_range_are_moved_in() -> None:
    """A file system can hold any time; a header cannot."""
    assert http_date(2**62).endswith(b"31 Dec 9999 23:59:59 GMT")
    assert http_date(-(2**62)).endswith(b" 01 Jan 0001 00:00:00 GMT")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (10 * 1024, "10 KiB"),
        (1023487, "999 KiB"),
        (1023489, "1.0 MiB"),
        (64 * 1024**2, "64 MiB"),
        (3 * 1024**5, "3.0 PiB"),
        (2**63, "8.0 EiB"),
    ],
)
def test_sizes_have_three_digits(size: int, text: str) -> None:
    """Sizes are rounded to two or three digits with a binary unit."""
    assert size_text(size) == text


class Links(html.parser.HTMLParser):
    """Collect (href, text) of every link, and every tag."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self._href: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "a":
            self._href = dict(attrs)["href"]

    def handle_data(self, data: str) -> None:
        if self._href is not None:
            self.links.append((self._href, data))
            self._href = None


def parse(page: bytes) -> Links:
    links = Links()
    links.feed(page.decode("utf-8"))
    return links


def test_pages_list_folders_first() -> None:
    """Folders before files, each by name; sizes of files only; the way up when there is one."""
    entries = [
        Entry(b"b.txt", False, 1536, 0),
        Entry(b"z", True, 4096, 0),
        Entry(b"a.txt", False, 3, int(time.mktime((2024, 2, 29, 12, 0, 0, 0, 0, 0)))),
    ]
    page = listing_page([], entries)
    assert parse(page).links == [
        ("/", "/"), ("./?sort=name&order=desc", "Name ▴"), ("./?sort=size&order=desc", "Size"),
        ("./?sort=time&order=desc", "Modified"), ("./z/", "z/"),
        ("./a.txt", "a.txt"), ("./b.txt", "b.txt"),
    ]  # fmt: skip
    assert b'<td class="n">1.5 KiB</td>' in page
    assert b"4.0 KiB" not in page
    assert b"2024-02-29" in page
    below = parse(listing_page([b"x", b"y"], entries))
    assert below.links[:4] == [
        ("/", "/"),
        ("/x/", "x"),
        ("/x/y/", "y"),
        ("./?sort=name&order=desc", "Name ▴"),
    ]


@given(
    st.lists(
        st.binary(min_size=1, max_size=30).filter(lambda n: b"/" not in n and b"\0" not in n),
        unique=True, max_size=5,
    ),
    st.lists(st.sampled_from([b"<b>", b'"', b"a&b", b"\xff", "ü".encode()]), max_size=3),
)  # fmt: skip
def test_pages_link_to_what_they_list(names: list[bytes], folder: list[bytes]) -> None:
    """Every link, resolved as a browser does, names the entry's bytes; names bring in no tag."""
    page = parse(listing_page(folder, [Entry(name, False, 1, 0) for name in names]))
    assert page.tags <= {
        "html", "head", "meta", "title", "style", "body", "h1", "table", "thead", "tbody", "tr",
        "th", "td", "a", "svg", "symbol", "path", "use", "i", "footer",
    }  # fmt: skip
    base = "http://here" + "".join(f"/{quote_all(name)}" for name in folder) + "/"
    found = set()
    for href, _ in page.links:
        path = urlsplit(urljoin(base, href)).path
        found.add(unquote_to_bytes(path.rpartition("/")[2]))
    expected = {name for name in names if name not in {b".", b".."}}
    assert expected <= found


def test_names_cannot_look_like_others() -> None:
    """Controls and marks that turn the writing direction are shown as signs of their own."""
    names = ["new\nline", "tab\there", "evil\u202etxt.exe", "\u2066a\u2069", "\x7f\x85"]
    page = listing_page([b"a\x1bb"], [Entry(name.encode(), False, 1, 0) for name in names]).decode()
    for shown in ("new\u240aline", "tab\u2409here", "evil\ufffdtxt.exe", "\ufffda\ufffd",
                  "\u2421\ufffd", "/a\u241bb/</title>"):  # fmt: skip
        assert shown in page
    assert not set(page) & set("\t\x1b\x7f\x85\u202e\u2066\u2069")
    assert "./evil%E2%80%AEtxt.exe" in page


def quote_all(name: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in name)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["D", "e", "a", "B", "c"]),
        ("?sort=name&order=desc", ["e", "D", "c", "B", "a"]),
        ("?sort=size", ["D", "e", "c", "a", "B"]),
        ("?sort=size&order=desc", ["D", "e", "B", "a", "c"]),
        ("?sort=time&order=asc", ["e", "D", "B", "a", "c"]),
        ("?order=desc&sort=time", ["D", "e", "c", "a", "B"]),
        ("?sort=other&order=up", ["D", "e", "a", "B", "c"]),
        ("?" + "&".join("sort=size" for _ in range(99)), ["D", "e", "a", "B", "c"]),
        ("?sort=<script>", ["D", "e", "a", "B", "c"]),
    ],
)
def test_pages_are_sorted_by_their_query(query: str, names: list[str]) -> None:
    """Name, size or time, either way; folders first; nonsense is the default and not echoed."""
    entries = [
        Entry(b"a", False, 2, 20), Entry(b"B", False, 3, 10), Entry(b"c", False, 1, 30),
        Entry(b"D", True, 0, 9), Entry(b"e", True, 0, 8),
    ]  # fmt: skip
    order = Order.parse(query)
    page = parse(listing_page([], entries, order))
    assert [text.strip("/") for href, text in page.links if href[:3] not in {"/", "./?"}][
        -5:
    ] == names
    assert "script" not in page.tags
    # Links to folders keep the order; asking for it again gives it again.
    kept = [href for href, text in page.links if text == "e/"]
    assert kept == [f"./e/{order.query}"]
    assert Order.parse(order.query) == order


def test_pages_sum_up() -> None:
    """The foot counts; an empty folder says that it is one."""
    page = listing_page([], [Entry(b"a", False, 1024, 0), Entry(b"d", True, 9, 0)])
    assert b"1 folder, 1 file, 1.0 KiB. Times are UTC." in page
    assert b"This folder is empty." in listing_page([], [])
