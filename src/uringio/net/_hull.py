"""What a stream's operations keep alive."""

from collections import deque
from typing import Final, TypeVar, cast

from uringio._driver.messages import Received
from uringio._driver.op import RECV, RECV_INTO, RECV_LEASE, RECVMSG, Op
from uringio._own.fd import OwnedFd

from ._moves import arrived
from ._polling import KeepsUnread

__all__ = ["Hull"]

T = TypeVar("T")

_RECEIVES: Final = frozenset({RECV, RECV_INTO, RECV_LEASE, RECVMSG})


class Hull(KeepsUnread):
    """
    What a stream's operations keep alive: its descriptor, and what nobody has read yet.

    Apart from the stream, which refers to its ops, so that a stream that is dropped goes at once
    rather than when the garbage collector finds the circle.
    """

    __slots__ = ("fd", "unread")

    def __init__(self, fd: OwnedFd) -> None:
        self.fd = fd
        self.unread: deque[bytes | OSError] = deque()

    def has_unread(self) -> bool:
        """See `KeepsUnread`."""
        return bool(self.unread)

    def orphan(self, op: Op[T], value: object, /) -> None:
        """
        Keep what a cancelled receive had got; see `Owner`.

        Its error too: a reset is reported once, and after it comes what looks like an orderly end.
        """
        if op.code in _RECEIVES and value and isinstance(value, bytes | memoryview | OSError):
            kept = (
                value if isinstance(value, bytes | OSError) else cast("memoryview", value).tobytes()
            )
            if op.value is value:  # which was to be delivered: it came before what is there
                self.unread.appendleft(kept)
            else:
                self.unread.append(kept)
        elif op.code == RECV_INTO and value and isinstance(value, int):
            # Not out of `hold` or `memory`: an op that was done has let go of them.
            self.unread.append(arrived(op, value))
        elif isinstance(value, Received):
            value.close_fds()
            if data := value.payload():
                self.unread.append(data)
