"""What must always hold is looked at in each simulated run, and a planted fault is found."""

import errno
from collections.abc import Awaitable, Callable

import pytest

import uringio
from tests.testing import programs
from uringio import testing
from uringio._run.running import context


def test_everything_is_looked_at() -> None:
    """A run checks ops, memory, buffers, descriptors and tasks many times, and finds nothing."""
    kernel = testing.SimKernel(3, faults=testing.STORM)
    testing.run(programs.echo_server_and_clients, kernel=kernel)
    assert kernel.invariants.violations == []
    assert set(kernel.invariants.checked) == {"ops", "memory", "buffers", "fds", "tasks"}
    assert min(kernel.invariants.checked.values()) >= 10


async def closes_twice() -> None:
    listener = await uringio.listen_tcp("127.0.0.1", programs.PORT)
    fd = listener.fileno()
    await listener.aclose()
    assert context().driver.system.close(fd) == -errno.EBADF


async def delivers_twice() -> None:
    loop = context()
    op = uringio.sleep(0.01)
    await op
    loop.ready.append(op)


async def swallows_it() -> None:
    try:
        await closes_twice()
    except AssertionError:
        pass


async def changes_what_is_sent() -> None:
    """Fill the connection, so that a send has to wait, and change its memory meanwhile."""
    data = bytearray(200_000)

    async def change() -> None:
        await uringio.sleep(0.1)
        data[150_000:] = b"x" * 50_000

    async def send(stream: uringio.SocketStream) -> None:
        async with stream, uringio.TaskGroup() as group:
            group.start_soon(change)
            with uringio.move_on_after(1):
                await stream.send_all(data)

    async with (
        await uringio.listen_tcp("127.0.0.1", programs.PORT) as listener,
        uringio.TaskGroup() as serving,
    ):
        serving.start_soon(listener.serve, send)
        async with await uringio.connect_tcp("127.0.0.1", programs.PORT) as stream:
            await uringio.sleep(0.5)
            await stream.recv()
        serving.cancel_scope.cancel()


async def receives_twice_into_one_memory() -> None:
    memory = bytearray(100)
    async with (
        await uringio.listen_tcp("127.0.0.1", programs.PORT) as listener,
        await uringio.connect_tcp("127.0.0.1", programs.PORT) as one,
        await uringio.connect_tcp("127.0.0.1", programs.PORT) as two,
        await listener.accept(),
        await listener.accept(),
        uringio.TaskGroup() as group,
    ):
        for stream in (one, two):
            group.start_soon(stream.recv_into, memory)


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        (closes_twice, "fds: descriptor"),
        (swallows_it, "fds: descriptor"),
        (delivers_twice, "ops: .* was delivered in state"),
        (changes_what_is_sent, "memory: it was changed while <send"),
        (receives_twice_into_one_memory, "memory: .* was given the memory of"),
    ],
)
def test_violation_is_told(program: Callable[[], Awaitable[None]], kind: str) -> None:
    """Whether or not the program goes on, the run fails, with the command that repeats it."""
    with pytest.raises(testing.InvariantError, match=kind) as caught:
        testing.run(program, seed=2)
    assert "python -m uringio.testing" in caught.value.__notes__[0]


def test_bare_rings_may_do_as_they_like() -> None:
    """Without a driver of ours nothing is promised: closing nothing is answered, not raised."""
    kernel = testing.SimKernel()
    assert kernel.system.close(1 << 24) == -errno.EBADF
    assert not kernel.invariants.is_active
