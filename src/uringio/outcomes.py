"""What became of an operation, as a value: a sum type that a type checker sees exhausted."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from uringio.errors import EndOfStreamError, OpError

__all__ = ["Done", "Ended", "Outcome", "Refused", "outcome"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Done(Generic[T_co]):
    """
    It was carried out.

    Attributes:
        value: What the operation returns.
    """

    value: T_co


@dataclass(frozen=True, slots=True)
class Refused:
    """
    The kernel refused it.

    Attributes:
        error: Which has errno, operation, descriptor, and how many bytes were done before.
    """

    error: OpError


@dataclass(frozen=True, slots=True)
class Ended:
    """
    The peer's end came before all that was asked for.

    Attributes:
        partial: What came before it.
    """

    partial: bytes


Outcome: TypeAlias = Done[T] | Refused | Ended


async def outcome(awaitable: Awaitable[T]) -> Outcome[T]:
    """
    Await *awaitable* and return what became of it.

    For ``match`` and `typing.assert_never`::

        result = await outcome(stream.recv_exactly(4))
        match result:
            case Done(head): ...
            case Ended(partial): ...
            case Refused(error): ...
            case _: assert_never(result)

    Mistakes of the program (`UsageError`) and cancellation are raised as ever: they are no answers
    to branch on.

    Cancellation: As *awaitable*'s.
    """
    try:
        return Done(await awaitable)
    except EndOfStreamError as error:
        return Ended(error.partial)
    except OpError as error:
        return Refused(error)
