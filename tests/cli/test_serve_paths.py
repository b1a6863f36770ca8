"""Which names the server opens: chains of links, devices, FIFOs, what may not be read, renames."""

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from tests.cli.site import SECRET, serving

LINKS_MAX = 40  # MAXSYMLINKS of the kernel


def test_links_in_a_row_are_followed_to_the_kernels_limit(backend: str, tmp_path: Path) -> None:
    """Forty links lead to their file; with one more, and in a circle, there is nothing."""
    (tmp_path / "file.txt").write_bytes(b"found")
    (tmp_path / "1").symlink_to("file.txt")
    for length in range(2, LINKS_MAX + 2):
        (tmp_path / f"{length}").symlink_to(f"{length - 1}")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with serving(tmp_path, backend) as served:
        assert served.get(f"/{LINKS_MAX}")[:2] == (200, b"found")
        assert served.get(f"/{LINKS_MAX + 1}")[0] == 404
        assert served.get("/a")[0] == 404
        page = served.get("/")[1]
        assert b">40<" in page
        assert b">41<" not in page
        assert b">a<" not in page
        assert served.stop() == (0, b"", b"")


def test_devices_are_not_there(backend: str, tmp_path: Path) -> None:
    """A device in the folder, with a driver or without, is neither served nor listed."""
    try:
        os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(tmp_path / "nothing", stat.S_IFBLK | 0o666, os.makedev(240, 200))
    except PermissionError:
        pytest.skip("making devices takes a privilege")
    with serving(tmp_path, backend) as served:
        for name in ("null", "nothing"):
            status, body, _ = served.get(f"/{name}")
            # A file system mounted without devices refuses to open them before anybody looks.
            assert status in {403, 404}
            assert name.encode() not in served.get("/")[1]
            assert body == {403: b"403 Forbidden\n", 404: b"404 Not Found\n"}[status]
        assert served.stop() == (0, b"", b"")


def test_a_fifo_with_a_writer_keeps_what_is_written(backend: str, tmp_path: Path) -> None:
    """Asking for a FIFO neither waits for a writer nor takes a byte from a reader."""
    os.mkfifo(tmp_path / "fifo")
    with serving(tmp_path, backend) as served:
        assert served.get("/fifo")[0] == 404
        both = os.open(tmp_path / "fifo", os.O_RDWR | os.O_NONBLOCK)
        try:
            os.write(both, b"kept")
            assert served.get("/fifo")[:2] == (404, b"404 Not Found\n")
            assert os.read(both, 100) == b"kept"
        finally:
            os.close(both)
        assert served.stop() == (0, b"", b"")


def _as_anybody() -> list[str]:
    """Return what runs a command without root's privilege to read everything."""
    if os.geteuid() != 0:
        return []
    found = shutil.which("setpriv")
    prefix = [found or "", "--bounding-set", "-dac_override,-dac_read_search", "--"]
    if found is None or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("root reads everything, and there is no setpriv to make it stop")
    return prefix


def test_what_may_not_be_read_is_403(backend: str, tmp_path: Path) -> None:
    """Unreadable files and folders are 403; an index in a folder that only may not be listed."""
    prefix = _as_anybody()
    (tmp_path / "file.txt").write_bytes(b"hidden")
    (tmp_path / "file.txt").chmod(0)
    for name, mode in (("closed", 0), ("passed", 0o111)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_bytes(b"index")
        (tmp_path / name / "a.txt").write_bytes(b"a")
        (tmp_path / name).chmod(mode)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare").chmod(0o111)
    try:
        with serving(tmp_path, backend, prefix=prefix) as served:
            assert served.get("/file.txt")[:2] == (403, b"403 Forbidden\n")
            assert served.get("/closed")[0] == 301
            for target in ("/closed/", "/closed/a.txt", "/bare/"):
                assert served.get(target)[0] == 403, target
            assert served.get("/passed/")[:2] == (200, b"index")
            assert served.get("/passed/a.txt")[:2] == (200, b"a")
            assert served.stop() == (0, b"", b"")
    finally:
        for name in ("closed", "passed", "bare"):
            (tmp_path / name).chmod(0o755)


def test_renames_around_a_link_are_waited_out(backend: str, tmp_path: Path) -> None:
    """
    A link with `..` in it is followed although names are changed all the time.

    The kernel answers EAGAIN when something was renamed while it went up; that is ours to retry.
    """
    folder = tmp_path / "site"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    (folder / "b" / "file.txt").write_bytes(b"found")
    (folder / "a" / "link").symlink_to("../b/file.txt")
    (folder / "a" / "out").symlink_to("../../secret.txt")
    (tmp_path / "secret.txt").write_bytes(SECRET)
    (tmp_path / "x").mkdir()
    done = threading.Event()

    def rename() -> None:
        while not done.is_set():
            (tmp_path / "x").rename(tmp_path / "y")
            (tmp_path / "y").rename(tmp_path / "x")

    renamer = threading.Thread(target=rename)
    with serving(folder, backend) as served, contextlib.closing(served.connect()) as client:
        renamer.start()
        try:
            for _ in range(200):
                client.request("GET", "/a/link")
                answer = client.getresponse()
                assert (answer.status, answer.read()) == (200, b"found")
                client.request("GET", "/a/out")
                answer = client.getresponse()
                assert (answer.status, answer.read()) == (404, b"404 Not Found\n")
        finally:
            done.set()
            renamer.join()
        client.close()
        assert served.stop() == (0, b"", b"")


def test_a_socket_that_somebody_serves_is_not_there(backend: str, tmp_path: Path) -> None:
    """A Unix socket is no file, be there a server at it or not."""
    with contextlib.chdir(tmp_path), socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        listening.listen()
        with serving(tmp_path, backend) as served:
            assert served.get("/socket")[:2] == (404, b"404 Not Found\n")
            assert b"socket" not in served.get("/")[1]
            assert served.stop() == (0, b"", b"")
