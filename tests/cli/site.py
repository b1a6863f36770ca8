"""A folder to serve, the command as a subprocess, and HTTP clients of few words."""

import contextlib
import http.client
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fresh import FreshPython

SECRET = b"outside the served folder"


@dataclass
class Served:
    """A running ``uringio serve``."""

    process: subprocess.Popen[bytes]
    folder: Path
    host: str
    port: int
    line: str
    backend: str
    _drained: tuple[bytes, bytes] | None = field(default=None)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=50)

    def get(self, target: str, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
        """Fetch *target* as written; the status, the body, the fields with names in lower case."""
        with contextlib.closing(self.connect()) as client:
            client.request(method, target)
            with client.getresponse() as response:
                fields = {name.lower(): value for name, value in response.getheaders()}
                return response.status, response.read(), fields

    def exchange(self, data: bytes) -> bytes:
        """Send *data*, end, and read until the server closes."""
        with socket.create_connection((self.host, self.port), timeout=50) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def fd_targets(self) -> list[str]:
        """What the server's descriptors are."""
        targets = []
        folder = Path(f"/proc/{self.process.pid}/fd")
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                targets.append(os.readlink(folder / name))
        return targets

    def stop(self, number: int = signal.SIGINT) -> tuple[int, bytes, bytes]:
        """Send a signal and return the exit status, the rest of stdout, and stderr."""
        if self._drained is None:
            self.process.send_signal(number)
            self._drained = self.process.communicate(timeout=50)
        return self.process.returncode, *self._drained


@contextlib.contextmanager
def serving(
    folder: Path,
    backend: str,
    options: Sequence[str] = (),
    *,
    quiet: bool = True,
    prefix: Sequence[str] = (),
    warnings: str = "error",
) -> Iterator[Served]:
    """
    Serve *folder* in a subprocess on a free port; kills it at the end if it was not stopped.

    *prefix* is a command that runs the command, as `setpriv` does.
    """
    if quiet:
        options = ["--quiet", *options]
    process = subprocess.Popen(
        [*prefix, sys.executable, "-W", warnings, "-X", "faulthandler", "-m", "uringio", "serve",
         str(folder), "--port", "0", "--backend", backend, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=FreshPython.environment(),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        found = re.search(r"http://(\S+):(\d+)/ ", line)
        if found is None:
            process.kill()
            raise AssertionError(f"no URL in {line!r}\n{process.communicate()[1].decode()}")
        host = found[1].strip("[]")
        yield Served(process, folder, host, int(found[2]), line, backend)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


SIZES = (0, 1, 1000, 32767, 32768, 32769, 131071, 131072, 131073, 1_000_003, 5_000_011)


def make_site(folder: Path) -> dict[str, bytes]:
    """
    Fill *folder*; return what each target holds.

    The folder stands beside ``secret.txt`` and ``secrets/``, and links lead there.
    """
    chance = random.Random(folder.name)
    secrets = folder.parent / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "inner.txt").write_bytes(SECRET)
    (folder.parent / "secret.txt").write_bytes(SECRET)
    # A neighbour whose name begins with the folder's: a prefix test without its slash lets it in.
    neighbour = folder.parent / (folder.name + "-private")
    neighbour.mkdir()
    (neighbour / "secret.txt").write_bytes(SECRET)

    folder.mkdir()
    files: dict[str, bytes] = {}
    (folder / "sizes").mkdir()
    for size in SIZES:
        files[f"/sizes/{size}.bin"] = chance.randbytes(size)
    (folder / "deep" / "er").mkdir(parents=True)
    files["/deep/er/file.txt"] = b"deep\n"
    (folder / "indexed").mkdir()
    files["/indexed/index.html"] = b"<p>index\n"
    (folder / "empty").mkdir()
    for target, content in files.items():
        (folder / target[1:]).write_bytes(content)

    (folder / "names").mkdir()
    odd = {
        "/names/a%20b%26%3Cc%3E%22%27.txt": b"a b&<c>\"'.txt",
        "/names/%C3%A4%E2%82%AC.txt": "ä€.txt".encode(),
        "/names/%FF%FE": b"\xff\xfe",
        "/names/%0A%0D": b"\n\r",
        "/names/back%5Cslash": b"back\\slash",
        "/names/..%5C..%5Csecret.txt": b"..\\..\\secret.txt",
        "/names/100%25": b"100%",
        "/names/%2541": b"%41",
        "/names/a%3Ab%3Fc%23d": b"a:b?c#d",
        "/names/...": b"...",
        "/names/.hidden": b".hidden",
    }
    for target, name in odd.items():
        files[target] = b"named " + name
        (folder / "names" / os.fsdecode(name)).write_bytes(files[target])

    links = folder / "links"
    links.mkdir()
    (links / "in").symlink_to("../deep/er/file.txt")
    (links / "in-absolute").symlink_to(folder / "deep" / "er" / "file.txt")
    (links / "in-folder").symlink_to("../deep")
    (links / "in-by-outside").symlink_to(Path("../..") / folder.name / "deep/er/file.txt")
    files["/links/in"] = files["/links/in-folder/er/file.txt"] = b"deep\n"
    (links / "to-fifo").symlink_to("../fifo")
    (links / "to-socket").symlink_to("../socket")
    (links / "out-fd").symlink_to("/proc/self/fd/0")
    (links / "out").symlink_to("../../secret.txt")
    (links / "out-absolute").symlink_to(folder.parent / "secret.txt")
    (links / "out-folder").symlink_to("../../secrets")
    (links / "out-neighbour").symlink_to(f"../../{folder.name}-private")
    (links / "out-root").symlink_to("/")
    (links / "out-up").symlink_to("../..")
    (links / "out-device").symlink_to("/dev/null")
    (links / "out-proc").symlink_to("/proc/self/environ")
    (links / "out-cwd").symlink_to("/proc/self/cwd")
    (links / "broken").symlink_to("nowhere")
    (links / "loop").symlink_to("loop")

    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        here = os.open(folder, os.O_RDONLY)
        try:
            unix.bind(f"/proc/self/fd/{here}/socket")  # a path of any length in 108 bytes
        finally:
            os.close(here)
    return files
