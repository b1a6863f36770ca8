"""
Addresses that do not answer.

One is made of a listener whose queue is full: the kernel drops every further request to connect, as
if it had been lost on the way.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.surface.pairs import PEER_S


class Hole:
    """A listener that answers nobody until it is `filled` no more."""

    def __init__(self, stack: ExitStack, family: int, host: str) -> None:
        self.listener = stack.enter_context(socket.socket(family))
        self.listener.bind((host, 0))
        self.listener.listen(0)
        self.listener.settimeout(PEER_S)
        self.address = self.listener.getsockname()
        self._filler = stack.enter_context(socket.create_connection(self.address[:2]))

    def open_up(self) -> None:
        """Make room in the queue; the next repetition of a request will be answered."""
        self.listener.accept()[0].close()


@contextmanager
def holes(*hosts: str) -> Iterator[list[Hole]]:
    with ExitStack() as stack:
        try:
            yield [
                Hole(stack, socket.AF_INET6 if ":" in host else socket.AF_INET, host)
                for host in hosts
            ]
        except OSError as error:
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise
            pytest.skip(f"an address is missing here: {error}")
