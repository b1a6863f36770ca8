"""Generated programs for one ring, whose completions must be the same on the real kernel."""

import errno
import warnings
from collections.abc import Callable
from typing import NamedTuple

from uringio import lowlevel as low
from uringio._driver.poll_bits import POLLOUT
from uringio._sys import constants as k
from uringio._sys.numbers import MSG_DONTWAIT, MSG_NOSIGNAL
from uringio._sys.system import System
from uringio.errors import UsageError
from uringio.testing._dice import Dice

_TOLD = k.IORING_CQE_F_MORE | k.IORING_CQE_F_BUFFER | k.IORING_CQE_F_NOTIF
_LINKS = (0, 0, 0, k.IOSQE_IO_LINK, k.IOSQE_IO_HARDLINK)
_BUFFERS = 8
_CLOSE_NS = 100_000_000
# Over when a step is, and not while it is submitted.
_SOON_NS = 1_000_000
_BUFFER_BYTES = 64
_MAKES_FD = 1 << 40  # in the user_data of what answers a descriptor
_POLLS = (0x001, 0x004, 0x005, 0x2001)


class Step(NamedTuple):
    """Requests that are submitted together."""

    requests: tuple["Asked", ...]


class Asked(NamedTuple):
    """One request: which operation, two numbers for it to use, and its flags."""

    action: str
    first: int
    second: int
    flags: int


class World:
    """Two rings, and what their requests are about."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.ring = low.Ring(64, system=system)
        self.other = low.Ring(8, system=system)
        self.buffers = self.ring.setup_buf_ring(1, _BUFFERS, _BUFFER_BYTES)
        self.memory = system.allocate(65536)
        self.memory.view[:4096] = bytes(range(256)) * 16
        self.pipes = [system.pipe() for _ in range(3)]
        for pair in self.pipes:
            for fd in pair:
                system.set_blocking(fd, True)
        self.listener = system.socket(system.AF_INET, system.SOCK_STREAM)
        system.bind(self.listener, system.AF_INET, ("127.0.0.1", 0))
        system.listen(self.listener, 16)
        self.clients: list[int] = []
        self.made: list[int] = []
        self.streams = self._pair()
        self.ring.register_files_sparse(4)
        self.number = 0
        self.readers: dict[int, int] = {}  # the one reader of each descriptor, by its name

    def reads(self, fd: int, asked: "Asked", name: int) -> int:
        """
        Return the flags of a reader, -1 if there is one already.

        Which of two gets what is nobody's promise.
        """
        if fd in self.readers.values():
            low.prep_nop(self.ring, user_data=name, flags=asked.flags)
            return -1
        self.readers[name] = fd
        return asked.flags & ~k.IOSQE_CQE_SKIP_SUCCESS

    def _pair(self) -> tuple[int, int]:
        client = self.connect()
        return client, self.system.accept(self.listener, 0, 0, 0)

    def connect(self) -> int:
        """Connect to the listener by a blocking socket, without waiting for an accept."""
        system = self.system
        address = system.getsockname(self.listener)
        assert isinstance(address, tuple)
        raw = system.pack_sockaddr(system.AF_INET, address)
        place = 8192
        self.memory.view[place : place + len(raw)] = raw
        fd = system.socket(system.AF_INET, system.SOCK_STREAM)
        self.clients.append(fd)
        with low.Ring(4, system=system) as ring:
            low.prep_connect(ring, fd, self.memory.addr + place, len_bytes=len(raw))
            assert ring.wait(1)[0][1] == 0
        return fd

    def close(self) -> None:
        with warnings.catch_warnings():
            # Behind a drain whose turn never comes not even a cancel gets through.
            warnings.simplefilter("ignore", ResourceWarning)
            for ring in (self.ring, self.other):
                ring.close(_CLOSE_NS)
        fds = [*self.clients, *self.made, self.listener, self.streams[1]]
        for fd in [*fds, *(fd for pair in self.pipes for fd in pair)]:
            self.system.close(fd)


def _earlier(name: int) -> int:
    """Return the name of an earlier request, or of none; never one's own."""
    return name if name > 0 else 9_999


def _read(world: World, asked: Asked, name: int) -> None:
    fd = world.pipes[asked.first % 3][0]
    if (flags := world.reads(fd, asked, name)) >= 0:
        low.prep_read(
            world.ring, fd, world.memory.addr + 16384, -1, len_bytes=1 + asked.second % 40,
            user_data=name, flags=flags,
        )  # fmt: skip


def _write(world: World, asked: Asked, name: int) -> None:
    fd = world.pipes[asked.first % 3][1]
    low.prep_write(
        world.ring, fd, world.memory.addr, -1, len_bytes=1 + asked.second % 40,
        user_data=name, flags=asked.flags,
    )  # fmt: skip


def _nop(world: World, asked: Asked, name: int) -> None:
    low.prep_nop(world.ring, user_data=name, flags=asked.flags)


def _bad(world: World, asked: Asked, name: int) -> None:
    low.prep_read(
        world.ring, 987654, world.memory.addr, 0, len_bytes=1, user_data=name, flags=asked.flags
    )  # fmt: skip


def _recv(world: World, asked: Asked, name: int) -> None:
    fd = world.streams[asked.first % 2]
    waits_for_all = 0x100 if asked.second % 3 == 0 else 0
    if (flags := world.reads(fd, asked, name)) >= 0:
        low.prep_recv(
            world.ring, fd, world.memory.addr + 20000, waits_for_all,
            len_bytes=1 + asked.second % 60, user_data=name, flags=flags,
        )  # fmt: skip


def _recv_shots(world: World, asked: Asked, name: int) -> None:
    fd = world.streams[asked.first % 2]
    if (flags := world.reads(fd, asked, name)) >= 0:
        low.prep_recv_multishot(world.ring, fd, buf_group=1, user_data=name, flags=flags)


def _read_shots(world: World, asked: Asked, name: int) -> None:
    fd = world.pipes[asked.first % 3][0]
    if (flags := world.reads(fd, asked, name)) >= 0:
        low.prep_read_multishot(world.ring, fd, 0, -1, 1, user_data=name, flags=flags)


def _send(world: World, asked: Asked, name: int) -> None:
    fd = world.streams[asked.first % 2]
    low.prep_send(
        world.ring, fd, world.memory.addr, 0x4000, len_bytes=1 + asked.second % 100,
        user_data=name, flags=asked.flags,
    )  # fmt: skip


def _end(world: World, asked: Asked, name: int) -> None:
    fd = world.streams[asked.first % 2]
    low.prep_shutdown(world.ring, fd, 1, user_data=name, flags=asked.flags)


def _poll(world: World, asked: Asked, name: int) -> None:
    ends = [*world.pipes[asked.first % 3], *world.streams, world.listener]
    prep = low.prep_poll_multishot if asked.second % 2 else low.prep_poll_add
    mask = _POLLS[asked.second % len(_POLLS)]
    prep(world.ring, ends[asked.second % 5], mask, user_data=name, flags=asked.flags)


def _poll_remove(world: World, asked: Asked, name: int) -> None:
    low.prep_poll_remove(
        world.ring, _earlier(name - 1 - asked.first % 4), user_data=name, flags=asked.flags
    )


def _cancel(world: World, asked: Asked, name: int) -> None:
    target = _earlier(name - 1 - asked.first % 6)
    low.prep_cancel64(world.ring, target, user_data=name, flags=asked.flags)


def _cancel_fd(world: World, asked: Asked, name: int) -> None:
    fds = [pair[0] for pair in world.pipes] + [world.streams[0]]
    every = k.IORING_ASYNC_CANCEL_ALL  # which would be the first is nobody's promise
    low.prep_cancel_fd(world.ring, fds[asked.first % 4], every, user_data=name, flags=asked.flags)


def _timeout(world: World, asked: Asked, name: int) -> None:
    long = 10**12
    count = asked.first % 4
    duration_ns = long if count or asked.second % 3 == 0 else _SOON_NS
    timeout_flags = k.IORING_TIMEOUT_ETIME_SUCCESS if asked.second % 2 else 0
    low.prep_timeout(
        world.ring, duration_ns, count, timeout_flags, user_data=name, flags=asked.flags
    )


def _timeout_remove(world: World, asked: Asked, name: int) -> None:
    target = _earlier(name - 1 - asked.first % 5)
    low.prep_timeout_remove(world.ring, target, user_data=name, flags=asked.flags)


def _link_timeout(world: World, asked: Asked, name: int) -> None:
    duration_ns = _SOON_NS if asked.first % 2 else 10**12
    low.prep_link_timeout(world.ring, duration_ns, user_data=name, flags=asked.flags)


def _splice(world: World, asked: Asked, name: int) -> None:
    one, other = world.pipes[asked.first % 3][0], world.pipes[(asked.first + 1) % 3][1]
    # Without waiting: a worker that waits may be anywhere when it is cancelled.
    prep = low.prep_tee if asked.second % 2 else low.prep_splice
    nonblocking = k.SPLICE_F_NONBLOCK
    if prep is low.prep_tee:
        low.prep_tee(
            world.ring, one, other, 1 + asked.second, nonblocking, user_data=name,
            flags=asked.flags,
        )  # fmt: skip
    else:
        low.prep_splice(
            world.ring, one, -1, other, -1, 1 + asked.second, nonblocking, user_data=name,
            flags=asked.flags,
        )  # fmt: skip


def _message(world: World, asked: Asked, name: int) -> None:
    low.prep_msg_ring(
        world.ring, world.other.fd, asked.first, asked.second, user_data=name, flags=asked.flags
    )


def _socket(world: World, asked: Asked, name: int) -> None:
    system = world.system
    low.prep_socket(
        world.ring, system.AF_INET, system.SOCK_STREAM, 0, user_data=name | _MAKES_FD,
        flags=asked.flags,
    )  # fmt: skip


def _slot(world: World, asked: Asked, name: int) -> None:
    system = world.system
    low.prep_socket_direct(
        world.ring, system.AF_INET, system.SOCK_STREAM, 0, asked.first % 5, user_data=name,
        flags=asked.flags,
    )  # fmt: skip


def _close_slot(world: World, asked: Asked, name: int) -> None:
    low.prep_close_direct(world.ring, asked.first % 5, user_data=name, flags=asked.flags)


ACTIONS: dict[str, Callable[[World, Asked, int], None]] = {
    "read": _read, "write": _write, "nop": _nop, "bad": _bad, "recv": _recv, "send": _send,
    "recv_shots": _recv_shots, "read_shots": _read_shots, "poll": _poll, "end": _end,
    "poll_remove": _poll_remove, "cancel": _cancel, "cancel_fd": _cancel_fd, "timeout": _timeout,
    "timeout_remove": _timeout_remove, "link_timeout": _link_timeout, "splice": _splice,
    "message": _message, "socket": _socket, "slot": _slot, "close_slot": _close_slot,
}  # fmt: skip
# Done by threads of the kernel's.
_BY_WORKERS = frozenset({"splice", "end"})
_OFTEN = ("read", "write", "write", "send", "send", "recv", "nop", "recv_shots", "poll", "cancel")


def program(seed: int, length: int = 12) -> list[Step]:
    """Write a program."""
    dice = Dice(seed, "ring program")
    steps: list[Step] = []
    names = list(ACTIONS)
    for _ in range(length):
        requests: list[Asked] = []
        count = 1 + dice.below(4) if dice.chance(0.6) else 1
        for index in range(count):
            action = dice.pick(_OFTEN) if dice.chance(0.5) else dice.pick(names)
            flags = dice.pick(_LINKS) if index + 1 < count else 0
            if dice.chance(0.05):
                flags |= k.IOSQE_IO_DRAIN
            elif dice.chance(0.05):
                flags |= k.IOSQE_CQE_SKIP_SUCCESS
            if action in _BY_WORKERS:  # a thread's, which would race with what comes with it
                requests = [Asked(action, dice.below(12), dice.below(100), 0)]
                break
            requests.append(Asked(action, dice.below(12), dice.below(100), flags))
        steps.append(Step(tuple(requests)))
    return steps


def outcomes(system: System, steps: list[Step], settle_ns: int) -> list[list[str]]:
    """Carry a program out; what completed after each step."""
    world = World(system)
    told: list[list[str]] = []
    try:
        for step in steps:
            for asked in step.requests:
                world.number += 1
                try:
                    ACTIONS[asked.action](world, asked, world.number)
                except (UsageError, ValueError) as error:
                    told.append([repr(error)])
            told.append(settled(world, settle_ns))
    finally:
        world.close()
    return told


def settled(world: World, settle_ns: int) -> list[str]:
    """Take what completes until nothing more does; sorted, since orders may differ."""
    found: list[str] = []
    while taken := world.ring.wait(1, settle_ns):
        for user_data, res, flags in taken:
            result = str(res)
            if user_data & _MAKES_FD and res >= 0:
                world.made.append(res)
                result = "fd"
            elif res < 0:
                result = errno.errorcode.get(-res, result)
            if flags & k.IORING_CQE_F_BUFFER:
                number = flags >> k.IORING_CQE_BUFFER_SHIFT
                result += " " + bytes(world.buffers.view(number, res)).hex()[:8]
                world.buffers.put(number)
            if not flags & k.IORING_CQE_F_MORE:
                world.readers.pop(user_data, None)
            line = f"{user_data & 0xFFFF}: {result} {flags & _TOLD:x}"
            # How often a poll tells the same depends on who is quicker, it or its task.
            if flags & _TOLD != k.IORING_CQE_F_MORE or line not in found:
                found.append(line)
    found.extend(f"other {one}" for one in world.other.take())
    return sorted(found)


def polls_of_a_half_closed_stream(system: System, settle_ns: int) -> list[list[str]]:
    """
    Poll for room on a stream that has none and whose peer has ended its sending.

    Returns what a poll tells, what a multishot poll tells at once, then when there is room, and at
    last when it is cancelled.
    """
    world = World(system)
    near, far = world.streams
    told: list[list[str]] = []
    try:
        addr, size = world.memory.addr, 16384
        while system.send(near, addr, size, MSG_DONTWAIT | MSG_NOSIGNAL) > 0:
            pass
        system.shutdown(far, 1)
        low.prep_poll_add(world.ring, near, POLLOUT, user_data=1)
        told.append(settled(world, settle_ns))
        low.prep_poll_multishot(world.ring, near, POLLOUT, user_data=2)
        told.append(settled(world, settle_ns))
        while system.recv(far, addr, size, MSG_DONTWAIT) > 0:
            pass
        told.append(settled(world, settle_ns))
        low.prep_cancel64(world.ring, 2, user_data=3)
        told.append(settled(world, settle_ns))
    finally:
        world.close()
    return told
