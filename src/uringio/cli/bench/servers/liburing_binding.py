"""
Echo by hand on the compiled binding `liburing` from the package index: recv, send, recv, ...
"""

from __future__ import annotations

import os
import socket

import liburing as lib
from _entry import HOST, RECV_BYTES_MAX, announce, arguments

ENTRIES = 4096
COMPLETIONS = 2 * ENTRIES
"""The kernel's default size of the queue of completions."""
ACCEPT, RECV, SEND = 0, 1, 2
"""What a completion is of: the low bits of its user_data, the descriptor above them."""


def request(ring: lib.Ring) -> lib.Sqe:
    """
    Return a free entry, submitting what stands in the queue where there is none.
    """
    sqe = lib.io_uring_get_sqe(ring)
    if sqe is None:
        lib.io_uring_submit(ring)
        sqe = lib.io_uring_get_sqe(ring)
    return sqe


def serve(listening: socket.socket) -> None:
    """
    Serve until the process is ended.
    """
    memory: dict[int, bytearray] = {}
    unsent: dict[int, bytes] = {}
    ring, cqes = lib.Ring(), lib.Cqe()
    flags = lib.IORING_SETUP_SINGLE_ISSUER | lib.IORING_SETUP_DEFER_TASKRUN
    try:
        lib.io_uring_queue_init(ENTRIES, ring, flags)
    except OSError as refusal:
        raise SystemExit(f"unavailable: {refusal}") from None
    announce(listening.getsockname()[1])
    listener = listening.fileno()

    def accept() -> None:
        sqe = request(ring)
        lib.io_uring_prep_accept(sqe, listener)
        sqe.user_data = ACCEPT

    def receive(fd: int) -> None:
        sqe = request(ring)
        lib.io_uring_prep_recv(sqe, fd, memory[fd])
        sqe.user_data = fd << 2 | RECV

    def send(fd: int, data: bytes) -> None:
        unsent[fd] = data
        sqe = request(ring)
        lib.io_uring_prep_send(sqe, fd, data)
        sqe.user_data = fd << 2 | SEND

    accept()
    taken = 0
    while True:
        lib.io_uring_submit_and_wait(ring, 1)
        # The binding indexes from the first one on, and does not wrap where the queue does.
        count = min(lib.io_uring_cq_ready(ring), COMPLETIONS - taken % COMPLETIONS)
        taken += count
        lib.io_uring_wait_cqe_nr(ring, cqes, count)
        for index in range(count):
            cqe = cqes[index]
            kind, fd, res = cqe.user_data & 3, cqe.user_data >> 2, cqe.res
            if kind == ACCEPT:
                accept()
                if res >= 0:
                    with socket.socket(fileno=os.dup(res)) as connection:
                        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    memory[res] = bytearray(RECV_BYTES_MAX)
                    receive(res)
            elif res <= 0:
                os.close(fd)
                del memory[fd]
                unsent.pop(fd, None)
            elif kind == RECV:
                send(fd, bytes(memoryview(memory[fd])[:res]))
            elif res < len(unsent[fd]):
                send(fd, unsent[fd][res:])
            else:
                receive(fd)
        lib.io_uring_cq_advance(ring, count)


arguments()
with socket.create_server((HOST, 0), backlog=1024) as listening:
    serve(listening)
