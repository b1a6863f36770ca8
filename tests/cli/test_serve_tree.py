"""The first promise of the command: a big tree, by curl, 32 requests at a time, byte for byte."""

import filecmp
import math
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.site import serving

MIB = 1024 * 1024
FILES_COUNT = 500
BIG_COUNT = 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl"),
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
    assert ("anon_inode:[eventpoll]" in targets) == (backend == "epoll")
