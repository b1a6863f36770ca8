"""Pipe transports: both ends, terminals and sockets, flow control, and how either end goes."""

import asyncio
import errno
import gc
import os
import pty
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tests.aio.conftest import Run
from tests.aio.protocols import Diary
from tests.aio.serving import LARGE
from tests.aio.waiting import passes
from tests.leaks import holdings


class Watcher(Diary):
    """A diary that may have no data."""

    transport: Any


def file_of(fd: int, mode: str = "rb") -> Any:
    return os.fdopen(fd, mode, 0)


async def reading(fd: int, factory: Callable[[], Watcher] = Watcher) -> tuple[Any, Watcher]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_read_pipe(factory, file_of(fd))
    return transport, protocol


async def writing(fd: int, factory: Callable[[], Watcher] = Watcher) -> tuple[Any, Watcher]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(factory, file_of(fd, "wb"))
    return transport, protocol


def test_a_pipe_from_end_to_end(run: Run[None]) -> None:
    """
    What is written to one transport comes out of the other, whole and in order, under flow control;
    closing the writer is the end for the reader, and both files are closed.
    """

    async def main() -> None:
        reader, writer = os.pipe()
        source, reads = await reading(reader)
        drain, writes = await writing(writer)
        assert source.get_extra_info("pipe").fileno() == reader
        assert not os.get_blocking(reader)
        drain.write(b"a")
        drain.write(bytearray(b"b"))
        drain.write(b"")
        drain.write(LARGE)
        assert drain.get_write_buffer_size() > 0
        drain.write(memoryview(b"c"))
        drain.write_eof()
        drain.close()
        assert drain.is_closing()
        expected = b"ab" + LARGE + b"c"
        assert await reads.until_received(len(expected)) == expected
        await reads.lost
        await writes.lost
        assert [call for call in reads.calls if call != "data"] == ["made", "eof", "lost"]
        assert writes.calls == ["made", "pause", "resume", "lost"]
        assert reads.error is writes.error is None
        assert source.get_extra_info("pipe").closed
        assert drain.get_extra_info("pipe").closed

    run(main())


def test_pausing_holds_data_back(run: Run[None]) -> None:
    """While reading is paused nothing is delivered, and nothing is lost by it."""

    async def main() -> None:
        reader, writer = os.pipe()
        transport, protocol = await reading(reader)
        assert transport.is_reading()
        transport.pause_reading()
        transport.pause_reading()
        os.write(writer, b"held")
        await passes(5)
        assert not transport.is_reading()
        assert protocol.received == b""
        transport.resume_reading()
        transport.resume_reading()
        assert await protocol.until_received(4) == b"held"
        os.close(writer)
        await protocol.lost
        assert protocol.calls == ["made", "data", "eof", "lost"]

    run(main())


@pytest.mark.parametrize("waiting", [False, True])
def test_a_reader_that_goes_ends_the_writer(run: Run[None], waiting: bool) -> None:
    """
    The write transport ends when the reader's end is closed: quietly, or with BrokenPipeError while
    something waits to be written.
    """

    async def main() -> None:
        reader, writer = os.pipe()
        transport, protocol = await writing(writer)
        transport.write(b"x" * (1_000_000 if waiting else 1))
        await passes(3)  # so that it is waited for
        os.close(reader)
        await protocol.lost
        assert isinstance(protocol.error, BrokenPipeError) == waiting
        transport.write(b"late")
        transport.close()
        transport.abort()

    run(main())


def test_writing_to_a_broken_pipe(run: Run[None]) -> None:
    """A write that the kernel refuses ends the transport with its error."""

    async def main() -> None:
        reader, writer = os.pipe()
        transport, protocol = await writing(writer)
        os.close(reader)
        transport.write(b"nobody")
        assert transport.is_closing()
        await protocol.lost
        assert isinstance(protocol.error, BrokenPipeError)

    run(main())


def test_abort_drops_what_waits(run: Run[None]) -> None:
    """Abort ends without an error though the pipe is full."""

    async def main() -> None:
        reader, writer = os.pipe()
        transport, protocol = await writing(writer)
        transport.set_write_buffer_limits(high=10)
        assert transport.get_write_buffer_limits() == (2, 10)
        transport.write(b"x" * 1_000_000)
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        await protocol.lost
        assert protocol.error is None
        assert protocol.calls == ["made", "pause", "lost"]
        os.close(reader)

    run(main())


def test_sockets_are_pipes_too(run: Run[None]) -> None:
    """
    Both transports take a stream socket; its writer ends when the peer closes, and not because the
    peer has sent something.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        transport, protocol = await loop.connect_write_pipe(Watcher, left)
        right.send(b"unasked")
        transport.write(b"there")
        await passes(3)
        assert right.recv(10) == b"there"
        assert not transport.is_closing()
        await passes(3)
        right.close()
        await protocol.lost
        assert left.fileno() == -1
        left, right = socket.socketpair()
        _, protocol = await loop.connect_read_pipe(Watcher, left)
        right.send(b"data")
        right.close()
        await protocol.lost
        assert protocol.received == b"data"

    run(main())


def test_terminals(run: Run[None]) -> None:
    """A pseudo-terminal can be read and written; its end, told by EIO, is no incident."""

    async def main() -> None:
        main_fd, terminal = pty.openpty()
        drain, writes = await writing(os.dup(terminal))
        source, reads = await reading(main_fd)
        drain.write(b"line\n")
        assert await reads.until_received(6) == b"line\r\n"
        drain.close()
        await writes.lost
        os.close(terminal)
        await reads.lost
        assert isinstance(reads.error, OSError)
        assert reads.error.errno == errno.EIO
        assert "eof" not in reads.calls
        source.close()

    run(main())


def test_always_ready_devices(run: Run[None]) -> None:
    """A character device without readiness, such as /dev/null, ends at once and swallows all."""

    async def main() -> None:
        _, reads = await reading(os.open("/dev/null", os.O_RDONLY))
        await reads.lost
        assert reads.calls == ["made", "eof", "lost"]
        drain, writes = await writing(os.open("/dev/null", os.O_WRONLY))
        drain.write(LARGE)
        assert drain.get_write_buffer_size() == 0
        drain.close()
        await writes.lost

    run(main())


def test_files_are_refused(run: Run[None], tmp_path: Path) -> None:
    """A regular file is a ValueError, and stays the program's."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with (tmp_path / "file").open("w+b") as file:
            with pytest.raises(ValueError, match="pipes"):
                await loop.connect_read_pipe(Watcher, file)
            with pytest.raises(ValueError, match="pipes"):
                await loop.connect_write_pipe(Watcher, file)
            assert os.get_blocking(file.fileno())
            assert stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        drain, protocol = await writing(os.open("/dev/null", os.O_WRONLY))
        with pytest.raises(TypeError, match="str"):
            drain.write("text")
        drain.close()
        await protocol.lost

    run(main())


def test_exceptions_of_the_protocol_are_reported(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """What data_received raises goes to the exception handler, and the transport lives on."""

    class Clumsy(Watcher):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if data == b"first":
                raise LookupError("clumsy")

    async def main() -> list[dict[str, Any]]:
        wrong: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
        reader, writer = os.pipe()
        _, protocol = await reading(reader, Clumsy)
        os.write(writer, b"first")
        await protocol.until_received(5)
        os.write(writer, b"second")
        await protocol.until_received(11)
        os.close(writer)
        await protocol.lost
        return wrong

    with asyncio.Runner(loop_factory=make_loop) as runner:
        (context,) = runner.run(main())
    assert isinstance(context["exception"], LookupError)


def test_streams_over_pipes_and_cancelling(run: Run[None]) -> None:
    """StreamReader and StreamWriter work over pipes; a read that is cancelled loses nothing."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reader_fd, writer_fd = os.pipe()
        stream = asyncio.StreamReader()
        source, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), file_of(reader_fd)
        )
        transport, protocol = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, file_of(writer_fd, "wb")
        )
        writer = asyncio.StreamWriter(cast("Any", transport), protocol, None, loop)
        waiting = asyncio.create_task(stream.readexactly(3))
        await passes(2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        writer.write(LARGE)
        draining = asyncio.create_task(writer.drain())
        assert await stream.readexactly(len(LARGE)) == LARGE
        await draining
        writer.close()
        assert await stream.read() == b""
        source.close()

    run(main())


def test_a_cancelled_beginning_closes_the_pipe(run: Run[None]) -> None:
    """Connecting that is cancelled closes the pipe, like one whose transport was closed."""

    async def main() -> None:
        reader, writer = os.pipe()
        before = holdings().fds
        for fd, connect in ((reader, reading), (writer, writing)):
            task = asyncio.create_task(connect(fd))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        while len(holdings().fds) != len(before) - 2:
            await passes(1)

    run(main())


def test_forgotten_transports_warn(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A pipe transport left over by its loop warns and closes its pipe."""
    reader, writer = os.pipe()
    loop = make_loop()
    loop.run_until_complete(reading(reader))
    loop.run_until_complete(writing(writer))
    with pytest.warns(ResourceWarning) as caught:
        loop.close()
        del loop
        gc.collect()
    texts = sorted(str(one.message) for one in caught if "unclosed transport" in str(one.message))
    assert [text.split()[2] for text in texts] == ["<ReadPipeTransport", "<WritePipeTransport"]
    for fd in (reader, writer):
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)
