"""
What an operation in flight, and a task that sleeps, hold in memory: KIND COUNT CPU.
"""

import gc
import os
import sys
from collections.abc import Awaitable, Callable

from _asked import answer, begin

kind, counted, cpu = sys.argv[1:]
count = int(counted)
_READABLE = 1
_LONG_SECONDS = 3600
_WARM = 64


def _anonymous_bytes() -> int:
    gc.collect()
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("Anonymous:"):
                return int(line.split()[1]) * 1024
    raise OSError("unavailable: no Anonymous in smaps_rollup")


async def _sleeping(
    start: Callable[[], object], pause: Callable[[float], Awaitable[None]]
) -> float:
    """
    Return the memory of a task that sleeps, and which holds nothing else.
    """
    for _ in range(_WARM):
        start()
    await pause(0.01)
    before = _anonymous_bytes()
    for _ in range(count):
        start()
    await pause(0.01)
    return (_anonymous_bytes() - before) / count


def _native() -> dict[str, float]:
    import uringio
    from uringio._driver.choice import make_driver
    from uringio._driver.op import POLL, Op

    backend = "epoll" if kind.endswith("epoll") else "uring"

    async def main() -> float:
        async with uringio.TaskGroup() as group:
            found = await _sleeping(
                lambda: group.start_soon(uringio.sleep, _LONG_SECONDS), uringio.sleep
            )
            group.cancel_scope.cancel()
        return found

    silent, _kept = os.pipe()
    driver = make_driver(lambda _op: None, lambda _op: BaseException(), backend=backend)
    driver.register(silent)

    def start(times: int) -> None:
        for _ in range(times):
            driver.submit(Op(POLL, silent, flags=_READABLE))
        driver.turn(0)

    start(_WARM)
    before = _anonymous_bytes()
    start(count)
    # Tasks come last: what they give back would be there to be used again.
    of_op = (_anonymous_bytes() - before) / count
    return {"op": of_op, "task": uringio.run(main, backend=backend)}


def _on_asyncio() -> dict[str, float]:
    import asyncio

    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if kind == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    elif kind == "uringio-aio":
        import uringio.aio

        factory = uringio.aio.new_event_loop

    async def main() -> dict[str, float]:
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []
        silent, _kept = os.pipe()
        many = [os.dup(silent) for _ in range(_WARM + count)]
        futures: list[asyncio.Future[None]] = []

        def start(fds: list[int]) -> None:
            for fd in fds:
                future = loop.create_future()
                loop.add_reader(fd, future.set_result, None)
                futures.append(future)

        start(many[:_WARM])
        await asyncio.sleep(0.01)
        before = _anonymous_bytes()
        start(many[_WARM:])
        await asyncio.sleep(0.01)
        of_op = (_anonymous_bytes() - before) / count
        of_task = await _sleeping(
            lambda: tasks.append(loop.create_task(asyncio.sleep(_LONG_SECONDS))), asyncio.sleep
        )
        return {"op": of_op, "task": of_task}

    loop = factory() if factory else asyncio.new_event_loop()
    return loop.run_until_complete(main())


begin(cpu)
answer(_native() if kind.startswith("uringio-native") else _on_asyncio())
sys.stdout.flush()
os._exit(0)  # thousands of tasks and readers need not be told
