"""Direct descriptors on the running loop: files by their slots in the table of its ring."""

from operator import index
from typing import Final, cast

from uringio._driver import current
from uringio._driver.direct import Direct, FixedFd
from uringio._driver.op import INSTALL, READ, RECV_INTO, SEND, WRITE, Op
from uringio._driver.sockets import SEND_FLAGS, HasFileno, number_of
from uringio._own.fd import OwnedFd
from uringio.errors import UnsupportedError

__all__ = [
    "FixedFd",
    "fixed_read_into",
    "fixed_recv_into",
    "fixed_send",
    "fixed_write",
    "install_fd",
    "register_fd",
]

_OFFSET_MAX: Final = (1 << 63) - 1
_FLAGS_MAX: Final = (1 << 32) - 1


def register_fd(fd: int | HasFileno) -> FixedFd:
    """
    Give a file a slot in the table of the running ring.

    Args:
        fd: An `OwnedFd`, which moves into the table and is closed here, or any other descriptor,
            which stays the caller's: the table then holds the file as well.

    Raises:
        UnsupportedError: The loop runs on another backend, which has no such table, or the kernel
            lets no ring have one.
        ClosedError: The `OwnedFd` is closed.
        UsageError: The table is full (256), or no loop of uringio runs in this thread.
        OpError: The kernel refused, such as EBADF; an `OwnedFd` is as before.

    Kernel: 5.5.  Source: io_uring_register(2).
    """
    tables = current.driver().tables
    if tables is None:
        raise UnsupportedError("a direct descriptor", "the io_uring backend")
    file = tables.add_file(number_of(fd))
    if isinstance(fd, OwnedFd):
        fd.close()
    return file


def install_fd(file: FixedFd) -> Op[OwnedFd]:
    """
    Make an ordinary descriptor of the file of a direct one, which stays; closed on exec.

    Raises:
        UnsupportedError: The kernel cannot.
        ClosedError: *file* is closed.
        OpError: The kernel refused, such as EMFILE.

    Cancellation: what was made all the same is closed.

    Kernel: 6.8.  Source: io_uring_enter(2).
    """
    driver = current.driver()
    if driver.tables is None:
        raise UnsupportedError("a direct descriptor", "the io_uring backend")
    driver.tables.require_install()
    close = driver.system.close

    def finish(number: object) -> OwnedFd:
        return OwnedFd(cast("int", number), close, "descriptor")

    file.slot  # noqa: B018 - raises when it is closed
    op: Direct[OwnedFd] = Direct(INSTALL, file)
    op.home = driver
    op.finish = finish
    return op


def fixed_send(file: FixedFd, data: bytes | bytearray | memoryview, /, flags: int = 0) -> Op[int]:
    """
    Send from *data*; returns how many bytes.

    Raises:
        ClosedError: *file* is closed, or was closed meanwhile.
        ValueError: *flags*, or an offset, is out of range.
        OpError: The kernel refused.

    Lifetime: *data* is held until the operation has ended.  Source: send(2).
    """
    return _direct(SEND, file, data, flags=flags | SEND_FLAGS)


def fixed_recv_into(file: FixedFd, memory: bytearray | memoryview, /, flags: int = 0) -> Op[int]:
    """Receive into *memory*; returns how many bytes, 0 at the end.  Otherwise as `fixed_send`."""
    return _direct(RECV_INTO, file, memory, flags=flags)


def fixed_read_into(file: FixedFd, memory: bytearray | memoryview, offset: int, /) -> Op[int]:
    """Read from *offset* on into *memory*; returns how many bytes.  Otherwise as `fixed_send`."""
    return _direct(READ, file, memory, offset)


def fixed_write(file: FixedFd, data: bytes | bytearray | memoryview, offset: int, /) -> Op[int]:
    """Write *data* at *offset*; returns how many bytes.  Otherwise as `fixed_send`."""
    return _direct(WRITE, file, data, offset)


def _direct(
    row: int, file: FixedFd, memory: bytes | bytearray | memoryview, off: int = 0, flags: int = 0
) -> Direct[int]:
    file.slot  # noqa: B018 - raises when it is closed
    if not 0 <= index(off) <= _OFFSET_MAX:
        raise ValueError(f"an offset is from 0 to 2**63 - 1, not {off}")
    if not 0 <= index(flags) <= _FLAGS_MAX:
        raise ValueError(f"flags are 32 bits, not {flags}")
    op: Direct[int] = Direct(row, file, memory, off, flags)
    op.home = current.driver()
    return op
