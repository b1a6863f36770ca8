"""
Ask the kernel, not the library, whether io_uring can be had.

If the library were asked, a library that wrongly believed io_uring to be blocked would skip its own
tests.
"""

import ctypes
import errno
import functools
import os
import platform
from pathlib import Path

SYS_IO_URING_SETUP = 425  # the same on every architecture
PARAMS_SIZE_BYTES = 120  # struct io_uring_params
CAP_IPC_LOCK = 14
LOCKED_BYTES = 8 << 20  # what tests of locked memory need, several at a time


@functools.cache
def uring_refusal() -> str | None:
    """Say why a ring cannot be set up here, or None where it can."""
    if platform.system() != "Linux":
        return f"{platform.system()} has no io_uring"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    params = ctypes.create_string_buffer(PARAMS_SIZE_BYTES)
    fd = libc.syscall(ctypes.c_long(SYS_IO_URING_SETUP), ctypes.c_uint(1), ctypes.byref(params))
    if fd >= 0:
        os.close(fd)
        return None
    number = ctypes.get_errno()
    reason = f"io_uring_setup: {errno.errorcode.get(number, number)} ({os.strerror(number)})"
    switch = Path("/proc/sys/kernel/io_uring_disabled")
    if switch.exists() and (value := switch.read_text().strip()) != "0":
        reason += f"; kernel.io_uring_disabled = {value}"
    return reason


def lock_refusal() -> str | None:
    """Say why a few MiB of memory cannot be locked here, or None where they can."""
    import resource

    limit_bytes, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (effective,) = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")]
    may_lock = bool(int(effective, 16) >> CAP_IPC_LOCK & 1)
    if may_lock or limit_bytes < 0 or limit_bytes >= LOCKED_BYTES:
        return None
    return f"only {limit_bytes} bytes of memory may be locked (ulimit -l), not {LOCKED_BYTES}"
