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

    async def connect_read_pipe(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("pipes")

    async def connect_write_pipe(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("pipes")

    async def subprocess_exec(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("subprocesses")

    async def subprocess_shell(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse."""
        refuse("subprocesses")
