"""Calls that block, made by worker threads."""

import contextvars
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from uringio._driver import current
from uringio._driver.op import Offload, Op

__all__ = ["offload"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def offload(function: Callable[[*Ts], T], *args: *Ts) -> Op[T]:
    """
    Call ``function(*args)`` in a worker thread and wait for what it returns.

    The call sees the context variables of the caller.  At most eight calls run at once; more wait
    in line.

    Raises:
        Exception: What *function* raises.

    Cancellation: at once; the call itself runs on to its end unheard, so it must own what it uses.
    Exit does not wait for it.
    """
    current.driver()
    context = contextvars.copy_context()
    return Offload(lambda: context.run(function, *args))
