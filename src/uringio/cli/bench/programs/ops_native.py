"""
What operations cost on uringio's own scheduler and on its drivers: BACKEND CPU.
"""

import sys
import time

# First of all, as nothing may be there yet that it would have to import.
began_ns = time.process_time_ns()
import uringio

imported_ns = time.process_time_ns() - began_ns

import socket

from _asked import Watch, answer, begin, each_ns

from uringio._driver.choice import make_driver
from uringio._driver.op import NOP, SPENT, Op
from uringio.lowlevel import nop

BATCH = 64
TASKS, AWAITS = 50, 400


async def _nops(count: int) -> None:
    for _ in range(count):
        await nop()


async def _together(tasks: int, awaits: int) -> float:
    watch = Watch()
    async with uringio.TaskGroup() as group:
        for _ in range(tasks):
            group.start_soon(_nops, awaits)
    return watch.each_ns(tasks * awaits)


async def _alone(count: int) -> float:
    watch = Watch()
    await _nops(count)
    return watch.each_ns(count)


async def _passes(count: int) -> float:
    checkpoint = uringio.checkpoint
    watch = Watch()
    for _ in range(count):
        await checkpoint()
    return watch.each_ns(count)


async def _wait(end: socket.socket) -> None:
    await uringio.wait_readable(end)


async def _cancels(times: int) -> float:
    """
    Cancel tasks that wait for bytes, until all of them have ended.
    """
    pairs = [socket.socketpair() for _ in range(TASKS)]
    total_ns = 0.0
    for _ in range(times):
        async with uringio.TaskGroup() as group:
            for end, _ in pairs:
                group.start_soon(_wait, end)
            await uringio.sleep(0.001)
            watch = Watch()
            group.cancel_scope.cancel()
        total_ns += watch.each_ns(TASKS)
    for pair in pairs:
        for end in pair:
            end.close()
    return total_ns / times


async def _scheduled() -> dict[str, float]:
    await _together(TASKS, 40)
    return {
        "await": await _together(TASKS, AWAITS),
        "await-alone": await _alone(4000),
        "pass": await _passes(4000),
        "cancel": await _cancels(10),
    }


def _driven(backend: str) -> dict[str, float]:
    delivered = 0

    def deliver(op: Op[object]) -> None:
        nonlocal delivered
        op.state = SPENT
        delivered += 1

    driver = make_driver(deliver, lambda _op: BaseException(), backend=backend)
    submit, turn = driver.submit, driver.turn

    def start() -> None:
        for _ in range(BATCH):
            submit(Op(NOP))

    def turns() -> None:
        for _ in range(2000):
            turn(0)

    try:
        setups: list[float] = []
        for _ in range(100):
            setups.append(each_ns(BATCH, start))
            while delivered < BATCH:
                turn(None)
            delivered = 0
        return {
            "setup": sorted(setups)[len(setups) // 2],
            "turn": each_ns(2000, turns),
        }
    finally:
        driver.close()


backend, cpu = sys.argv[1:]
begin(cpu)
answers = {"import": imported_ns / 1e6} if backend == "uring" else {}
answers |= uringio.run(_scheduled, backend=backend)
answers |= _driven(backend)
answer(answers)
