"""Calls that block, made by worker threads."""

import contextvars
import threading
from collections.abc import Callable
from typing import NoReturn, TypeVar, TypeVarTuple, final

from uringio._driver import current
from uringio._driver.op import Offload, Op
from uringio.errors import UsageError

__all__ = ["MayBlock", "offload", "offload_blocking"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def offload(function: Callable[[*Ts], T], *args: *Ts) -> Op[T]:
    """
    Call ``function(*args)`` in a worker thread and wait for what it returns.

    The call sees the context variables of the caller.  At most eight calls run at once; more wait
    in line.

    Raises:
        Exception: What *function* raises.
        OpError: EAGAIN: no thread could be started, and *function* is not called.

    Cancellation: at once; the call itself runs on to its end unheard, so it must own what it uses.
    Exit does not wait for it.
    """
    current.driver()
    context = contextvars.copy_context()
    return Offload(lambda: context.run(function, *args))


@final
class MayBlock:
    """
    The right to block, which only a worker thread has.

    A function that blocks takes one as its first parameter, and then no type checker lets a task
    call it: there is nothing to pass.  `offload_blocking` calls it in a worker thread, and hands
    one in.  At run time nobody can make one, and outside of its thread it does not hold.
    """

    __slots__ = ("_thread_id",)

    _thread_id: int

    def __init__(self) -> None:
        raise TypeError("the right to block is given by offload_blocking, and cannot be made")

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("MayBlock is sealed")

    @classmethod
    def _of_this_thread(cls) -> "MayBlock":
        right = cls.__new__(cls)
        right._thread_id = threading.get_ident()
        return right

    def check(self) -> None:
        """Raise `UsageError` outside of the worker thread that this was given to."""
        if self._thread_id != threading.get_ident():
            raise UsageError("this right to block belongs to another thread")


def offload_blocking(
    function: Callable[[MayBlock, *Ts], T],
    *args: *Ts,
) -> Op[T]:
    """
    Call ``function(may_block, *args)`` in a worker thread and wait for what it returns.

    As `offload` in everything else.
    """
    return offload(lambda: function(_right_of_this_thread(), *args))


_right_of_this_thread = MayBlock._of_this_thread  # pyright: ignore[reportPrivateUsage]
