"""Fixtures of the public ring's tests: rings on the real kernel, closed at the end."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel import uring_refusal
from uringio.errors import UnsupportedError
from uringio.lowlevel import Ring


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """What the library says this kernel lacks is no failure; the reason is told."""
    try:
        yield
    except UnsupportedError as error:
        if error.since.startswith("Linux "):
            pytest.skip(str(error))
        raise


@pytest.fixture
def make_ring() -> Iterator[Callable[..., Ring]]:
    """Make rings; all are closed at the end."""
    if refusal := uring_refusal():
        pytest.skip(refusal)
    rings: list[Ring] = []

    def make(entries: int = 16, **arguments: int | None) -> Ring:
        rings.append(Ring(entries, **arguments))  # type: ignore[arg-type]
        return rings[-1]

    yield make
    for ring in rings:
        ring.close()


@pytest.fixture
def ring(make_ring: Callable[..., Ring]) -> Ring:
    """A ring of sixteen slots."""
    return make_ring()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected Unix stream sockets."""
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with known content."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path
