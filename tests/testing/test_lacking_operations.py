"""
Kernels that lack one operation: what stands in for it, found by asking the kernel.

What a thread or a copy can do instead is done so, and comes to the same.  What nothing on a ring
can do instead has the whole program run on another backend.
"""

import errno
import os
from collections import Counter
from dataclasses import replace

import pytest

import uringio
from tests.testing import programs
from uringio import fs, testing
from uringio._driver import current
from uringio._driver import op as o
from uringio._driver.uring_files import SHAPED
from uringio._driver.uring_rows import BY_DRIVER, CANCEL_HEAD, HEADS, SLOW_HEADS
from uringio._sys import constants as k
from uringio.errors import OpError, RingError
from uringio.files import open_beneath
from uringio.testing import PROFILES, Profile

BY_THREAD = {opcode: code for code, opcode in SHAPED.items() if code < o.DIRECT}
BY_COPY = {k.IORING_OP_SEND_ZC, k.IORING_OP_SENDMSG_ZC}
WITHOUT_SUBSTITUTE = (
    {head & 0xFF for head in (*HEADS, *SLOW_HEADS.values(), CANCEL_HEAD) if head != BY_DRIVER}
    - BY_COPY
    - BY_THREAD.keys()
)
NAMES = {value: name for name, value in vars(k).items() if name.startswith("IORING_OP_")}
TOP = "/tmp"


def without(opcode: int) -> Profile:
    newest = PROFILES["6.18"]
    return replace(newest, name=f"no {NAMES[opcode]}", opcodes=newest.opcodes - {opcode})


async def everything() -> list[object]:
    """Do what needs each operation that has a substitute, and tell what came of it."""
    told: list[object] = [current.driver().name]
    await fs.mkdir(f"{TOP}/d")
    async with await uringio.open_file(f"{TOP}/d/a", "w+b") as file:
        told.append(await file.writev_at(0, [b"one ", b"two"]))
        room = bytearray(3), bytearray(4)
        told.append((await file.readv_at(0, room), *map(bytes, room)))
        await file.fallocate(0, 100)
        told.append((await file.stat()).st_size)
        await file.truncate(5)
        told.append(await file.read_at(0, 100))
    await fs.rename(f"{TOP}/d/a", f"{TOP}/d/b")
    await fs.link(f"{TOP}/d/b", f"{TOP}/d/c")
    await fs.symlink("c", f"{TOP}/d/s")
    told.append((await fs.stat(f"{TOP}/d/s")).st_nlink)
    async with (
        await uringio.open_file(f"{TOP}/d", flags=os.O_DIRECTORY) as folder,
        await open_beneath(folder, "s") as file,
    ):
        told.append(await file.read_all())
    try:
        await fs.unlink(f"{TOP}/d/none")
    except OpError as error:
        told.append((error.errno, error.op))
    for name in ("b", "c", "s"):
        await fs.unlink(f"{TOP}/d/{name}")
    await fs.rmdir(f"{TOP}/d")
    return told + await sent_without_copying()


async def sent_without_copying() -> list[object]:
    told: list[object] = []
    async with (
        await uringio.listen_tcp("127.0.0.1", 8000) as listener,
        await uringio.connect_tcp("127.0.0.1", 8000) as client,
        await listener.accept() as server,
    ):
        told.append(await client.send_buffer(b"by it", zero_copy=True))
        told.append(await server.recv_exactly(5))
        told.append(await client.sendmsg([b"pie", b"ces"], zero_copy=True))
        told.append(await server.recv_exactly(6))
    return told


@pytest.fixture
def by_threads(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Count what was left to worker threads."""
    from uringio._driver.uring_files import ThreadCalls

    counted: Counter[int] = Counter()
    inner = ThreadCalls.begin

    def begin(self: ThreadCalls, op: o.Op[object]) -> int:
        counted[op.code] += 1
        return inner(self, op)

    monkeypatch.setattr(ThreadCalls, "begin", begin)
    return counted


def test_each_operation_that_has_a_substitute(by_threads: Counter[int]) -> None:
    """Lacking any one of them, the program comes to the same, and that one goes to a thread."""
    expected = testing.run(everything)
    assert expected[0] == "uring"
    assert expected[-1] == b"pieces"
    assert not by_threads
    for opcode in sorted([*BY_THREAD, *BY_COPY]):
        by_threads.clear()
        assert testing.run(everything, profile=without(opcode)) == expected, NAMES[opcode]
        assert by_threads.keys() == ({BY_THREAD[opcode]} if opcode in BY_THREAD else set())


@pytest.mark.parametrize("opcode", sorted(WITHOUT_SUBSTITUTE), ids=lambda opcode: NAMES[opcode])
def test_each_operation_that_has_none(opcode: int) -> None:
    """A kernel built without it is as good as one without io_uring: the program runs on epoll."""
    kernel = testing.SimKernel(1, without(opcode))
    assert testing.run(programs.echo_server_and_clients, kernel=kernel) == 6
    assert any(line.startswith("epoll_wait") for line in kernel.trace.tail)


def test_what_is_lacking_is_said() -> None:
    """Who insists on io_uring is told what is missing."""
    profile = replace(without(k.IORING_OP_RECV), backend="uring")
    with pytest.raises(RingError, match=r"lacks IORING_OP_RECV: .*Another backend") as caught:
        testing.run(everything, profile=profile)
    assert caught.value.errno == errno.ENOSYS


def test_the_tables_are_complete() -> None:
    """Every opcode that a driver's op may become is in one of the three sets, or asked for."""
    asked_for = {k.IORING_OP_FIXED_FD_INSTALL}  # raises UnsupportedError: `Tables.require_install`
    used = {SHAPED[code] for code in SHAPED if code != o.DIRECT}
    used |= {head & 0xFF for head in (*HEADS, *SLOW_HEADS.values()) if head != BY_DRIVER}
    used |= {CANCEL_HEAD & 0xFF}
    assert used == BY_THREAD.keys() | BY_COPY | WITHOUT_SUBSTITUTE | asked_for
