"""What only the poll driver can get wrong: what it believes poll(2) was asked for."""

import select
import socket
from collections.abc import Iterator

import pytest

from tests.driver.conftest import RigMaker
from uringio._driver import op as o
from uringio._driver.op import Op
from uringio._sys.system import System


class Handled(Exception):
    """A signal handler's."""


class _Poll:
    """A poll object behind whose changes a signal handler raises, where the test wants it."""

    def __init__(self, raises: list[str]) -> None:
        self._real = select.poll()
        self._raises = raises
        self.poll = self._real.poll

    def register(self, fd: int, mask: int) -> None:
        self._real.register(fd, mask)
        self._handle("register")

    def unregister(self, fd: int) -> None:
        self._real.unregister(fd)
        self._handle("unregister")

    def _handle(self, call: str) -> None:
        if call in self._raises:
            self._raises.remove(call)
            raise Handled


class _Interrupted(System):
    def __init__(self) -> None:
        super().__init__()
        self.raises: list[str] = []

    def poll(self) -> "select.poll":
        return _Poll(self.raises)  # type: ignore[return-value]


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Two connections."""
    made = [socket.socketpair() for _ in range(2)]
    yield made
    for pair in made:
        for one in pair:
            one.close()


@pytest.mark.parametrize("call", ["register", "unregister"])
def test_a_handler_that_raises_between_changes_loses_none(
    make_rig: RigMaker, pairs: list[tuple[socket.socket, socket.socket]], call: str
) -> None:
    """What was changed before it is neither changed again, which poll refuses, nor forgotten."""
    system = _Interrupted()
    rig = make_rig("poll", system=system)
    (a, a_peer), (b, b_peer) = pairs
    for one in (a, b):
        rig.driver.register(one.fileno())
    first = rig.submit(Op(o.RECV, a.fileno()))
    rig.turn()
    rig.driver.cancel(first)
    first.state = o.SPENT
    rig.delivered.clear()
    # From here on the one is not asked about any more, and the other is.
    second = rig.submit(Op(o.RECV, b.fileno()))
    system.raises.append(call)
    with pytest.raises(Handled):
        rig.turn()
    assert not system.raises
    a_peer.send(b"unheard")
    b_peer.send(b"heard")
    assert rig.finish(second) == b"heard"
    assert rig.do(Op(o.RECV, a.fileno())) == b"unheard"
