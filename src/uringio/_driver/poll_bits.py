"""
The bits of poll(2).

What pollers report, and POLL ops ask for and answer, is in Linux's bits everywhere; they are the
same on other systems as far as those have them (`System.poll_fd`).

Source: poll(2), <asm-generic/poll.h>.
"""

from typing import Final

__all__ = [
    "ALWAYS_TOLD", "POLLERR", "POLLHUP", "POLLIN", "POLLNVAL", "POLLOUT", "POLLPRI", "POLLRDHUP",
]  # fmt: skip

POLLIN: Final = 0x001
POLLPRI: Final = 0x002
POLLOUT: Final = 0x004
POLLERR: Final = 0x008
POLLHUP: Final = 0x010
POLLNVAL: Final = 0x020
POLLRDHUP: Final = 0x2000

ALWAYS_TOLD: Final = POLLERR | POLLHUP | POLLNVAL  # whatever was asked for
