"""Connecting to names with several addresses: happy eyeballs."""

import errno
import gc
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.marks import needs_pending_errors
from tests.surface.holes import holes
from tests.surface.pairs import PEER_S, deserted
from tests.surface.schedulers import Scheduler
from uringio._driver import current
from uringio._sys.system import System
from uringio.errors import OpError
from uringio.net import SocketStream, connect_tcp
from uringio.net._connecting import interleaved

# Longer than any test may take: the next attempt never begins for want of patience.
NEVER_SECONDS = 1e6

Names = Callable[[Sequence[tuple[object, ...]]], None]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Have every name resolve to the addresses given."""

    def resolve_to(addresses: Sequence[tuple[object, ...]]) -> None:
        def getaddrinfo(_self: object, _host: str, _port: int, kind: int) -> list[object]:
            return [
                (socket.AF_INET if len(one) == 2 else socket.AF_INET6, kind, 6, one)
                for one in addresses
            ]

        monkeypatch.setattr(System, "getaddrinfo", getaddrinfo)

    return resolve_to


@contextmanager
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PEER_S)
        yield listener


def socket_count() -> int:
    gc.collect()
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            found += str(link.readlink()).startswith("socket:")
        except FileNotFoundError:
            pass  # the folder's own descriptor
    return found


@pytest.mark.parametrize("host", ["::1", "127.0.0.2"])
def test_an_address_that_does_not_answer_holds_nobody_up(
    scheduler: Scheduler, names: Names, host: str
) -> None:
    """The second address is tried beside the first, by itself, and the first one is given up."""

    async def main() -> None:
        with holes(host) as [hole], server() as listener:
            names([hole.address, listener.getsockname()])
            before = socket_count()
            async with await connect_tcp("two.invalid", 80) as stream:
                assert stream.remote_address == listener.getsockname()
                assert socket_count() == before + 1
                peer, _ = listener.accept()
                with peer:
                    peer.sendall(b"hello")
                    assert await stream.recv() == b"hello"

    scheduler.run(main)


def test_a_refusal_starts_the_next_attempt_at_once(scheduler: Scheduler, names: Names) -> None:
    """Nobody waits for the delay when an address has said no."""

    async def main() -> None:
        with deserted() as one, deserted() as two, server() as listener:
            names([one, two, listener.getsockname()])
            stream = await connect_tcp("three.invalid", 80, attempt_delay_seconds=NEVER_SECONDS)
            async with stream:
                assert stream.remote_address == listener.getsockname()

    scheduler.run(main)


def test_a_refusal_while_others_are_silent_starts_the_next_attempt(
    scheduler: Scheduler, names: Names
) -> None:
    """One is silent, one refuses, and the last gets its turn although the first is still open."""

    async def main() -> None:
        with holes("127.0.0.2") as [hole], deserted() as refusing, server() as listener:
            names([hole.address, refusing, listener.getsockname()])
            stream = await connect_tcp("three.invalid", 80, attempt_delay_seconds=0.01)
            async with stream:
                assert stream.remote_address == listener.getsockname()

    scheduler.run(main)


def test_earlier_attempts_go_on(scheduler: Scheduler, names: Names) -> None:
    """An address that answers late wins over a later one that does not answer at all."""

    async def main() -> None:
        with holes("127.0.0.2", "127.0.0.3") as (late, silent):
            names([late.address, silent.address])
            connecting = scheduler.spawn(connect_at_once)
            for _ in range(5):
                await scheduler.checkpoint()
            assert not connecting.ended
            late.open_up()
            async with await connecting.result() as stream:  # when the kernel asks once more
                assert stream.remote_address == late.address

    scheduler.run(main)


async def connect_at_once() -> SocketStream:
    return await connect_tcp("some.invalid", 80, attempt_delay_seconds=0)


def test_one_connection_is_left(scheduler: Scheduler, names: Names) -> None:
    """Where many answer at once, all but one are closed before the caller hears of it."""

    async def main() -> None:
        with ExitStack() as stack:
            listeners = [stack.enter_context(server()) for _ in range(6)]
            names([one.getsockname() for one in listeners])
            before = socket_count()
            async with await connect_at_once() as stream:
                assert socket_count() == before + 1
                [winner] = [one for one in listeners if one.getsockname() == stream.remote_address]
                peer, _ = winner.accept()
                with peer:
                    peer.sendall(b"x")
                    assert await stream.recv() == b"x"
                for loser in set(listeners) - {winner}:
                    loser.settimeout(0)
                    try:
                        peer, _ = loser.accept()
                    except BlockingIOError:
                        continue
                    with peer:
                        peer.settimeout(PEER_S)
                        assert peer.recv(1) == b""

    scheduler.run(main)


@needs_pending_errors
def test_nobody_answers(scheduler: Scheduler, names: Names) -> None:
    """All refuse: the error is the first one's and names its address; no socket is left."""

    async def main() -> None:
        names(addresses)
        before = socket_count()
        with pytest.raises(ConnectionRefusedError) as caught:
            await connect_tcp("three.invalid", 80)
        assert isinstance(caught.value, OpError)
        first, *others = caught.value.__notes__
        assert first == f"while connecting to {addresses[0]!r}"
        assert [one.partition(":")[0] for one in others] == [
            f"and to {address!r}" for address in addresses[1:]
        ]
        assert socket_count() == before

    with deserted() as one, deserted() as two, deserted() as three:
        addresses = [one, two, three]
        scheduler.run(main)


def test_attempts_that_cannot_even_begin_count_as_refused(
    scheduler: Scheduler, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A family that the kernel lacks is skipped; if it is the only one, its error is raised."""
    socket_of = System.socket

    def without_ipv6(system: System, family: int, kind: int, protocol: int = 0) -> int:
        if family == socket.AF_INET6:
            raise OpError(errno.EAFNOSUPPORT, "no such family")
        return socket_of(system, family, kind, protocol)

    monkeypatch.setattr(System, "socket", without_ipv6)

    async def main() -> None:
        with server() as listener:
            names([("::1", 80, 0, 0), listener.getsockname()])
            stream = await connect_tcp("two.invalid", 80, attempt_delay_seconds=NEVER_SECONDS)
            async with stream:
                assert stream.remote_address == listener.getsockname()
        names([("::1", 80, 0, 0), ("::1", 81, 0, 0)])
        with pytest.raises(OpError) as caught:
            await connect_tcp("two.invalid", 80)
        assert caught.value.errno == errno.EAFNOSUPPORT

    scheduler.run(main)


@pytest.mark.parametrize("turns", range(6))
def test_cancelling_closes_every_attempt(scheduler: Scheduler, names: Names, turns: int) -> None:
    """However far it has got, connecting ends as cancelled and leaves no socket behind."""

    async def main() -> None:
        with holes("127.0.0.2", "127.0.0.3", "127.0.0.4") as silent:
            names([hole.address for hole in silent])
            before = socket_count()
            connecting = scheduler.spawn(connect_at_once)
            for _ in range(turns):
                await scheduler.checkpoint()
            connecting.cancel()
            await connecting.wait()
            assert connecting.cancelled
            await scheduler.until(lambda: current.driver().statistics().in_flight <= 1)
            assert socket_count() == before
            for hole in silent:
                hole.open_up()

    scheduler.run(main)


def test_cancelling_races_with_an_answer(scheduler: Scheduler, names: Names) -> None:
    """Cancelled at every moment of a race that is won, it is cancelled or connected, never both."""

    async def main() -> None:
        with server() as one, server() as two:
            names([one.getsockname(), two.getsockname()])
            before = socket_count()
            for turns in range(12):
                connecting = scheduler.spawn(connect_at_once)
                for _ in range(turns):
                    await scheduler.checkpoint()
                connecting.cancel()
                await connecting.wait()
                if not connecting.cancelled:
                    await (await connecting.result()).aclose()
                del connecting
                await scheduler.checkpoint()
                assert socket_count() == before

    scheduler.run(main)


def test_families_take_turns() -> None:
    """The resolver's order is kept within a family; the first one's family begins."""
    four = [(2, 1, 6, (f"127.0.0.{n}", 80)) for n in range(4)]
    six = [(10, 1, 6, (f"::{n}", 80, 0, 0)) for n in range(2)]
    assert interleaved([*six, *four]) == [six[0], four[0], six[1], four[1], four[2], four[3]]
    assert interleaved([four[0], four[1], six[0]]) == [four[0], six[0], four[1]]
    assert interleaved([four[0], four[0]]) == [four[0]]


def test_bad_delay_is_refused(scheduler: Scheduler) -> None:
    """Before a name is resolved."""

    async def main() -> None:
        for seconds in (-1, float("nan")):
            with pytest.raises(ValueError, match="delay"):
                await connect_tcp("some.invalid", 80, attempt_delay_seconds=seconds)

    scheduler.run(main)
