"""The listing as a browser has it: a headless Chromium opens, sorts, downloads, light and dark."""

import base64
import fcntl
import json
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.site import Served, serving

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

WIDTH, HEIGHT = 800, 360
PATIENCE_S = 100.0
PIPED = "import os, sys; os.dup2({}, 3); os.dup2({}, 4); os.execv(sys.argv[1], sys.argv[1:])"


class Browser:
    """
    A headless Chromium with one page, told what to do through its debugging pipe.

    The pipe carries JSON objects, each ended by a NUL: commands and answers with a number, events
    without.
    """

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        here_fd, to_write = os.pipe()
        to_read, there_fd = os.pipe()
        # The browser wants 3 and 4; from above both, neither hides the other.
        fds = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (here_fd, there_fd)]
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-S", "-c", PIPED.format(*fds), CHROMIUM,
                 "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                 "--disable-background-networking", "--disable-component-update",
                 "--no-first-run", "--remote-debugging-pipe", f"--user-data-dir={profile}",
                 f"--window-size={WIDTH},{HEIGHT}", "about:blank"],
                pass_fds=fds, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        finally:
            for fd in (here_fd, there_fd, *fds):
                os.close(fd)
        self._write_fd, self._read_fd = to_write, to_read
        self._came = b""
        self._count = 0
        self._session = ""
        self.events: list[dict[str, object]] = []
        try:
            page = self.tell("Target.createTarget", url="about:blank")["targetId"]
            session = self.tell("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
            assert isinstance(session, str)
            self._session = session
            self.tell("Page.enable")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the browser."""
        os.close(self._write_fd)  # which is how it learns
        try:
            self.process.wait(50)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self._read_fd)

    def _next(self) -> dict[str, object]:
        end = time.monotonic() + PATIENCE_S
        while b"\0" not in self._came:
            ready = select.select([self._read_fd], [], [], max(0.0, end - time.monotonic()))[0]
            assert ready, "the browser does not answer"
            data = os.read(self._read_fd, 1 << 20)
            assert data, "the browser has ended"
            self._came += data
        line, _, self._came = self._came.partition(b"\0")
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    def tell(self, method: str, **parameters: object) -> dict[str, object]:
        """Give a command, and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write_fd, data) :]
        while True:
            answer = self._next()
            if "id" not in answer:
                self.events.append(answer)
            elif answer["id"] == self._count:
                assert "error" not in answer, answer
                result = answer["result"]
                assert isinstance(result, dict)
                return result

    def wait_for(self, method: str, **expected: object) -> dict[str, object]:
        """Wait for an event, with these parameters."""
        while True:
            while self.events:
                event = self.events.pop(0)
                found = event["params"]
                assert isinstance(found, dict)
                if event["method"] == method and expected.items() <= found.items():
                    return found
            self.events.append(self._next())

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is there."""
        self.events.clear()
        assert "errorText" not in self.tell("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")

    def ask(self, expression: str) -> object:
        """Return the value of an expression on the page."""
        result = self.tell("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        value = result["result"]
        assert isinstance(value, dict)
        return value.get("value")

    def click(self, href: str) -> None:
        """Follow a link of the page."""
        self.events.clear()
        self.ask(f"document.querySelector('a[href=\"{href}\"]').click()")

    def shoot(self) -> bytes:
        """Return what is to be seen, as a PNG."""
        data = self.tell("Page.captureScreenshot", format="png")["data"]
        assert isinstance(data, str)
        return base64.b64decode(data)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start one browser for all tests."""
    browser = Browser(tmp_path_factory.mktemp("profile"))
    try:
        yield browser
    finally:
        browser.close()


def pixels(data: bytes) -> list[bytes]:
    """Read a PNG of 8 bits a channel: the rows, three bytes a pixel."""
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


TEXT = "some <b>text</b>, \u65e5\n" * 55
LONG = "a-long-name-without-any-break-" * 8 + ".bin"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve a folder with a few names of all kinds."""
    site = tmp_path_factory.mktemp("around") / "site"
    (site / "pictures").mkdir(parents=True)
    chance = random.Random(5)
    (site / "notes.txt").write_text(TEXT)
    for name, size in (("big.bin", 3_000_000), ("a b & <i>c.md", 12),
                       (LONG, 1), ("\u65e5\u672c.txt", 2), ("\u05e2\u05d1.txt", 3)):  # fmt: skip
        (site / name).write_bytes(chance.randbytes(size))
    with serving(site, "epoll") as found:
        yield found
        assert found.stop() == (0, b"", b"")


def url(served: Served, target: str) -> str:
    return f"http://{served.host}:{served.port}{target}"


@pytest.mark.parametrize("width", [800, 380], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_light_or_dark_as_the_reader_is(
    browser: Browser, served: Served, scheme: str, width: int
) -> None:
    """The page fills the window in the reader's scheme, with lines of text, and no further."""
    is_dark = scheme == "dark"
    browser.tell(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    browser.tell(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=HEIGHT, deviceScaleFactor=1, mobile=width < 500,
    )  # fmt: skip
    browser.open(url(served, "/?sort=size&order=desc"))
    rows = pixels(browser.shoot())
    assert len(rows) == HEIGHT
    assert len(rows[0]) == width * 3
    ground = rows[2][:3]
    assert (max(ground) < 60) == is_dark
    assert (min(ground) > 200) != is_dark
    # The table: an edge, and rows that hold more than one colour.
    colours = [len({row[at : at + 3] for at in range(0, len(row), 3)}) for row in rows]
    assert sum(count > 8 for count in colours) > 60
    # A long name is broken, not the page: nothing is to be reached by scrolling sideways only.
    assert browser.ask("document.documentElement.scrollWidth") == width
    # Sizes end in one line, below each other; so do dates, where there is room for them.
    for cell in (2, 3):
        edges = browser.ask(
            f"[...new Set([...document.querySelectorAll('tr > :nth-child({cell})')]"
            ".filter(one => one.offsetWidth).map(one => one.getBoundingClientRect().right))].length"
        )
        assert edges == (0 if cell == 3 and width < 500 else 1)


def test_the_page_is_what_it_says(browser: Browser, served: Served) -> None:
    """What a browser makes of the page has the names, the order asked for, and no script."""
    browser.open(url(served, "/?sort=size&order=desc"))
    assert browser.ask("document.title") == "/"
    assert browser.ask("document.scripts.length") == 0
    assert browser.ask("document.querySelectorAll('td i').length") == 0
    names = browser.ask("[...document.querySelectorAll('td a')].map(one => one.textContent)")
    assert names == ["pictures/", "big.bin", "notes.txt", "a b & <i>c.md", "\u05e2\u05d1.txt",
                     "\u65e5\u672c.txt", LONG]  # fmt: skip
    sizes = browser.ask("[...document.querySelectorAll('td.n:nth-child(2)')].map(o => o.innerText)")
    assert sizes == ["", "2.9 MiB", "1.2 KiB", "12 B", "3 B", "2 B", "1 B"]
    browser.click("./?sort=size&order=asc")
    browser.wait_for("Page.loadEventFired")
    turned = browser.ask("[...document.querySelectorAll('td a')].map(one => one.textContent)")
    assert turned == [names[0], *reversed(names[1:])]
    browser.click("./pictures/?sort=size&order=asc")
    browser.wait_for("Page.loadEventFired")
    assert "This folder is empty." in str(browser.ask("document.body.innerText"))
    assert browser.ask("document.title") == "/pictures/"


def test_what_the_browser_downloads_is_the_file(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    """A click on a name of the listing brings its bytes; a text is shown as it is."""
    browser.tell(
        "Browser.setDownloadBehavior",
        behavior="allow", downloadPath=str(tmp_path), eventsEnabled=True,
    )  # fmt: skip
    for name, href in (("big.bin", "./big.bin"), (LONG, f"./{LONG}")):
        browser.open(url(served, "/"))
        browser.click(href)
        browser.wait_for("Browser.downloadProgress", state="completed")
        assert (tmp_path / name).read_bytes() == (served.folder / name).read_bytes()
    browser.open(url(served, "/"))
    browser.click("./notes.txt")
    browser.wait_for("Page.loadEventFired")
    assert str(browser.ask("document.body.innerText")).strip() == TEXT.strip()
