"""The two doors to the C library."""

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel import uring_refusal
from uringio._sys import constants as k
from uringio._sys.layouts import GETEVENTS_ARG, PARAMS, TIMESPEC
from uringio._sys.libc import Libc, get_errno, pointer_argument, size_argument
from uringio._sys.memory import Memory, pin
from uringio._sys.system import System

libc = Libc()

WAITS = 200


def test_timed_waits_through_the_bare_door_always_reach_the_kernel_whole() -> None:
    """
    The prebuilt last arguments arrive with all their bits: every wait times out, none faults.

    The seventh argument of `syscall` travels on the stack, where a plain int fills but half of its
    slot.  The typed calls in between leave ones in that slot.
    """
    if refusal := uring_refusal():
        pytest.skip(refusal)
    system = System()
    params = bytearray(k.SIZEOF_PARAMS)
    params_addr, _, keep = pin(params, writable=True)
    fd = system.io_uring_setup(1, params_addr)
    assert fd >= 0
    assert PARAMS.unpack(params)[5] & k.IORING_FEAT_EXT_ARG
    memory = Memory(4096)
    GETEVENTS_ARG.pack_into(memory.view, 0, 0, 0, 0, memory.addr + 64)
    TIMESPEC.pack_into(memory.view, 64, 0, 1000)
    argp, argsz = pointer_argument(memory.addr), size_argument(GETEVENTS_ARG.size)
    flags = k.IORING_ENTER_GETEVENTS | k.IORING_ENTER_EXT_ARG
    answers = []
    for _ in range(WAITS):
        ones = 2**64 - 1
        assert libc.syscall(k.NR_IO_URING_REGISTER, -1, -1, -1, -1, ones, ones) == -errno.EINVAL
        result = system.bare_syscall(system.nr_enter, fd, 0, 1, flags, argp, argsz)
        answers.append(result if result >= 0 else -get_errno())
    os.close(fd)
    del keep
    assert set(answers) <= {0, -errno.ETIME}
    assert -errno.ETIME in answers


def test_bare_door_declares_nothing() -> None:
    """Its function is its own: the typed door's argument types, at 600 ns, are not on it."""
    assert libc.bare_syscall.argtypes is None  # type: ignore[attr-defined]
    assert libc.bare_syscall is not Libc().bare_syscall


def test_prebuilt_arguments_hold_what_they_were_given() -> None:
    """Addresses above 4 GiB and NULL survive the making."""
    assert pointer_argument(0x7F12_3456_789A).value == 0x7F12_3456_789A
    assert pointer_argument(0).value is None
    assert size_argument(24).value == 24
    assert isinstance(pointer_argument(1), ctypes.c_void_p)
    assert isinstance(size_argument(1), ctypes.c_size_t)


@pytest.mark.parametrize(
    ("call", "number"),
    [
        (lambda: libc.close(-1), errno.EBADF),
        (lambda: libc.listen(-1, 1), errno.EBADF),
        (lambda: libc.shutdown(-1, 0), errno.EBADF),
        (lambda: libc.connect(-1, 0, 0), errno.EBADF),
        (lambda: libc.bind(-1, 0, 0), errno.EBADF),
        (lambda: libc.recv(-1, 0, 0, 0), errno.EBADF),
        (lambda: libc.send(-1, 0, 0, 0), errno.EBADF),
        (lambda: libc.read(-1, 0, 0), errno.EBADF),
        (lambda: libc.write(-1, 0, 0), errno.EBADF),
        (lambda: libc.accept4(-1, 0, 0, 0), errno.EBADF),
        (lambda: libc.pread64(-1, 0, 0, 0), errno.EBADF),
        (lambda: libc.pwrite64(-1, 0, 0, 0), errno.EBADF),
        (lambda: libc.getsockname(-1, 0, 0), errno.EBADF),
        (lambda: libc.getpeername(-1, 0, 0), errno.EBADF),
        (lambda: libc.setsockopt(-1, 0, 0, 0, 0), errno.EBADF),
        (lambda: libc.getsockopt(-1, 0, 0, 0, 0), errno.EBADF),
        (lambda: libc.socket(-1, 1, 0), errno.EAFNOSUPPORT),
        (lambda: libc.mmap(0, 0, 3, 0x22, -1, 0), errno.EINVAL),
        (lambda: libc.mmap(0, 4096, 3, 1, -1, 0), errno.EBADF),
        (lambda: libc.munmap(1, 4096), errno.EINVAL),
        (lambda: libc.syscall(k.NR_IO_URING_ENTER, -1, 0, 0, 0, 0, 0), errno.EBADF),
    ],
)
def test_typed_door_answers_the_negative_errno(call: Callable[[], int], number: int) -> None:
    """A refused call answers -errno itself, also where the C function answers a pointer."""
    assert call() == -number


def test_typed_door_answers_the_result() -> None:
    """Counts and descriptors come through as they are, and memory by address is what moves."""
    read_fd, write_fd = os.pipe()
    memory = Memory(8192)
    memory.view[:5] = b"hello"
    assert libc.write(write_fd, memory.addr, 5) == 5
    assert libc.read(read_fd, memory.addr + 4096, 4096) == 5
    assert bytes(memory.view[4096:4101]) == b"hello"
    assert libc.close(read_fd) == 0
    assert libc.close(write_fd) == 0


def test_offsets_are_64_bits_wide(tmp_path: Path) -> None:
    """A read and a write beyond 4 GiB land where they were told to."""
    fd = os.open(tmp_path / "sparse", os.O_RDWR | os.O_CREAT, 0o600)
    offset = (1 << 33) + 7
    memory = Memory(4096)
    memory.view[:3] = b"far"
    assert libc.pwrite64(fd, memory.addr, 3, offset) == 3
    assert libc.pread64(fd, memory.addr + 100, 3, offset) == 3
    assert bytes(memory.view[100:103]) == b"far"
    assert libc.pread64(fd, memory.addr + 200, 3, 7) == 3
    assert bytes(memory.view[200:203]) == bytes(3)
    os.close(fd)


def test_functions_are_made_once() -> None:
    """No call makes a foreign function anew: `System` binds the very objects that are called."""
    system = System()
    for name in ("pread", "pwrite", "recv", "send", "read", "write", "connect", "close"):
        assert getattr(system, name) is getattr(system, name)
        assert not hasattr(getattr(system, name), "__self__"), name


def test_function_that_this_library_lacks_is_not_implemented() -> None:
    """What a C library does not have answers -ENOSYS when called, not before."""
    missing = libc._typed_any(("no_such_function", "nor_this_one"), ctypes.c_int, ctypes.c_int)
    assert missing(1) == -errno.ENOSYS


def test_function_is_found_by_any_of_its_names() -> None:
    """The first name that the library has is taken."""
    close = libc._typed_any(("no_such_function", "close"), ctypes.c_int, ctypes.c_int)
    assert close(-1) == -errno.EBADF


def test_errno_is_the_threads_own() -> None:
    """What another thread was refused is not seen here."""
    assert libc.close(-1) == -errno.EBADF
    other = threading.Thread(target=libc.socket, args=(-1, 1, 0))
    other.start()
    other.join()
    assert get_errno() == errno.EBADF
