"""Rings that look at devices for their completions instead of being told."""

import errno
import os
from collections.abc import Callable
from ctypes import c_size_t, c_void_p
from pathlib import Path

import pytest

from tests.lowlevel.rig import PATIENCE_NS, done, effect, refusal, result
from uringio._sys.system import System
from uringio.errors import RingError, UsageError
from uringio.lowlevel import (
    EnterFlags,
    MsgRingCommand,
    Opcode,
    Ring,
    SetupFlags,
    SqeFlags,
    allocate,
    prep_msg_ring,
    prep_nop,
    prep_poll_add,
    prep_read,
    prep_rw,
    prep_timeout,
    prep_write,
)

MakeRing = Callable[..., Ring]
S = SetupFlags
DEFERRED = S.SINGLE_ISSUER | S.DEFER_TASKRUN
KINDS = [0, S.HYBRID_IOPOLL, DEFERRED, DEFERRED | S.TASKRUN_FLAG, S.COOP_TASKRUN, S.SQPOLL]
PAGE = 4096


class Watched(System):
    """Notes (completions waited for, flags) of every enter."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[int, int]] = []
        self._real = self.bare_syscall
        self.bare_syscall = self._enter

    def _enter(
        self, nr: int, fd: int, count: int, least: int, flags: int, argp: c_void_p,
        size: c_size_t, /,
    ) -> int:  # fmt: skip
        self.log.append((least, flags))
        return self._real(nr, fd, count, least, flags, argp, size)


@pytest.fixture(params=KINDS, ids=str)
def polling(make_ring: MakeRing, request: pytest.FixtureRequest) -> Ring:
    """A ring that polls, in each way that one may."""
    flags: int = request.param
    idle = {"sq_thread_idle_ms": 2} if flags & S.SQPOLL else {}
    return make_ring(16, flags=S.IOPOLL | flags, **idle)


def test_what_needs_no_device_completes(polling: Ring) -> None:
    """Requests that are done at once are handed out, by the batch, over many turns."""
    for base in range(0, 200, 8):
        for number in range(base, base + 8):
            prep_nop(polling, user_data=number)
        assert [one.user_data for one in done(polling, 8)] == list(range(base, base + 8))


@refusal(SetupFlags.HYBRID_IOPOLL)
def test_a_disk_is_read_by_looking_at_it(polling: Ring, tmp_path: Path) -> None:
    """
    Where its driver polls, the bytes arrive, and writes too; elsewhere it is EOPNOTSUPP.

    EINVAL is a file system without direct access.
    """
    path = tmp_path / "direct"
    path.write_bytes(b"p" * PAGE)
    try:
        fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    except OSError as error:
        pytest.skip(f"no direct access here: {error}")
    try:
        room = allocate(PAGE)
        prep_read(polling, fd, room, 0)
        got = result(polling)
        assert got in {PAGE, -errno.EOPNOTSUPP}
        if got == PAGE:
            assert bytes(room.view) == b"p" * PAGE
            room.view[:] = b"q" * PAGE
            prep_write(polling, fd, room, 0)
            assert result(polling) == PAGE
            assert path.read_bytes() == b"q" * PAGE
    finally:
        os.close(fd)


@effect(SetupFlags.IOPOLL)
def test_what_cannot_be_looked_for_is_refused(polling: Ring, file: Path) -> None:
    """Files through the cache are EOPNOTSUPP; what is no transfer is EINVAL; the ring goes on."""
    with open(file, "rb") as cached:
        prep_read(polling, cached.fileno(), bytearray(4), 0)
        assert result(polling) == -errno.EOPNOTSUPP
    prep_timeout(polling, 1)
    assert result(polling) == -errno.EINVAL
    prep_poll_add(polling, 0, 1)
    assert result(polling) == -errno.EINVAL
    for op in (Opcode.ASYNC_CANCEL, Opcode.FSYNC, Opcode.SEND, Opcode.OPENAT, Opcode.SPLICE):
        prep_rw(polling, op, -1, 0, 0, 0)
        assert result(polling) == -errno.EINVAL
    prep_nop(polling, user_data=1)
    assert [one.user_data for one in done(polling)] == [1]


def test_chains_break_as_anywhere(polling: Ring) -> None:
    """Behind a refused request its chain is cancelled."""
    prep_timeout(polling, 1, user_data=1, flags=SqeFlags.IO_LINK)
    prep_nop(polling, user_data=2)
    found = {one.user_data: one.res for one in done(polling, 2)}
    assert found == {1: -errno.EINVAL, 2: -errno.ECANCELED}


def test_messages_reach_other_rings(polling: Ring, ring: Ring) -> None:
    """A ring that polls may send."""
    prep_msg_ring(polling, ring.fd, 7, 99)
    assert result(polling) == 0
    assert MsgRingCommand.DATA == 0
    assert [one[:2] for one in done(ring)] == [(99, 7)]


def test_a_wait_ends_in_time(polling: Ring) -> None:
    """Though the kernel's look knows of none: with a timeout it is asked to look once, again."""
    assert polling.wait(1, 0) == []
    assert polling.wait(1, 2_000_000) == []
    prep_nop(polling, user_data=4)
    assert polling.wait(2, 2_000_000) == [(4, 0, 0)]


@effect(EnterFlags.GETEVENTS)
def test_how_the_kernel_is_asked(make_ring: MakeRing) -> None:
    """To look until enough have come, or, where there is a timeout, once; never with a timespec."""
    system = Watched()
    ring = make_ring(4, flags=S.IOPOLL, system=system)
    prep_nop(ring)
    ring.wait(1)
    prep_nop(ring)
    ring.wait(1, PATIENCE_NS)
    assert [least for least, _ in system.log] == [1, 0]
    assert all(flags & EnterFlags.GETEVENTS for _, flags in system.log)
    assert not any(flags & EnterFlags.EXT_ARG for _, flags in system.log)


def test_other_terms_of_waits_are_refused(make_ring: MakeRing) -> None:
    """Those that the kernel would not hear of while it looks."""
    ring = make_ring(4, flags=S.IOPOLL)
    for terms in ({"until_ns": 1}, {"min_wait_ns": 1000}, {"sigmask": [10]}):
        with pytest.raises(UsageError, match="only timeout_ns ends a wait"):
            ring.wait(1, **terms)  # type: ignore[arg-type]
    prep_nop(ring)
    assert result(ring) == 0


def test_closing_such_a_ring(make_ring: MakeRing, file: Path) -> None:
    """What was filled and never submitted is let go; no cancellation is taken, and none needed."""
    ring = make_ring(4, flags=S.IOPOLL)
    memory = bytearray(4)
    with open(file, "rb") as cached:
        prep_read(ring, cached.fileno(), memory, 0)
        ring.close()
    memory.extend(b"free to move")


def test_it_is_hybrid_only_with_polling(make_ring: MakeRing) -> None:
    """The kernel's EINVAL has a name."""
    with pytest.raises(UsageError, match="HYBRID_IOPOLL needs IOPOLL"):
        make_ring(4, flags=S.HYBRID_IOPOLL)
    with pytest.raises(RingError):
        make_ring(4, flags=S.IOPOLL | 1 << 30)
