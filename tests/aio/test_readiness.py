"""Readers and writers: callbacks on descriptors of any kind."""

import asyncio
import errno
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.aio.conftest import Run
from tests.aio.protocols import Diary
from tests.aio.serving import listening
from tests.aio.waiting import passes, until
from uringio._driver import current


@contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection, non-blocking."""
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


def test_a_reader_is_called_as_long_as_something_can_be_read(run: Run[None]) -> None:
    """
    The callback gets its arguments and comes again for what it left unread, and not for nothing;
    once removed it does not come.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        got: list[bytes] = []
        with connected() as (near, far):
            loop.add_reader(near, lambda sock: got.append(sock.recv(1)), near)
            await passes(5)
            assert got == []
            for _ in range(2):
                far.send(b"abc")
                await until(lambda: got[-3:] == [b"a", b"b", b"c"])
                await passes(5)
                assert len(got) % 3 == 0
                del got[:]
            assert loop.remove_reader(near.fileno()) is True
            assert loop.remove_reader(near) is False
            far.send(b"x")
            await passes(5)
            assert got == []

    run(main())


def test_a_writer_is_called_as_long_as_there_is_room(run: Run[None]) -> None:
    """It comes in every pass while there is room, stops when there is none, and begins anew."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls = 0
        with connected() as (near, far):

            def write() -> None:
                nonlocal calls
                calls += 1

            loop.add_writer(near, write)
            await until(lambda: calls >= 3)
            with pytest.raises(BlockingIOError):
                while True:
                    near.send(bytes(65536))
            await passes(5)  # for the call that was due
            before = calls
            await passes(20)
            assert calls == before
            with pytest.raises(BlockingIOError):
                while True:
                    far.recv(1 << 20)
            await until(lambda: calls > before)
            assert loop.remove_writer(near) is True
            assert loop.remove_writer(near) is False

    run(main())


def test_a_writer_towards_a_peer_that_has_ended(run: Run[None]) -> None:
    """
    Towards a peer that sends no more and takes nothing the loop sleeps, whether the peer ended
    before or after; once there is room the writer comes, and as long as there is.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        driver = current.driver()
        calls = 0

        def write() -> None:
            nonlocal calls
            calls += 1

        for ends_first in (True, False):
            with connected() as (near, far):
                with pytest.raises(BlockingIOError):
                    while True:
                        near.send(bytes(65536))
                if ends_first:
                    far.shutdown(socket.SHUT_WR)
                calls = 0
                loop.add_writer(near, write)
                await passes(5)
                far.shutdown(socket.SHUT_WR)
                await passes(5)
                turns = driver.statistics().turns
                await asyncio.sleep(0.02)
                assert driver.statistics().turns - turns < 10
                assert calls == 0
                with pytest.raises(BlockingIOError):
                    while True:
                        far.recv(1 << 20)
                await until(lambda: calls >= 3)
                assert loop.remove_writer(near)

    run(main())


def test_both_directions_end_together(run: Run[None]) -> None:
    """Reader and writer of one socket are apart, a hang-up calls both, and a new one replaces."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        with connected() as (near, far):
            with pytest.raises(BlockingIOError):
                while True:
                    near.send(bytes(65536))
            loop.add_reader(near, seen.append, "replaced")
            loop.add_reader(near, seen.append, "reader")
            loop.add_writer(near, seen.append, "writer")
            await passes(5)
            assert seen == []
            far.close()
            await until(lambda: {"reader", "writer"} <= set(seen))
            assert "replaced" not in seen
            assert loop.remove_reader(near)
            await passes(3)
            del seen[:]
            await passes(3)
            assert set(seen) == {"writer"}
            assert loop.remove_writer(near)

    run(main())


def test_removing_lets_go_of_the_descriptor(run: Run[None]) -> None:
    """
    When remove_reader has returned, closing the socket is its end: the peer sees it at once, and
    the address of a listening socket is free.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected() as (near, far):
            loop.add_reader(near, pytest.fail)
            await passes(2)
            loop.remove_reader(near)
            near.close()
            assert far.recv(1) == b""
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        loop.add_reader(listener, pytest.fail)
        await passes(2)
        loop.remove_reader(listener)
        listener.close()
        socket.create_server(address).close()

    run(main())


def test_what_cannot_be_watched_is_refused(run: Run[None]) -> None:
    """Files, what is closed, what is no descriptor, and what a transport of the loop uses."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryFile() as file, pytest.raises(PermissionError, match="always"):
            loop.add_reader(file, pytest.fail)
        with open(os.devnull, "wb") as null, pytest.raises(PermissionError):
            loop.add_writer(null, pytest.fail)
        read_fd, write_fd = os.pipe()
        os.close(write_fd)
        os.close(read_fd)
        with pytest.raises(OSError, match="fstat") as closed:
            loop.add_writer(write_fd, pytest.fail)
        assert closed.value.errno == errno.EBADF
        with pytest.raises(ValueError, match="Invalid file object"):
            loop.add_reader(object(), pytest.fail)  # type: ignore[arg-type]
        for call_it in (lambda: loop.add_reader(-1, pytest.fail), lambda: loop.remove_reader(-1)):
            with pytest.raises(ValueError, match="Invalid file desc"):
                call_it()
        async with listening(Diary) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            sock = transport.get_extra_info("socket")
            for call in (loop.add_reader, loop.add_writer):
                with pytest.raises(RuntimeError, match="is used by transport"):
                    call(sock, pytest.fail)
            for remove in (loop.remove_reader, loop.remove_writer):
                with pytest.raises(RuntimeError, match="is used by transport"):
                    remove(sock.fileno())
            transport.close()
            await client.lost

    run(main())


def test_before_and_between_runs(loop: asyncio.AbstractEventLoop) -> None:
    """A reader that was added before the loop ran is called in each run, until it is removed."""
    with connected() as (near, far):
        got: list[bytes] = []

        def read() -> None:
            got.append(near.recv(1))
            loop.stop()

        loop.add_reader(near, read)
        for piece in (b"a", b"b"):
            far.send(piece)
            loop.run_forever()
        assert got == [b"a", b"b"]
        assert loop.remove_reader(near)
        far.send(b"c")
        loop.run_until_complete(passes(5))
        assert got == [b"a", b"b"]
        loop.add_reader(near, read)
        loop.close()
        assert loop.remove_reader(near) is False
        with pytest.raises(RuntimeError, match="closed"):
            loop.add_reader(near, read)


def test_a_descriptor_closed_under_its_reader_is_forgotten(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Later runs neither complain of it nor watch the file that has its number by then."""
    called: list[int] = []
    wrong: list[object] = []
    loop.set_exception_handler(lambda _, context: wrong.append(context))
    with connected() as (near, far), connected() as (other, beyond):
        number = near.fileno()

        def close_it() -> None:
            called.append(number)
            near.close()

        loop.add_reader(number, close_it)
        far.send(b"x")
        loop.run_until_complete(until(lambda: called))
        loop.run_until_complete(passes(3))
        os.dup2(other.fileno(), number)
        try:
            beyond.send(b"x")
            loop.run_until_complete(passes(5))
            assert loop.remove_reader(number) is True
        finally:
            os.close(number)
    assert called == [number]
    assert wrong == []


def test_callbacks_that_raise(loop: asyncio.AbstractEventLoop) -> None:
    """Ordinary errors are reported and the reader stays; KeyboardInterrupt ends the run alone."""
    with connected() as (near, far):
        errors: list[BaseException] = [ValueError(), KeyboardInterrupt()]
        reports: list[BaseException] = []
        loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))

        def read() -> None:
            near.recv(1)
            if errors:
                raise errors.pop(0)
            loop.stop()

        far.send(b"abc")
        loop.add_reader(near, read)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.run_forever()
        assert [type(report) for report in reports] == [ValueError]
        assert loop.remove_reader(near)


def test_a_file_added_before_the_run_is_reported(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """What cannot be refused when it is added, since there is no driver to ask, is told later."""
    loop = make_loop()
    reports: list[object] = []
    loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))
    with tempfile.TemporaryFile() as file:
        loop.add_reader(file, pytest.fail)
        loop.run_until_complete(passes(3))
        loop.close()
    assert isinstance(reports[0], PermissionError)
