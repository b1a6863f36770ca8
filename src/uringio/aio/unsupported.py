"""What asyncio's loops offer and this one does not yet, each saying so."""

import asyncio
from typing import NoReturn

__all__ = ["UnsupportedCalls", "refuse"]


def refuse(what: str) -> NoReturn:
    """Raise NotImplementedError for *what*."""
    raise NotImplementedError(f"uringio's asyncio loop does not support {what} yet")


class UnsupportedCalls(asyncio.BaseEventLoop):
    """The refusals, as methods."""

    async def sendfile(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("sendfile")

    async def sock_sendfile(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("sendfile")
