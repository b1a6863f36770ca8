"""What asyncio's loops offer and this one does not yet, each saying so."""

import asyncio
from typing import NoReturn

__all__ = ["UnsupportedCalls", "refuse"]


def refuse(what: str) -> NoReturn:
    """Raise NotImplementedError for *what*."""
    raise NotImplementedError(f"uringio's asyncio loop does not support {what} yet")


class UnsupportedCalls(asyncio.BaseEventLoop):
    """The refusals, as methods."""

    async def start_tls(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("TLS")

    async def sendfile(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("sendfile")

    async def sock_sendfile(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("sendfile")

    async def sock_recv(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("operations on socket objects")

    async def sock_recv_into(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("operations on socket objects")

    async def sock_recvfrom(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("operations on socket objects")

    async def sock_recvfrom_into(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("operations on socket objects")

    async def sock_sendall(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("operations on socket objects")

    async def sock_sendto(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("operations on socket objects")

    async def sock_connect(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("operations on socket objects")

    async def sock_accept(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("operations on socket objects")

    def add_reader(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("readiness callbacks")

    def remove_reader(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("readiness callbacks")

    def add_writer(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("readiness callbacks")

    def remove_writer(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("readiness callbacks")
