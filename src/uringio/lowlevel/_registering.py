"""How anything is registered: the call, and what a refusal means."""

import errno
import operator
from abc import ABC, abstractmethod

from uringio._ring.setup import Ring as Core
from uringio._sys.errnos import EBADFD
from uringio._sys.memory import pin
from uringio._sys.system import System
from uringio.errors import OpError, op_error

from ._opcodes import RegisterOp

__all__ = ["Registering", "call", "refusal"]


def call(
    where: Core | System, op: RegisterOp, argument: bytes | bytearray = b"", count: int = 0
) -> int:
    """Register with a ring, or by a system without one; raises what says why it was refused."""
    if not 0 <= operator.index(count) < 1 << 32:
        raise ValueError(f"{op.name} cannot be told of {count}: the kernel has 32 bits for it")
    addr = 0
    if argument:
        addr, _, _keep = pin(argument, writable=isinstance(argument, bytearray))
    if isinstance(where, System):
        fd, result = -1, where.io_uring_register(-1, op, addr, count)
    else:
        fd, result = where.fd, where.register(op, addr, count)
    if result < 0:
        raise refusal(-result, op, fd)
    return result


def refusal(number: int, op: RegisterOp, fd: int) -> OpError:
    detail = ""
    if number == errno.EINVAL:
        detail = f"not with these arguments, or this kernel is older than Linux {op.since}"
    elif number == errno.EACCES:
        detail = (
            "a thread that may still gain privileges may not: set PR_SET_NO_NEW_PRIVS first"
            if fd < 0
            else "the ring's restrictions forbid it"
        )
    elif number == EBADFD:
        detail = "only on a ring that is still disabled (SetupFlags.R_DISABLED)"
    elif number == errno.ENOMEM:
        detail = "the locked-memory limit (ulimit -l) may be too low"
    return op_error(number, f"register {op.name}", fd, detail=detail)


class Registering(ABC):
    """What registers with a ring."""

    @abstractmethod
    def _open(self) -> Core: ...

    @abstractmethod
    def _check_thread(self) -> None: ...

    @abstractmethod
    def _take_over(self) -> None: ...

    def _usable(self) -> Core:
        """Return the ring if the calling thread may use it; raises what says why not."""
        core = self._open()
        self._check_thread()
        return core

    def register(self, op: int, argument: bytes | bytearray = b"", count: int = 0) -> int:
        """
        Make any registration, by its number; a `bytearray` gets the kernel's answer.

        Lifetime: what *argument* points to is the caller's.
        """
        core = self._usable()
        return call(core, RegisterOp(op), argument, count)
