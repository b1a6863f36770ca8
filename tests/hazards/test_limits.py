"""H33-H37: signals and limits of the process that a program under io_uring meets."""

import os
import resource

import pytest

import uringio
from tests.fresh import FreshPython
from tests.marks import needs_uring
from tests.surface.schedulers import NAMES, Spawned, make, with_tests

# Programs may well give SIGPIPE back its default, which kills: to end quietly behind `head`.
DEFAULT_SIGPIPE = """
    import os, signal, sys, tempfile
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    import uringio
    from uringio import Buffer
    from tests.surface.pairs import with_peer

    async def refused(call):
        # The first goes to a peer that has gone and says so, the others meet the broken pipe.
        for _ in range(100):
            try:
                await call()
            except BrokenPipeError:
                return
            except ConnectionResetError:
                pass
            await uringio.sleep(0.001)
        raise AssertionError("never refused")

    async def main():
        with tempfile.NamedTemporaryFile() as plain:
            plain.write(bytes(200_000))
            plain.flush()
            async with await uringio.open_file(plain.name) as file:
                sends = [
                    lambda stream: stream.send_all(bytes(100_000)),
                    lambda stream: stream.sendmsg([bytes(1000), bytes(1000)]),
                    lambda stream: stream.send_buffer(Buffer(100_000)),
                    lambda stream: stream.send_buffer(Buffer(100_000), zero_copy=True),
                    lambda stream: stream.send_file(file, 0, 200_000),
                ]
                for send in sends:
                    async with with_peer() as (stream, peer):
                        peer.close()
                        await refused(lambda: send(stream))
        print("alive")

    uringio.run(main, backend=sys.argv[1])
"""


def test_no_send_to_a_closed_peer_raises_a_signal(fresh_python: FreshPython, backend: str) -> None:
    """With SIGPIPE at its default, which kills, every way to send to who has gone is an error."""
    ended = fresh_python(DEFAULT_SIGPIPE, backend, env=with_tests()).check()
    assert ended.stdout == "alive\n"


def test_a_broken_pipe_is_an_error_as_python_has_it(
    fresh_python: FreshPython, backend: str
) -> None:
    """Python ignores SIGPIPE; so writing to a FIFO that nobody reads is an error, no death."""
    fresh_python(
        """
        import os, sys, tempfile
        import uringio

        async def main():
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "fifo")
                os.mkfifo(path)
                reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                async with await uringio.open_file(path, "wb") as fifo:
                    os.close(reader)
                    try:
                        await fifo.write(b"to nobody")
                    except BrokenPipeError:
                        return
            raise AssertionError("never refused")

        uringio.run(main, backend=sys.argv[1])
        """,
        backend,
    ).check()


@needs_uring
@pytest.mark.parametrize("name", NAMES)
def test_waiting_operations_cost_no_threads(name: str) -> None:
    """Hundreds of reads that nothing answers, beside work for workers: threads stay few."""
    scheduler = make(name, "uring")
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/task")))

    async def wait_for_byte(fd: int) -> None:
        await uringio.wait_readable(fd)

    async def read(fd: int) -> None:
        async with await uringio.open_file(f"/proc/self/fd/{fd}", "rb") as file:
            await file.read(1)

    async def look_around() -> None:
        for _ in range(3):
            await uringio.fs.stat("/")
            look()

    async def main() -> None:
        pipes = [os.pipe() for _ in range(100)]
        try:
            tasks: list[Spawned[None]] = []
            for reader, _ in pipes:
                tasks += [scheduler.spawn(wait_for_byte, reader), scheduler.spawn(read, reader)]
            workers = [scheduler.spawn(look_around) for _ in range(100)]
            for worker in workers:
                await worker.result()
            for _, writer in pipes:
                os.write(writer, b"!!")
            for task in tasks:
                await task.result()
                look()
        finally:
            for pair in pipes:
                for fd in pair:
                    os.close(fd)

    before = len(os.listdir("/proc/self/task"))
    scheduler.run(main)
    # Eight threads of ours at most, and the kernel's workers for what cannot be polled: at most
    # four per processor.
    assert most <= before + 8 + 4 * (os.cpu_count() or 1) + 2


# What a user may lock. [bytes]
MEMLOCK = (0, 8 << 10, 64 << 10, 8 << 20)


@needs_uring
@pytest.mark.parametrize("memlock", MEMLOCK)
def test_scarce_locked_memory_is_said_and_not_papered_over(
    fresh_python: FreshPython, memlock: int
) -> None:
    """As an ordinary user with a small RLIMIT_MEMLOCK: a loop on io_uring, or an error with cause.

    A ring that had to be smaller than usual is warned of.  Never a silent change to epoll, whatever
    is asked for.  What other processes of the user have locked counts too, and not every kernel
    counts rings, so which of them it is cannot be known.
    """
    hard_limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if hard_limit != resource.RLIM_INFINITY and hard_limit < memlock:
        pytest.skip("the hard limit is lower than that")
    ended = fresh_python(
        """
        import os, resource, sys, warnings
        import uringio._driver.choice, uringio._driver.epoll  # while files may still be read
        import uringio._driver.uring
        limit = int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        from uringio.errors import RingError
        from uringio._driver.choice import make_driver
        for backend in (None, "uring"):
            try:
                with warnings.catch_warnings(record=True, action="always") as said:
                    driver = make_driver(
                        lambda op: None, lambda op: RuntimeError(), backend=backend
                    )
            except RingError as error:
                print("refused", "RLIMIT_MEMLOCK" in str(error) or "memlock" in str(error))
            else:
                small = driver.ring.sq_entries < 256
                assert small == any("RLIMIT_MEMLOCK" in str(one.message) for one in said)
                print(driver.name)
                driver.close()
        """,
        str(memlock),
    ).check()
    assert set(ended.stdout.splitlines()) <= {"uring", "refused True"}
