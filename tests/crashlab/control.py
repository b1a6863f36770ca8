"""
The control of the crash lab: the same misuse on the bare ring.

``python -m tests.crashlab.control PROGRAM SEED``.  Here is what a program does that fills SQEs with
addresses and keeps nothing alive: the memory of a receive is dropped, resized, constant, or reused
too early; a descriptor is closed and its number reused.  The programs judge themselves as those of
the lab do, so a table of both can be compared.  On a ring without deferred completions, as most are
set up, the kernel writes whenever it likes.
"""

import array
import ctypes
import gc
import mmap
import os
import random
import socket
import struct
import sys
from collections.abc import Callable

from tests.crashlab.lab import POISON

__all__ = ["PROGRAMS"]

SYS_SETUP, SYS_ENTER = 425, 426
OP_SEND, OP_RECV = 26, 27
ENTER_GETEVENTS = 1
MAP_SHARED_POPULATE = mmap.MAP_SHARED | 0x8000
SQES_OFFSET = 0x10000000
ENTRIES = 256


class BareRing:
    """An io_uring without anybody's help."""

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.syscall.restype = ctypes.c_long
        params = ctypes.create_string_buffer(120)
        self.fd = self.libc.syscall(
            ctypes.c_long(SYS_SETUP), ctypes.c_uint(ENTRIES), ctypes.byref(params)
        )
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup")
        words = struct.unpack("30I", params.raw)
        self.sq_tail, self.sq_mask, self.sq_array = words[11], words[12], words[16]
        self.cq_head, self.cq_tail, self.cq_mask, self.cqes = (*words[20:23], words[25])
        size = max(self.sq_array + 4 * words[0], self.cqes + 16 * words[1])
        self.ring = mmap.mmap(self.fd, size, MAP_SHARED_POPULATE)
        self.sqes = mmap.mmap(self.fd, 64 * words[0], MAP_SHARED_POPULATE, offset=SQES_OFFSET)
        self.word = memoryview(self.ring).cast("I") if not size % 4 else memoryview(self.ring)
        self.count = 0

    def push(self, op: int, fd: int, addr: int, len_: int) -> None:
        """Fill an SQE; nobody sees it before `enter`."""
        tail = self.word[self.sq_tail // 4]
        index = tail & self.word[self.sq_mask // 4]
        sqe = struct.pack("<BBHiQQIIQ24x", op, 0, 0, fd, 0, addr, len_, 0, self.count)
        self.sqes[index * 64 : index * 64 + 64] = sqe
        self.word[self.sq_array // 4 + index] = index
        self.word[self.sq_tail // 4] = (tail + 1) & 0xFFFFFFFF
        self.count += 1

    def enter(self, wait: int = 0) -> None:
        """Hand over what was pushed; wait for completions."""
        pushed = ctypes.c_uint(self.count)
        self.count = 0
        self.libc.syscall(
            ctypes.c_long(SYS_ENTER), ctypes.c_int(self.fd), pushed, ctypes.c_uint(wait),
            ctypes.c_uint(ENTER_GETEVENTS), None, ctypes.c_size_t(0),
        )  # fmt: skip


def address(memory: bytearray) -> int:
    """Where it lies now; nobody promises that it stays there."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def storage(constant: bytes) -> int:
    """Where the bytes of an immutable object lie."""
    return id(constant) + bytes.__basicsize__ - 1


def check(held: bool, what: str) -> None:
    """End as a program of the lab does that got wrong bytes."""
    if not held:
        sys.exit(f"wrong: {what}")


def memory_dropped_in_flight(rng: random.Random) -> None:
    """Two hundred receives whose memory is dropped; the peers send, and the program goes on."""
    ring = BareRing()
    pairs = [socket.socketpair() for _ in range(200)]
    for ours, _ in pairs:
        memory = bytearray(rng.randint(48, 160))
        ring.push(OP_RECV, ours.fileno(), address(memory), len(memory))
    ring.enter()
    gc.collect()
    others = [[number, str(number), (number,)] for number in range(2000)]
    for _, theirs in pairs:
        theirs.send(bytes([POISON]) * 160)
    ring.enter()
    check(others == [[number, str(number), (number,)] for number in range(2000)], "other objects")


def memory_resized_in_flight(rng: random.Random) -> None:
    """Memory grows while the kernel fills it, so the bytes go to where it was."""
    ring = BareRing()
    ours, theirs = socket.socketpair()
    memory = bytearray(rng.randint(48, 5000))
    ring.push(OP_RECV, ours.fileno(), address(memory), 5)
    ring.enter()
    memory.extend(bytes(1 << 20))
    theirs.send(b"hello")
    ring.enter(1)
    check(memory[:5] == b"hello", "what was received is not in the memory")


def immutable_memory_offered(rng: random.Random) -> None:
    """A constant is where the kernel writes."""
    ring = BareRing()
    ours, theirs = socket.socketpair()
    constant = b"hello " + str(rng.random()).encode()
    ring.push(OP_RECV, ours.fileno(), storage(constant), 5)
    theirs.send(b"JELLO")
    ring.enter(1)
    check(constant.startswith(b"hello"), "a constant has changed")


def handles_used_when_stale(rng: random.Random) -> None:
    """Memory given back and handed out again is still being written for whoever had it before."""
    ring = BareRing()
    free = [bytearray(4096)]
    ours, theirs = socket.socketpair()
    memory = free.pop()
    ring.push(OP_RECV, ours.fileno(), address(memory), 4096)
    ring.enter()
    free.append(memory)  # "cancelled": nobody waits for the completion
    mine = free.pop()
    mine[:] = bytes([0x5A]) * 4096
    theirs.send(bytes([POISON]) * rng.randint(1, 4096))
    ring.enter(1)
    check(mine.count(0x5A) == 4096, "two owners of one buffer")


def closed_in_flight_and_reused(rng: random.Random) -> None:
    """A descriptor is closed before its request is handed over, and its number given anew."""
    ring = BareRing()
    ours, theirs = socket.socketpair()
    secret = b"SECRET" + bytes([rng.randrange(256)])
    ring.push(OP_SEND, ours.fileno(), storage(secret), len(secret))
    number = ours.detach()
    os.close(number)
    other, witness = socket.socketpair()
    if other.fileno() != number:
        os.dup2(other.fileno(), number)
    ring.enter(1)
    witness.setblocking(False)
    try:
        check(not witness.recv(100), "another connection got the bytes")
    except BlockingIOError:
        pass
    theirs.close()


def sends_changed_their_minds(rng: random.Random) -> None:
    """The memory of a send that has not left yet is used for something else."""
    ring = BareRing()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    while True:
        try:
            ours.send(bytes([1]) * 100_000, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
    data = array.array("B", bytes([2]) * rng.randint(1, 2000))
    ring.push(OP_SEND, ours.fileno(), data.buffer_info()[0], len(data))
    ring.enter()
    data[:] = array.array("B", bytes([POISON]) * len(data))  # "timed out"
    theirs.settimeout(5)
    received = bytearray()
    while POISON not in received and 2 not in received:
        received += theirs.recv(1 << 20)
        ring.enter()
    check(POISON not in received, "the peer got what was never sent")


PROGRAMS: dict[str, Callable[[random.Random], None]] = {
    one.__name__: one
    for one in (
        memory_dropped_in_flight,
        memory_resized_in_flight,
        immutable_memory_offered,
        handles_used_when_stale,
        closed_in_flight_and_reused,
        sends_changed_their_minds,
    )
}


def main(name: str, seed: int) -> None:
    """Run the program and say that all is well, if it comes to that."""
    PROGRAMS[name](random.Random(seed))
    for number in range(300):  # the program goes on
        _ = [bytearray(48 + number % 112) for _ in range(50)]
    gc.collect()
    sys.stdout.write("verdict ok, status 0\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
