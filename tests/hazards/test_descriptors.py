"""H10 and H11: a number is closed once, and a request reaches the file it was made for."""

import os
import random
import socket
from collections.abc import Callable
from contextlib import suppress

import pytest

import uringio
from tests.driver.rig import Rig, connected
from tests.surface.pairs import call, occupied
from tests.surface.schedulers import Scheduler
from uringio._driver import op as o
from uringio._driver.op import Op
from uringio._own.fd import OwnedFd
from uringio.errors import ClosedError, UringioError


def test_a_descriptor_is_closed_once_whatever_is_done(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Streams are closed, dropped, closed again, closed by two tasks, by cancelled tasks.

    Every number that is closed in vain would be EBADF here, and somebody else's file in a program
    with threads.
    """
    vain: list[int] = []
    rng = random.Random(random.randrange(1 << 32))

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            system = listener._driver.system
            close = system.close

            def closing(fd: int) -> int:
                answer = close(fd)
                if answer < 0:
                    vain.append(fd)
                return answer

            async def aclose(stream: uringio.SocketStream) -> None:
                with suppress(OSError):
                    await stream.aclose()
                    return
                vain.append(-1)

            monkeypatch.setattr(system, "close", closing)
            for _ in range(60):
                client = call(listener)
                stream = await listener.accept()
                for _ in range(rng.randint(0, 4)):
                    task = scheduler.spawn(aclose, stream)
                    if rng.random() < 0.4:
                        await scheduler.checkpoint()
                    if rng.random() < 0.4:
                        task.cancel()
                    if rng.random() < 0.3:
                        stream.close_idle() if task.ended else None
                    if rng.random() < 0.5:
                        await task.wait()
                await aclose(stream)
                await aclose(stream)
                del stream
                client.close()

    scheduler.run(main)
    assert vain == []


def test_an_owned_number_goes_once_by_one_way() -> None:
    """Close, take and drop in any order: each number is closed once, or was taken and is not."""
    for _ in range(300):
        closed: list[int] = []
        taken: list[int] = []

        def close(fd: int, closed: list[int] = closed) -> int:
            closed.append(fd)
            return 0

        owned: OwnedFd | None = OwnedFd(1000, close, "thing")
        for _ in range(random.randint(1, 5)):
            assert owned is not None
            if random.random() < 0.5:
                owned.close()
            else:
                with suppress(ClosedError):
                    taken.append(owned.take())
        assert owned is not None
        assert owned.closed
        owned = None
        assert sorted(closed + taken) == [1000]


def test_a_request_that_was_filled_in_never_reaches_the_next_file(rig: Rig) -> None:
    """
    A CLOSE that follows it in the queue does not let it slip to the number's next owner.

    All is handed over in one call, so the kernel takes the send first, then the close; and what is
    cancelled before it was handed over does nothing at all.
    """
    for cancelled in (False, True):
        with connected(rig) as (ours, theirs):
            number = ours.fileno()
            send = rig.send_all(number, b"SECRET")
            if cancelled:
                rig.driver.cancel(send)
            closing = rig.submit(Op(o.CLOSE, ours.detach()))
            rig.wait(closing)
            assert closing.error is None
            with occupied(number) as witness:
                rig.until(lambda send=send: rig.is_delivered(send))  # type: ignore[misc]
                for _ in range(3):
                    rig.turn()
                try:
                    stray = witness.recv(100)
                except BlockingIOError:
                    stray = b""
                assert stray == b""
            rig.wait(send)
            if rig.is_uring:  # else it was sent at once
                assert theirs.recv(100) == (b"" if cancelled else b"SECRET")


def test_bytes_stay_with_their_connection_in_a_storm(scheduler: Scheduler) -> None:
    """Numbers are reused as fast as it goes, with sends and receives begun just before."""
    rng = random.Random(random.randrange(1 << 32))

    async def main() -> None:
        numbers: set[int] = set()
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:

            async def use(make: Callable[[], object]) -> None:
                with suppress(UringioError, OSError):
                    await make()  # type: ignore[misc]

            for mark in range(150):
                client = call(listener)
                stream = await listener.accept()
                numbers.add(stream.fileno())
                data = bytes([mark]) * rng.choice((1, 1000, 50_000))
                sending = scheduler.spawn(use, lambda s=stream, d=data: s.send_all(d))
                receiving = scheduler.spawn(use, lambda s=stream: s.recv())
                if rng.random() < 0.5:
                    await scheduler.checkpoint()
                await stream.aclose()
                for task in (sending, receiving):
                    await task.wait()
                client.settimeout(50)
                got = bytearray()
                with suppress(ConnectionResetError):
                    while piece := client.recv(1 << 20):
                        got += piece
                assert got.count(mark) == len(got), "bytes of another connection"
                client.close()
        assert len(numbers) < 20, "the numbers were not reused"

    scheduler.run(main)


def test_the_numbers_are_the_lowest_there_are() -> None:
    """What the storms rest on: a number that was closed is the next one given."""
    with socket.socket() as one:
        number = one.fileno()
    with socket.socket() as other:
        assert other.fileno() == number
    assert not os.path.exists(f"/proc/self/fd/{number}")
