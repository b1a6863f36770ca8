"""H51: nothing that holds a descriptor is in a circle, so dropping it is the end of it."""

import gc

from tests.fresh import FreshPython
from tests.surface.schedulers import Scheduler, with_tests

PROGRAM = """
    import gc, os, sys
    import uringio
    from uringio import Buffer
    from uringio._own.fd import OwnedFd
    from tests.surface.schedulers import __file__, make

    scheduler = make(*sys.argv[1:])

    async def handler(stream):
        async for data in stream:
            await stream.send_all(data)

    async def main():
        listener = await uringio.listen_tcp("127.0.0.1", 0)
        async def serve():
            await listener.serve(handler)
        serving = scheduler.spawn(serve)
        for number in range(20):
            stream = await uringio.connect_tcp(*listener.local_address)
            async with stream:
                await stream.send_all(b"x" * 100)
                assert await stream.recv_exactly(100) == b"x" * 100
                await stream.send_buffer(Buffer.holding(b"y" * 50))
                count, buffer = await stream.recv_into(Buffer(100))
                await stream.recv_exactly(50 - count)
                await stream.send_all(b"z")
                with await stream.recv_lease() as view:
                    assert view == b"z"
        async with await uringio.open_file(__file__) as file:
            async for line in file.lines():
                pass
        serving.cancel()
        await serving.wait()
        await listener.aclose()

    scheduler.run(main)  # what is imported and made once
    before = len(os.listdir("/proc/self/fd"))
    gc.collect()
    gc.disable()
    for _ in range(3):
        scheduler.run(main)
    assert len(os.listdir("/proc/self/fd")) == before, os.listdir("/proc/self/fd")
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    for one in gc.garbage:
        assert type(one) is not OwnedFd or one.closed, one
"""


def test_programs_need_no_garbage_collector(
    fresh_python: FreshPython, scheduler: Scheduler
) -> None:
    """Without it, and with every warning an error, whole programs leave no descriptor behind."""
    ended = fresh_python(
        PROGRAM, scheduler.name, scheduler.backend,
        env=with_tests(), options=("-X", "dev", "-W", "error"),
    ).check()  # fmt: skip
    assert ended.stderr == ""


def test_the_collector_is_on() -> None:
    """These tests must not have turned it off for the others."""
    assert gc.isenabled()
