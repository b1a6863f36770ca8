"""
How a completion becomes an op's value: the second table of the io_uring driver.

A row is None where the value is ``res``.  Otherwise it is a function, which answers False where the
rest has to be asked for with another request.  Failures and cancellations do not come here.

A signal handler may raise behind any call, and then the row is gone through again.  So each makes
its calls first and its changes afterwards.
"""

from collections.abc import Callable
from typing import Final

from uringio._sys import constants as k
from uringio._sys.memory import pin

from . import op as o
from .attempts import VALUED
from .op import POLL_ON, READ_CACHED, RECV, RECVMSG, SEND_ALL, Op
from .outcome import received
from .poll_bits import ALWAYS_TOLD
from .uring_files import SHAPED

__all__ = ["SETTLES"]


def _settle_send_all(op: Op[object], res: int) -> bool:
    # It carries MSG_WAITALL, with which the kernel itself goes on after a short send: mostly.
    if res == op.len:
        op.memory = None
        op.hold = None
        return True
    if op.memory is not None:
        # From the first short send on, the rest goes by address, with what holds it there.
        op.addr, _, op.hold = pin(op.memory)
        op.memory = None
    op.addr += res
    op.done_bytes += res
    op.len -= res
    return False


def _settle_none(op: Op[object], _res: int) -> bool:
    op.memory = None
    op.hold = None
    return True


def _settle_count(op: Op[object], res: int) -> bool:
    op.memory = None
    op.hold = None
    op.value = res
    return True


def _settle_recv(op: Op[object], _res: int) -> bool:
    op.value = b""  # the peer's end; the kernel took no buffer for it
    op.standing = False
    return True


def _settle_recvmsg(op: Op[object], res: int) -> bool:
    op.value = received(op, res)
    op.hold = None
    return True


def _settle_poll(op: Op[object], res: int) -> bool:
    op.value = res & (op.flags | ALWAYS_TOLD) or None
    if op.value is not None:
        return True
    op.code = POLL_ON  # it was told of what it did not ask for: see `uring_polls`
    op.len = k.IORING_POLL_ADD_MULTI
    return False


SETTLES: Final[list[Callable[[Op[object], int], bool] | None]] = [None] * len(o.OPERATION_NAMES)
SETTLES[RECV] = SETTLES[o.RECV_LEASE] = _settle_recv
SETTLES[SEND_ALL] = _settle_send_all
SETTLES[RECVMSG] = _settle_recvmsg
SETTLES[o.POLL] = SETTLES[o.POLL_AGAIN] = _settle_poll
for _code in (*SHAPED, o.CONNECT, o.SHUTDOWN, o.CLOSE, o.FSYNC):
    SETTLES[_code] = _settle_none
for _code in VALUED - {o.NOP, o.ACCEPT, o.POLL, o.POLL_AGAIN, READ_CACHED}:
    SETTLES[_code] = _settle_count
