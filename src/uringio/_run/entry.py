"""`run`: a program's way in, and its way out."""

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

from . import running
from .context import Context
from .interrupt import Interrupts

__all__ = ["checkpoint", "run"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run(
    async_fn: Callable[[*Ts], Awaitable[T]],
    *args: *Ts,
    backend: str = "auto",
) -> T:
    """
    Run ``async_fn(*args)`` on a loop of its own until it returns, and return what it returns.

    Args:
        async_fn: The program's main async function; not a coroutine.
        backend: ``"uring"``, ``"epoll"``, ``"poll"``, or ``"auto"``: what the environment variable
            ``URINGIO_BACKEND`` names, else io_uring, or epoll where that is absent or forbidden.

    Raises:
        UsageError: A loop already runs in this thread.
        RingError: The backend asked for cannot be had here.
        KeyboardInterrupt: Ctrl-C, after every task has been unwound.

    Lifetime: when it returns or raises, nothing is in flight and every descriptor of the loop is
    closed.

    Example:
        >>> import uringio
        >>> async def main(name: str) -> str:
        ...     await uringio.sleep(0)
        ...     return f"hello, {name}"
        >>> uringio.run(main, "ring")
        'hello, ring'
    """
    running.require_idle()
    with Interrupts() as interrupts:
        context = Context(backend=backend)
        try:
            interrupts.deliver_to(context)
            try:
                return context.run_main(async_fn, args)
            finally:
                context.run_down()
        finally:
            interrupts.only_note()
            context.close_driver()


async def checkpoint() -> None:
    """
    Let every other ready task run, and be cancelled here if that was asked for.

    Raises:
        Cancelled: The task's scope is cancelled.
    """
    context = running.context()
    await context.pass_turn()
