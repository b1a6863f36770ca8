"""What the contract suites share: one behaviour after another, each with a bound and a name."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVarTuple, cast

from uringio._run.scope import timeout

from .errors import ContractError

__all__ = ["Closable", "Closing", "carry_out", "expect", "refused", "title_of"]

Ts = TypeVarTuple("Ts")

PATIENCE_SECONDS: Final = 20.0


class Closable(Protocol):
    """Whatever has an end."""

    def aclose(self) -> Awaitable[None]:
        """Close it; safe to call twice."""
        ...


class Closing:
    """Closes what it is given at the block's end, whatever happened to it before."""

    def __init__(self, *ones: Closable) -> None:
        self._ones = ones

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        for one in self._ones:
            await one.aclose()


def expect(condition: object, message: str) -> None:
    """Raise `ContractError` unless *condition* holds."""
    if not condition:
        raise ContractError(message)


async def refused(
    kinds: type[Exception] | tuple[type[Exception], ...],
    async_fn: Callable[[*Ts], Awaitable[object]],
    *args: *Ts,
    what: str,
) -> None:
    """Expect ``async_fn(*args)`` to raise one of *kinds*; *what* says what it was."""
    try:
        await async_fn(*args)
    except kinds:
        return
    names = kinds.__name__ if isinstance(kinds, type) else kinds[0].__name__
    raise ContractError(f"{what} did not raise {names}")


def title_of(behaviour: Callable[..., object]) -> str:
    """Return what a behaviour is called in messages: the first line of its docstring."""
    return (behaviour.__doc__ or behaviour.__name__).strip().splitlines()[0]


async def carry_out(
    suite: str,
    behaviours: Sequence[Callable[[*Ts], Awaitable[None]]],
    *args: *Ts,
) -> None:
    """Check one behaviour after another; a failure is told with the behaviour's name."""
    for behaviour in behaviours:
        try:
            with timeout(PATIENCE_SECONDS):
                await behaviour(*args)
        except Exception as error:
            title = title_of(behaviour)
            found = _first(error)
            if isinstance(found, ContractError):
                raise ContractError(f"{suite}: {title} But: {found}") from error
            if isinstance(found, TimeoutError):
                raise ContractError(f"{suite}: {title} But: nothing happened any more") from error
            raise ContractError(f"{suite}: {title} But: {found!r}") from error


def _first(error: BaseException) -> BaseException:
    """Return what matters of *error*, which may be a group: the first refusal, or the first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    leaves = [_first(one) for one in group.exceptions]
    return next((one for one in leaves if isinstance(one, ContractError)), leaves[0])
