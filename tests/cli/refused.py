"""Commands that the kernel refuses things to: by a seccomp filter, by a limit of locked memory."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence

import pytest

__all__ = ["ENTER", "FILTER", "REGISTER", "SETUP", "as_anybody", "locked_to", "refusing", "under"]

SETUP, ENTER, REGISTER = 425, 426, 427

# Run first in the child: its system calls of these numbers end with that errno.
FILTER = """
import ctypes, struct

def refuse(numbers, error):
    libc = ctypes.CDLL(None, use_errno=True)
    load, jump_if_equal, answer = 0x20, 0x15, 0x06  # <linux/bpf_common.h>
    rows = [(load, 0, 0, 0)]
    for place, number in enumerate(numbers):
        rows.append((jump_if_equal, len(numbers) - place, 0, number))
    rows += [(answer, 0, 0, 0x7FFF0000), (answer, 0, 0, 0x00050000 | error)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in rows))
    program = struct.pack("HxxxxxxP", len(rows), ctypes.addressof(code))
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()  # PR_SET_SECCOMP
"""


def refusing(numbers: Sequence[int], error: int) -> str:
    """Return the beginning of a program whose calls of *numbers* are refused."""
    return f"{FILTER}\nrefuse({list(numbers)}, {error})\n"


def under(error: int) -> list[str]:
    """Return what runs a command, and all that it starts, without io_uring."""
    code = refusing([SETUP, ENTER, REGISTER], error)
    return [sys.executable, "-c", f"{code}\nimport os, sys\nos.execv(sys.argv[1], sys.argv[1:])"]


def as_anybody() -> list[str]:
    """
    Return what runs a command as a user whom nobody else is, with no right but to read.

    Not as ``nobody``: what may be locked is counted by user.  The interpreter may lie where a
    stranger cannot read it, so that one right of root's is kept.
    """
    if os.geteuid() != 0:
        return []
    found = shutil.which("setpriv")
    user = str(random.SystemRandom().randrange(1 << 20, 1 << 30))
    right = "+dac_read_search"
    prefix = [
        found or "", "--reuid", user, "--regid", user, "--clear-groups", "--inh-caps", right,
        "--ambient-caps", right, "--bounding-set", "-all,+dac_read_search", "--",
    ]  # fmt: skip
    if found is None or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("no setpriv that makes of root somebody else")
    return prefix


def locked_to(limit_bytes: int) -> list[str]:
    """Return what runs a command that may lock so much memory."""
    code = """
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
os.execv(sys.argv[2], sys.argv[2:])
"""
    return [sys.executable, "-c", code, str(limit_bytes)]
