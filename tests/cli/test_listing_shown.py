"""The listing page as a browser shows it: a headless Chromium, light and dark."""

import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from tests.cli.site import serving

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome")
     if (found := shutil.which(name)) is not None),
    None,
)  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to show the page with"),
]

WIDTH, HEIGHT = 800, 500


def browse(tmp_path: Path, url: str, *options: str) -> bytes:
    """Open *url* and let the browser do what *options* say; return what it printed."""
    assert CHROMIUM is not None
    run = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--no-first-run",
         f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={WIDTH},{HEIGHT}",
         *options, url],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    return run.stdout


def pixels(path: Path) -> list[bytes]:
    """Read a PNG of 8 bits a channel: the rows, three bytes a pixel."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, packed, width, height, channels = 8, b"", 0, 0, 0
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunk = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack_from(">IIBB", chunk)
            assert depth == 8
            channels = {2: 3, 6: 4}[colour]
        elif kind == b"IDAT":
            packed += chunk
        at += 12 + length
    raw, stride = zlib.decompress(packed), width * channels
    rows, before = [], bytes(stride)
    for index in range(height):
        start = index * (stride + 1)
        before = _unfilter(raw[start], bytearray(raw[start + 1 : start + 1 + stride]), before,
                           channels)  # fmt: skip
        rows.append(b"".join(before[x : x + 3] for x in range(0, stride, channels)))
    return rows


def _unfilter(kind: int, row: bytearray, above: bytes, channels: int) -> bytes:
    for x, value in enumerate(row):
        left = row[x - channels] if x >= channels else 0
        up = above[x]
        corner = above[x - channels] if x >= channels else 0
        if kind == 4:
            guess = left + up - corner
            distances = [(abs(guess - one), one) for one in (left, up, corner)]
            predicted = min(distances, key=lambda pair: pair[0])[1]
        else:
            predicted = (0, left, up, (left + up) // 2)[kind]
        row[x] = (value + predicted) & 255
    return bytes(row)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    (site / "pictures").mkdir(parents=True)
    for name, size in (("notes.txt", 1200), ("big.bin", 3_000_000), ("a b & c.md", 12)):
        (site / name).write_bytes(bytes(size))
    return site


@pytest.mark.parametrize(("scheme", "is_dark"), [("1", False), ("0", True)], ids=["light", "dark"])
def test_the_page_is_light_or_dark_as_the_reader_is(
    tmp_path: Path, folder: Path, scheme: str, *, is_dark: bool
) -> None:
    """The page fills the window in the reader's scheme, with lines of text on it."""
    shot = tmp_path / "page.png"
    with serving(folder, "epoll") as served:
        browse(
            tmp_path,
            f"http://{served.host}:{served.port}/?sort=size&order=desc",
            f"--blink-settings=preferredColorScheme={scheme}",
            f"--screenshot={shot}",
        )
    rows = pixels(shot)
    assert len(rows) == HEIGHT
    assert len(rows[0]) == WIDTH * 3
    ground = rows[2][:3]
    assert (max(ground) < 60) == is_dark
    assert (min(ground) > 200) != is_dark
    # The table: an edge, and rows that hold more than one colour.
    colours = [len({row[at : at + 3] for at in range(0, len(row), 3)}) for row in rows]
    assert sum(count > 8 for count in colours) > 60


def test_the_browser_reads_the_page(tmp_path: Path, folder: Path) -> None:
    """What a browser makes of the page has the names, the order asked for, and no script."""
    with serving(folder, "epoll") as served:
        page = browse(
            tmp_path,
            f"http://{served.host}:{served.port}/?sort=size&order=desc",
            "--dump-dom",
        ).decode()
        assert "<script" not in page
        names = ["pictures/", "big.bin", "notes.txt", "a b &amp; c.md"]
        places = [page.index(f">{name}</a>") for name in names]
        assert places == sorted(places)
        assert ">2.9 MiB</td>" in page
        # And a file that it opens is the file.
        shown = browse(tmp_path, f"http://{served.host}:{served.port}/a%20b%20%26%20c.md",
                       "--dump-dom")  # fmt: skip
        assert b"<pre" in shown or b"<body" in shown
