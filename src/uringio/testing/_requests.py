"""
One submitted request, and the table of what each operation does.

The handlers stand in modules of their own, by what they are about, and enter themselves into
`HANDLERS`; `_operations` imports them all.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from uringio._driver.poll_bits import POLLERR, POLLHUP, POLLIN, POLLOUT
from uringio._sys import constants as k

from ._objects import SimFile

if TYPE_CHECKING:
    from ._kernel import SimKernel
    from ._rings import SimRing

__all__ = [
    "BYTE_ORDER", "FOR_READING", "FOR_WRITING", "HANDLERS", "OPCODE_NAMES", "REFUSALS", "Handler",
    "Refusal", "Request", "handles", "refuses",
]  # fmt: skip

# What makes a parked request worth trying again.
FOR_READING: Final = POLLIN | POLLERR | POLLHUP
FOR_WRITING: Final = POLLOUT | POLLERR | POLLHUP

OPCODE_NAMES: Final[dict[int, str]] = {
    value: name.removeprefix("IORING_OP_").lower()
    for name, value in vars(k).items()
    if name.startswith("IORING_OP_")
}

BYTE_ORDER: Final = "little" if memoryview(b"\1\0").cast("H")[0] == 1 else "big"


class Request:
    """
    One SQE, from its submission to its last completion.

    Attributes:
        serial: Which of the ring's requests it is.
        state: ``"new"`` while it waits for others to end, ``"parked"`` on its file, ``"woken"``,
            ``"working"`` in a thread of the kernel's, or ``"done"``.
        result: What it is going to complete with, None while it is to be tried.
        file: What its descriptor named when it was started.
        waits_on: What it is parked on, if not that file.
        shots: Whether it completes again and again; 0 for no, else how often it has, from 1.
        done_bytes: What a transfer that goes on has moved.
        buffer: The provided buffer that it has taken, -1 for none.
        timer: The pending call that will wake it, 0 for none.
        lent: The bytes of a zero-copy send whose notification is due, None before that.
        seen: What its file was ready for when it was woken.
        failed: What it is refused with when its turn comes; 0: nothing. [errno]
        next: What is linked to it.
        guards: The request whose time a LINK_TIMEOUT limits.
    """

    __slots__ = (
        "addr", "addr3", "buffer", "buffer_group", "done_bytes", "failed", "fd", "file",
        "file_index", "flags", "guards", "ioprio", "len", "lent", "next", "off", "op_flags",
        "opcode", "result", "ring", "seen", "serial", "shots", "state", "timer", "user_data",
        "waits_on", "wanted",
    )  # fmt: skip

    def __init__(self, ring: "SimRing", serial: int, fields: tuple[int, ...]) -> None:
        head, self.fd, self.off, self.addr, self.len, self.op_flags, self.user_data = fields[:7]
        self.buffer_group, _, self.file_index, self.addr3 = fields[7:11]
        raw = head.to_bytes(4, BYTE_ORDER)
        self.opcode, self.flags = raw[0], raw[1]
        self.ioprio = int.from_bytes(raw[2:], BYTE_ORDER)
        self.ring = ring
        self.serial = serial
        self.state = "new"
        self.result: int | None = None
        self.file: SimFile | None = None
        self.waits_on: SimFile | None = None
        self.shots = 0
        self.done_bytes = 0
        self.buffer = -1
        self.timer = 0
        self.wanted = 0
        self.lent: bytes | None = None
        self.failed = 0
        self.seen = 0
        self.next: Request | None = None
        self.guards: Request | None = None

    @property
    def name(self) -> str:
        """The operation's name."""
        return OPCODE_NAMES.get(self.opcode, f"opcode {self.opcode}")

    def on_ready(self, file: SimFile, mask: int, /) -> None:
        """See `Watcher`."""
        if mask & self.wanted and self.state == "parked":
            if not self.shots:
                file.unwatch(self)
            # What it was woken for is what a poll tells, whoever has taken it by then.
            self.seen = mask & self.wanted
            self.ring.wake(self)

    def unwatch(self) -> None:
        """Be parked no more."""
        file = self.waits_on or self.file
        if file is not None:
            file.unwatch(self)

    def __repr__(self) -> str:
        return f"<{self.name} on fd {self.fd}, user_data {self.user_data:#x}, {self.state}>"


# A result, ``-errno``, or None where it would have to wait; then it is tried again when the
# request's file is ready.  Memory is the program's own, at the addresses of the SQE.
Handler = Callable[["SimKernel", Request], int | None]
HANDLERS: Final[dict[int, Handler]] = {}


# What a request is refused for before it, or any of its chain, is begun: an errno, or 0.
Refusal = Callable[[Request], int]
REFUSALS: Final[dict[int, Refusal]] = {}


def refuses(*opcodes: int) -> Callable[[Refusal], Refusal]:
    """Enter a refusal into its table."""

    def note(refusal: Refusal) -> Refusal:
        for opcode in opcodes:
            REFUSALS[opcode] = refusal
        return refusal

    return note


def handles(*opcodes: int) -> Callable[[Handler], Handler]:
    """Enter a handler into the table."""

    def note(handler: Handler) -> Handler:
        for opcode in opcodes:
            HANDLERS[opcode] = handler
        return handler

    return note
