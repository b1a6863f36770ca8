"""
Two doors to one system call: `python -m bench.doors`.

What the readiness drivers do for each message, by the standard library's own C functions and by
ctypes, in turns in one process.  Messages go through two local sockets that keep their bounds:
of all sockets these cost the kernel the least, so that what is left is the price of the door.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from uringio.cli.bench import machine
from uringio.cli.bench.rounds import rotated, spread

_MESSAGES_COUNT = 32
"""Per timed stretch: what fits into the socket's buffer."""

_MESSAGE = bytes(64)
_ROOM_BYTES = 65536
_EVENTS_MAX = 512
_NR_EPOLL_PWAIT2 = 441
_IN = 1
_MODIFY = 3

Way = Callable[[int], None]


@dataclass(frozen=True)
class Question:
    """
    One thing to be done, and the ways to do it: each repeats it so many times.
    """

    name: str
    ways: dict[str, Way]
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None

    def cpu_ns(self, way: str, stretches: int) -> float:
        """
        Return what one call took of the processor.
        """
        run = self.ways[way]
        taken_ns = 0
        for _ in range(stretches):
            self.before()
            begun_ns = time.thread_time_ns()
            run(_MESSAGES_COUNT)
            taken_ns += time.thread_time_ns() - begun_ns
            self.after()
        return taken_ns / stretches / _MESSAGES_COUNT


class _Bench:
    """
    A pair of sockets, and every question that is asked of it.
    """

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.near.setblocking(False)
        self.far.setblocking(False)
        library = ctypes.CDLL(None, use_errno=True)
        self.bare = library
        self.typed = ctypes.CDLL(None, use_errno=True)
        self.typed.send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
        self.typed.send.restype = ctypes.c_ssize_t
        self.typed.recv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self.typed.recv.restype = ctypes.c_ssize_t
        self.room = ctypes.create_string_buffer(_ROOM_BYTES)

    def fill(self) -> None:
        for _ in range(_MESSAGES_COUNT):
            self.far.send(_MESSAGE)

    def empty(self) -> None:
        for _ in range(_MESSAGES_COUNT):
            self.far.recv(_ROOM_BYTES)

    def sending(self) -> Question:
        fd, flags = self.near.fileno(), socket.MSG_NOSIGNAL
        write, send, data = os.write, self.near.send, _MESSAGE
        bare, typed = self.bare.send, self.typed.send

        def by_write(count: int) -> None:
            for _ in range(count):
                write(fd, data)

        def by_socket(count: int) -> None:
            for _ in range(count):
                send(data, flags)

        def by_bare(count: int) -> None:
            for _ in range(count):
                bare(fd, data, 64, flags)

        def by_typed(count: int) -> None:
            for _ in range(count):
                typed(fd, data, 64, flags)

        ways: dict[str, Way] = {
            "ctypes, bare": by_bare,
            "ctypes, typed": by_typed,
            "os.write": by_write,
            "socket.send": by_socket,
        }
        return Question("send 64 B", ways, after=self.empty)

    def receiving(self) -> Question:
        fd = self.near.fileno()
        read, recv, recv_into, readv = os.read, self.near.recv, self.near.recv_into, os.readv
        bare, typed, room = self.bare.recv, self.typed.recv, self.room
        size = _ROOM_BYTES
        view = memoryview(room)
        pieces = [view]
        prepared = map(read, itertools.repeat(fd), itertools.repeat(size))

        def by_read(count: int) -> None:
            for _ in range(count):
                read(fd, size)

        def by_map(count: int) -> None:
            for _ in range(count):
                (_data,) = map(read, (fd,), (size,))

        def by_prepared(count: int) -> None:
            for _ in range(count):
                for _data in prepared:
                    break

        def by_socket(count: int) -> None:
            for _ in range(count):
                recv(size)

        def by_socket_into(count: int) -> None:
            for _ in range(count):
                room[: recv_into(view)]

        def by_readv(count: int) -> None:
            for _ in range(count):
                room[: readv(fd, pieces)]

        def by_bare(count: int) -> None:
            for _ in range(count):
                room[: bare(fd, room, size, 0)]

        def by_typed(count: int) -> None:
            for _ in range(count):
                room[: typed(fd, room, size, 0)]

        ways: dict[str, Way] = {
            "os.read": by_read,
            "os.read, map made anew": by_map,
            "os.read, map prepared": by_prepared,
            "socket.recv": by_socket,
            "socket.recv_into, slice": by_socket_into,
            "os.readv, slice": by_readv,
            "ctypes recv, bare, slice": by_bare,
            "ctypes recv, typed, slice": by_typed,
        }
        return Question("receive 64 B", ways, before=self.fill)

    def finding_nothing(self) -> Question:
        fd = self.near.fileno()
        read, recv = os.read, self.near.recv
        bare, room = self.bare.recv, self.room
        get_errno = ctypes.get_errno

        def by_read(count: int) -> None:
            for _ in range(count):
                try:
                    read(fd, _ROOM_BYTES)
                except OSError:
                    pass

        def by_socket(count: int) -> None:
            for _ in range(count):
                try:
                    recv(_ROOM_BYTES)
                except OSError:
                    pass

        def by_bare(count: int) -> None:
            for _ in range(count):
                if bare(fd, room, _ROOM_BYTES, 0) < 0:
                    get_errno()

        ways: dict[str, Way] = {
            "os.read": by_read,
            "socket.recv": by_socket,
            "ctypes recv, bare": by_bare,
        }
        return Question("receive, EAGAIN", ways)

    def arming(self) -> Question:
        """
        Watch a descriptor anew, as who has EPOLLONESHOT must do for each message.
        """
        epoll = select.epoll()
        fd, bits = self.near.fileno(), _IN | select.EPOLLONESHOT
        epoll.register(fd, bits)
        epoll_fd, modify, control = epoll.fileno(), epoll.modify, self.bare.epoll_ctl
        event = ctypes.create_string_buffer(_event_layout().pack(bits, fd))
        where = ctypes.c_void_p(ctypes.addressof(event))

        def by_select(count: int) -> None:
            for _ in range(count):
                modify(fd, bits)

        def by_bare(count: int) -> None:
            for _ in range(count):
                control(epoll_fd, _MODIFY, fd, where)

        ways: dict[str, Way] = {"select.epoll.modify": by_select, "ctypes, bare": by_bare}
        return Question("arm anew", ways)

    def waiting(self, events_count: int) -> Question:
        """
        Ask without waiting, where so many descriptors are ready.
        """
        epoll = select.epoll()
        ends = [os.pipe() for _ in range(max(1, events_count))]
        for read_end, write_end in ends:
            epoll.register(read_end, _IN)
            if events_count:
                os.write(write_end, b"\0")
        epoll_fd = epoll.fileno()
        poll = epoll.poll
        layout = _event_layout()
        room = ctypes.create_string_buffer(layout.size * _EVENTS_MAX)
        where = ctypes.c_void_p(ctypes.addressof(room))
        view = memoryview(room)
        wait, syscall, unpack = self.bare.epoll_wait, self.bare.syscall, layout.iter_unpack
        size, none = layout.size, ctypes.c_void_p(0)
        zero = ctypes.create_string_buffer(16)
        timespec, no_size = ctypes.c_void_p(ctypes.addressof(zero)), ctypes.c_size_t(0)

        def by_select(count: int) -> None:
            for _ in range(count):
                for _fd, _bits in poll(0.0, _EVENTS_MAX):
                    pass

        def by_bare(count: int) -> None:
            for _ in range(count):
                found = wait(epoll_fd, where, _EVENTS_MAX, 0)
                for _bits, _fd in unpack(view[: found * size]):
                    pass

        def by_pwait2(count: int) -> None:
            for _ in range(count):
                found = syscall(
                    _NR_EPOLL_PWAIT2, epoll_fd, where, _EVENTS_MAX, timespec, none, no_size
                )
                for _bits, _fd in unpack(view[: found * size]):
                    pass

        ways: dict[str, Way] = {
            "select.epoll.poll": by_select,
            "ctypes epoll_wait, bare": by_bare,
            "ctypes epoll_pwait2, bare": by_pwait2,
        }
        return Question(f"epoll_wait, {events_count} events", ways)


def _event_layout() -> struct.Struct:
    from uringio._sys.epoll import event_layout

    return event_layout(os.uname().machine)


def main(argv: list[str] | None = None) -> int:
    """
    Measure and print.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.doors", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--stretches", type=int, default=60, help="of 32 calls, per round and way")
    parser.add_argument("--json", type=Path, help="default: a new file in bench/results")
    options = parser.parse_args(argv)
    rounds = min(max(options.rounds, 1), 1000)
    described = machine.describe()
    print(machine.headline(described))
    bench = _Bench()
    questions = [bench.sending(), bench.receiving(), bench.finding_nothing(), bench.arming()]
    questions += [bench.waiting(count) for count in (0, 1, 50)]
    results: dict[str, object] = {}
    for question in questions:
        ways = list(question.ways)
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for index in range(rounds + 1):
            for way in rotated(ways, index):
                one = question.cpu_ns(way, options.stretches)
                if index:  # the first warms up
                    taken[way].append(one)
        print(f"\n{question.name:<28} {'CPU ns':>8}  {'ratio':>6}  range")
        for way in ways:
            ratio = spread(
                [mine / its for mine, its in zip(taken[way], taken[ways[0]], strict=True)]
            )
            results[f"{question.name}: {way}"] = spread(taken[way]).as_dict()
            print(
                f"  {way:<26} {spread(taken[way]).median:>8.0f}  {ratio.median:>6.2f}  "
                f"{ratio.low:.2f}-{ratio.high:.2f}"
            )
    result = {"benchmark": "doors", "machine": described, **results}
    print(f"\n{machine.save('doors', result, options.json)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
