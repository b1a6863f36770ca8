"""
What operations cost on an asyncio loop: LOOP CPU, of which uringio's awaits our operations.
"""

import sys
import time

loop_name, cpu = sys.argv[1:]
# First of all, as nothing may be there yet that it would have to import.
began_ns = time.process_time_ns()
if loop_name == "asyncio":
    import asyncio

    factory = None
elif loop_name == "uvloop":
    import uvloop

    factory = uvloop.new_event_loop
else:
    import uringio.aio

    factory = uringio.aio.new_event_loop
imported_ns = time.process_time_ns() - began_ns

import asyncio
import contextlib
import socket

from _asked import Watch, answer, begin, each_ns

BATCH = 64
TASKS, AWAITS = 50, 400


async def _futures(count: int) -> None:
    """
    Await futures of which each has a callback of its own that resolves it, as programs do it.
    """
    loop = asyncio.get_running_loop()
    create_future, call_soon = loop.create_future, loop.call_soon
    for _ in range(count):
        future = create_future()
        call_soon(future.set_result, None)
        await future


async def _nops(count: int) -> None:
    from uringio.lowlevel import nop

    for _ in range(count):
        await nop()


_awaiting = _nops if loop_name == "uringio" else _futures


async def _together(tasks: int, awaits: int) -> float:
    watch = Watch()
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(_awaiting(awaits))
    return watch.each_ns(tasks * awaits)


async def _resolved_together(tasks: int, awaits: int) -> float:
    """
    Await futures of which one callback per pass resolves all: the least that awaiting costs.
    """
    pending: list[asyncio.Future[None]] = []
    loop = asyncio.get_running_loop()

    def settle() -> None:
        batch = pending[:]
        pending.clear()
        for future in batch:
            future.set_result(None)
        if not is_over:
            loop.call_soon(settle)

    async def worker() -> None:
        create_future, append = loop.create_future, pending.append
        for _ in range(awaits):
            future = create_future()
            append(future)
            await future

    is_over = False
    watch = Watch()
    loop.call_soon(settle)
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(worker())
    is_over = True
    return watch.each_ns(tasks * awaits)


async def _alone(count: int) -> float:
    watch = Watch()
    await _awaiting(count)
    return watch.each_ns(count)


async def _passes(count: int) -> float:
    sleep = asyncio.sleep
    watch = Watch()
    for _ in range(count):
        await sleep(0)
    return watch.each_ns(count)


async def _cancels(times: int) -> float:
    """
    Cancel tasks that wait for bytes, until all of them have ended.
    """
    loop = asyncio.get_running_loop()
    pairs = [socket.socketpair() for _ in range(TASKS)]
    for end, _ in pairs:
        end.setblocking(False)
    total_ns = 0.0
    for _ in range(times):
        tasks = [loop.create_task(loop.sock_recv(end, 1)) for end, _ in pairs]
        await asyncio.sleep(0.001)
        watch = Watch()
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        total_ns += watch.each_ns(TASKS)
    for pair in pairs:
        for end in pair:
            end.close()
    return total_ns / times


async def _setup(times: int) -> float:
    """
    Make futures and the callbacks that will resolve them, without a pass of the loop.
    """
    loop = asyncio.get_running_loop()
    create_future, call_soon = loop.create_future, loop.call_soon

    def start() -> None:
        for _ in range(BATCH):
            future = create_future()
            call_soon(future.set_result, None)

    taken: list[float] = []
    for _ in range(times):
        taken.append(each_ns(BATCH, start))
        await asyncio.sleep(0)
    return sorted(taken)[len(taken) // 2]


async def _scheduled() -> dict[str, float]:
    await _together(TASKS, 40)
    found = {
        "await": await _together(TASKS, AWAITS),
        "await-alone": await _alone(4000),
        "pass": await _passes(4000),
        "cancel": await _cancels(10),
    }
    if loop_name != "uringio":
        found["await-batch"] = await _resolved_together(TASKS, AWAITS)
        found["setup"] = await _setup(100)
    return found


begin(cpu)
answers = {"import": imported_ns / 1e6}
with asyncio.Runner(loop_factory=factory) as runner:
    answers |= runner.run(_scheduled())
answer(answers)
