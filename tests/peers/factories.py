"""
The loops to compare, and how tests that make loops by asyncio's names come to make those.

Tests make loops by `asyncio.new_event_loop`, by the classes `asyncio.SelectorEventLoop` and
`asyncio.EventLoop`, through policies and through runners; all of them end at three names, which
`substitute` binds anew before any test module is imported.  What stands there is a subclass of the
chosen loop, so that it is one by any test of its type, which counts its instances: a test that
makes no loop says nothing about one.
"""

import asyncio
import os
from asyncio import unix_events
from collections.abc import Callable
from typing import Self

__all__ = ["LOOPS", "loop_class", "missing", "substitute"]

LOOPS = ("asyncio", "uvloop", "uringio")


def missing(name: str) -> str | None:
    """Say why the loop *name* cannot be had here; None if it can."""
    if name == "uvloop":
        try:
            import uvloop  # noqa: F401 - whether it can be
        except ImportError:
            return "uvloop is not installed"
    return None


def loop_class(name: str) -> type[asyncio.AbstractEventLoop]:
    """Return the class of the loop *name*."""
    if name == "uringio":
        from uringio.aio import EventLoop

        return EventLoop
    if name == "uvloop":
        import uvloop

        return uvloop.Loop
    return asyncio.SelectorEventLoop


def substitute(name: str, made: Callable[[], None]) -> None:
    """
    Have whoever makes a loop from now on make the loop *name*.

    Args:
        name: One of `LOOPS`.
        made: Called whenever a loop is made.

    The selector that some tests choose is ignored, except by asyncio's own loop.
    """
    base = loop_class(name)

    class Substitute(base):  # type: ignore[misc,valid-type]
        def __new__(cls, selector: object = None) -> Self:
            return super().__new__(cls)

        def __init__(self, selector: object = None) -> None:
            made()
            if name == "asyncio":
                super().__init__(selector)
            else:
                super().__init__()

    if not hasattr(base, "_default_executor"):
        # What closes the loop behind each of CPython's tests looks for one.
        Substitute._default_executor = None

    # Tests and messages know loops by the names of their classes.
    Substitute.__name__ = base.__name__
    Substitute.__qualname__ = base.__qualname__
    Substitute.__module__ = base.__module__

    for module in (asyncio, unix_events):
        for attribute in ("SelectorEventLoop", "EventLoop"):
            if hasattr(module, attribute):
                setattr(module, attribute, Substitute)
    policy = getattr(unix_events, "DefaultEventLoopPolicy", None) or getattr(
        unix_events, "_DefaultEventLoopPolicy", None
    )
    if policy is not None:
        policy._loop_factory = Substitute
    os.environ["PEERS_LOOP"] = name
