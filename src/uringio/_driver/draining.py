"""
Taking datagrams that have come already, without a request for each.

A receive that has ended tells that the socket could be read; often there is more.  One more call of
recvfrom(2) costs less than the next RECVMSG, its completion and its message header, and where it
finds nothing the RECVMSG waits as ever.
"""

import errno
from typing import Final

from uringio._sys.libc import pointer_argument, size_argument
from uringio._sys.memory import Memory
from uringio._sys.numbers import MSG_DONTWAIT
from uringio._sys.system import System

__all__ = ["Drain"]

_NAME_BYTES: Final = 128
_DATA_AT: Final = 192


class Drain:
    """
    Memory for datagrams, one after the other.

    Args:
        system: Where memory comes from, and the call; where it has none, nothing is ever found.
        data_bytes: The longest datagram; of a longer one the rest is lost.
    """

    __slots__ = ("_call", "_data", "_data_bytes", "_get_errno", "_length", "_memory", "_name")

    def __init__(self, system: System, data_bytes: int) -> None:
        self._call = system.bare_recv_from
        self._get_errno = system.get_errno
        self._memory: Memory = system.allocate(_DATA_AT + data_bytes)
        addr = self._memory.addr
        # Prebuilt, as the bare door wants them.
        self._name = pointer_argument(addr), pointer_argument(addr + _NAME_BYTES)
        self._data = pointer_argument(addr + _DATA_AT)
        self._data_bytes = size_argument(data_bytes)
        self._length = self._memory.view[_NAME_BYTES : _NAME_BYTES + 4].cast("I")

    def take(self, fd: int) -> tuple[bytes, bytes] | int:
        """Return the next datagram and its sender's packed address, maybe empty; or ``-errno``."""
        call = self._call
        if call is None:
            return -errno.EAGAIN
        name, length = self._name
        self._length[0] = _NAME_BYTES
        count = call(fd, self._data, self._data_bytes, MSG_DONTWAIT, name, length)
        if count < 0:
            return -self._get_errno()
        slices = self._memory.slices
        return slices[_DATA_AT : _DATA_AT + count], slices[: min(self._length[0], _NAME_BYTES)]
