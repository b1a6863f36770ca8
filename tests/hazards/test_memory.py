"""H01-H04: memory that the kernel has stays where it is and as it was lent."""

import array
import gc
import mmap
import os
import random
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import uringio
from tests.driver.rig import PATIENCE_S, Rig, connected, fill
from tests.surface import pairs
from tests.surface.schedulers import Gate, Scheduler
from uringio._driver import current
from uringio._driver import op as o
from uringio._driver.op import CANCELLING, Op
from uringio.errors import OpError


class _Memory(bytearray):
    """A bytearray that can be watched."""


@pytest.mark.parametrize("code", [o.RECV_INTO, o.SEND_ALL])
def test_memory_outlives_everybody_until_the_kernel_lets_go(rig: Rig, code: int) -> None:
    """With every reference dropped, and cancelled, it lives until the completion, not longer."""
    with connected(rig) as (ours, theirs):
        if code == o.SEND_ALL:
            fill(ours)  # so that it has to wait
        memory = _Memory(200_000 if code == o.SEND_ALL else 1000)
        alive = weakref.ref(memory)
        op: Op[Any] = Op(code, ours.fileno(), len_=len(memory), memory=memory)
        rig.submit(op)
        del memory
        rig.settle_down()
        rig.driver.cancel(op)
        op_ref = weakref.ref(op)
        gc.collect()
        if rig.is_uring:  # else nobody has it but us
            assert op.state == CANCELLING
            assert alive() is not None, "the memory was freed before its completion"
        rig.wait(op)
        del op
        gc.collect()
        assert op_ref() is None
        assert alive() is None, "the memory is kept for nobody"
        theirs.setblocking(False)


def _targets() -> list[tuple[object, Callable[[], object]]]:
    """Return memory that must not be written, each with what it holds."""
    constant = bytes(range(32))
    numbers = array.array("i", range(10))
    mapped = mmap.mmap(-1, 4096, access=mmap.ACCESS_READ)
    return [
        (constant, lambda: constant == bytes(range(32))),
        (memoryview(constant), lambda: True),
        (memoryview(numbers).toreadonly(), lambda: numbers == array.array("i", range(10))),
        (mapped, lambda: mapped[:4] == bytes(4)),
        (memoryview(bytearray(8))[::2], lambda: True),
        ("text", lambda: True),
        (None, lambda: True),
    ]


def test_what_may_not_be_written_is_refused_before_anything_is_submitted(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    """Each call that fills memory says TypeError to each of them, and the driver hears nothing."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)

    async def main() -> None:
        async with (
            pairs.connected() as (near, far),
            await uringio.open_file(path) as file,
            await uringio.open_udp(("127.0.0.1", 0)) as datagrams,
        ):
            await far.send_all(b"never received")
            fillers: list[Callable[[Any], Awaitable[object]]] = [
                near.recv_into,
                lambda one: near.recvmsg_into([bytearray(3), one]),
                lambda one: datagrams.recvmsg_into([one]),
                lambda one: file.read_into_at(0, one),
                lambda one: file.readv_at(0, [bytearray(3), one]),
            ]
            submitted = current.driver().statistics().submitted
            for target, is_unchanged in _targets():
                for fill in fillers:
                    try:
                        await fill(target)
                    except TypeError:
                        continue
                    finally:
                        assert is_unchanged()
                    pytest.fail(f"{target!r} was taken as memory to write")
            assert current.driver().statistics().submitted == submitted

    scheduler.run(main)


def _storm(kept: list[object]) -> None:
    """Have whatever is free reused: by objects of all sizes up to a page, full of noise."""
    gc.collect()
    kept += [bytearray(b"\xa5" * random.randint(1, 4096)) for _ in range(300)]
    kept += [b"\xa5" * size for size in range(8, 300)]


def test_temporaries_live_until_the_kernel_has_read_them(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    """
    Paths, addresses, msghdrs, iovecs and answers survive a storm of allocations.

    Every operation that hands the kernel a pointer is submitted, then all that its maker left is
    collected and its memory reused, and only then does the kernel see it.
    """
    kept: list[object] = []
    folder = str(tmp_path)

    def name(part: str) -> str:
        return folder + "/" + part

    async def main() -> None:
        listener = await uringio.listen_tcp("127.0.0.1", 0)
        async with listener, pairs.connected() as (near, far):
            udp = await uringio.open_udp(("127.0.0.1", 0))
            other = await uringio.open_udp(("127.0.0.1", 0))
            file = await uringio.open_file(name("file"), "w+b")
            async with udp, other, file:

                async def through(make: Callable[[], Awaitable[object]]) -> object:
                    """Submit, storm before the kernel has it and again when it has, and wait."""
                    task = scheduler.spawn(_awaited, make)
                    await scheduler.checkpoint()
                    _storm(kept)
                    current.driver().flush()
                    _storm(kept)
                    kept.clear()
                    return await task.result()

                accepting = scheduler.spawn(_awaited, listener.accept)
                host, port = listener.local_address[:2]
                stream = await through(lambda: uringio.connect_tcp(str(host), int(port)))
                accepted = await accepting.result()
                assert isinstance(stream, uringio.SocketStream)
                assert isinstance(accepted, uringio.SocketStream)
                assert tuple(accepted.remote_address) == tuple(stream.local_address)
                await stream.aclose()
                await accepted.aclose()

                pieces = [b"gathered " + bytes([n]) for n in range(65, 75)]
                await through(lambda: far.sendmsg([bytes(piece) for piece in pieces]))
                rooms = [bytearray(7) for _ in range(20)]
                got = await through(lambda: near.recvmsg_into(list(rooms)))
                assert got.count == 100  # type: ignore[attr-defined]
                assert b"".join(rooms)[:100] == b"".join(pieces)

                await through(lambda: udp.send_to(b"datagram", other.local_address))
                datagram = await through(other.recvmsg)
                assert datagram.data == b"datagram"  # type: ignore[attr-defined]

                await through(lambda: file.writev_at(0, [b"one", b"two", b"three"]))
                halves = [bytearray(4), bytearray(7)]
                await through(lambda: file.readv_at(0, list(halves)))
                assert halves == [b"onet", b"wothree"]
                assert (await through(file.stat)).st_size == 11  # type: ignore[attr-defined]

            await through(lambda: uringio.fs.mkdir(name("folder")))
            await through(lambda: uringio.fs.rename(name("file"), name("folder/moved")))
            await through(lambda: uringio.fs.link(name("folder/moved"), name("linked")))
            await through(lambda: uringio.fs.symlink("linked", name("symlinked")))
            opened = await through(lambda: uringio.open_file(name("symlinked")))
            assert isinstance(opened, uringio.ReadFile)
            assert await opened.read_all() == b"onetwothree"
            await opened.aclose()
            status = await through(lambda: uringio.fs.stat(name("linked")))
            assert status.st_nlink == 2  # type: ignore[attr-defined]
            await through(lambda: uringio.fs.unlink(name("linked")))
            with pytest.raises(FileNotFoundError) as refused:
                await through(lambda: uringio.fs.unlink(name("linked")))
            assert isinstance(refused.value, OpError)
            assert refused.value.filename == name("linked")
            assert sorted(os.listdir(folder)) == ["folder", "symlinked"]

    scheduler.run(main)


async def _awaited(make: Callable[[], Awaitable[object]]) -> object:
    return await make()


def test_the_deadline_of_a_wait_survives_a_storm(scheduler: Scheduler) -> None:
    """The time that a turn waits until is read by the kernel after all of Python has moved on."""
    kept: list[object] = []

    async def main() -> None:
        gate = Gate()

        async def sleep() -> None:
            await uringio.sleep(0.01)
            gate.open()

        scheduler.spawn(sleep)
        await scheduler.checkpoint()
        _storm(kept)
        with pytest.raises(TimeoutError):
            if scheduler.name == "native":
                with uringio.timeout(PATIENCE_S):
                    await gate.wait()
                    raise TimeoutError
            else:
                await gate.wait()
                raise TimeoutError

    scheduler.run(main)
