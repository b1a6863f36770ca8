"""Ctrl-C again and again, at random moments of a program that is busy."""

import random
import time

import pytest

from tests.run.programs import program

ROUNDS = 60
# A round makes a loop, connects, and then talks until it is struck. [seconds]
LATEST_S = 0.006

BUSY = """
import gc, warnings
warnings.simplefilter("ignore")  # struck in user code, a program may forget a stream

async def echo(stream):
    async with stream:
        while data := await stream.recv():
            await stream.send_all(data)

async def talk(address, name):
    async with await uringio.connect_tcp(*address) as stream:
        number = 0
        while True:
            payload = b"%d.%d " % (name, number)
            await stream.send_all(payload)
            received = await stream.recv_exactly(len(payload))
            assert received == payload, (received, payload)
            number += 1

async def tick():
    while True:
        with uringio.move_on_after(0.0003):
            await uringio.sleep(3600)

async def main():
    async with await uringio.listen_tcp("127.0.0.1", 0) as listener, TaskGroup() as group:
        group.start_soon(listener.serve, echo)
        group.start_soon(tick)
        for name in range(4):
            group.start_soon(talk, listener.local_address, name)

def fds():
    gc.collect()
    return sorted(os.listdir("/proc/self/fd"))

before = fds()
for round_number in range(int(sys.argv[2])):
    heard = False
    try:
        say("go")
        uringio.run(main, backend=BACKEND)
    except KeyboardInterrupt:
        heard = True
    assert heard
    assert fds() == before, (fds(), before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
say("whole")
"""


@pytest.mark.slow
def test_at_random_moments_under_load(backend: str) -> None:
    """Each time KeyboardInterrupt comes out, in time, with nothing left and no byte wrong."""
    with program(BUSY, backend, str(ROUNDS)) as running:
        for _ in range(ROUNDS):
            running.hears("go")
            strike_ns = time.perf_counter_ns() + int(random.uniform(0, LATEST_S) * 1e9)
            while time.perf_counter_ns() < strike_ns:
                pass
            running.signal()
        ended = running.ended()
    assert ended.returncode == 0, ended.stderr
    assert ended.said[-1] == "whole"
