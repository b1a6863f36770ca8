#!/usr/bin/env python3
"""
Have two threads talk through their rings: numbers go over, squares come back.

Shows: MSG_RING, which posts a completion to another ring; it wakes whoever waits there, with no
lock, no queue and no pipe, and stands among that ring's other completions.

    python examples/lowlevel/message.py NUMBER...
"""

import argparse
import os
import queue
import sys
import threading
from collections.abc import Iterator

from uringio.errors import UringioError
from uringio.lowlevel import Ring, prep_msg_ring

# What completions carry as user_data: a message, or the end of having sent one.
MESSAGE, SENT = 1, 2
# A result that ends the worker; squares are none.
STOP = -1
LARGEST = 46340  # its square fits the 31 bits of a result


def main() -> int:
    parser = argparse.ArgumentParser(description="Square numbers in another thread's ring.")
    parser.add_argument("number", type=int, nargs="+")
    numbers = parser.parse_args().number
    for number in numbers:
        if not 0 <= number <= LARGEST:
            parser.error(f"a number is from 0 to {LARGEST}, not {number}")
    with Ring(8) as ring:
        address = queue.SimpleQueue[int | Exception]()
        worker = threading.Thread(target=square, args=(ring.fd, address), daemon=True)
        worker.start()
        its_ring = address.get()
        if isinstance(its_ring, Exception):
            raise its_ring
        try:
            answers = messages(ring)
            for number in numbers:
                send(ring, its_ring, number)
                print(f"{number} squared is {next(answers)}", flush=True)
        finally:
            send(ring, its_ring, STOP)
            worker.join()
    return 0


def square(its_ring: int, address: "queue.SimpleQueue[int | Exception]") -> None:
    """In a thread of its own: answer messages by their squares."""
    try:
        ring = Ring(8)
    except Exception as error:
        address.put(error)
        return
    with ring:
        address.put(ring.fd)
        for number in messages(ring):
            if number == STOP:
                break
            send(ring, its_ring, number * number)


def send(ring: Ring, its_ring: int, number: int) -> None:
    """Post a number to another ring; it is underway when this returns, and arrives by itself."""
    prep_msg_ring(ring, its_ring, number, MESSAGE, user_data=SENT)
    ring.submit()


def messages(ring: Ring) -> Iterator[int]:
    """Yield what comes from other rings; several may have come at once."""
    while True:
        for user_data, result, _ in ring.wait():
            if user_data == MESSAGE:
                yield result
            elif result < 0:
                raise OSError(-result, os.strerror(-result), "sending")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, UringioError) as error:
        sys.exit(f"message: {error}")
