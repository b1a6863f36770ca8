"""H23, H25, H27, H28, H30: the process's end, its threads, its interpreters, the ring's end."""

import os
import sys
import threading
from collections.abc import Awaitable, Callable

import pytest

import uringio
from tests.driver.rig import Rig, connected
from tests.fresh import FreshPython
from tests.surface import pairs
from tests.surface.schedulers import Scheduler, with_tests
from uringio import Buffer
from uringio._driver import current
from uringio._driver import op as o
from uringio._driver.op import Op
from uringio.errors import OpError, UringioError

# Operations of every kind, in flight in the hands of a program that comes to its end.
ENDING = """
    import atexit, gc, os, signal, socket, sys, tempfile, threading
    import uringio
    from uringio import Buffer
    from tests.surface.pairs import with_peer
    from tests.surface.schedulers import make

    how, name, backend = sys.argv[1:]
    scheduler = make(name, backend)

    async def all_kinds(stack):
        streams = []
        for _ in range(5):
            stream, peer = await stack.enter_async_context(with_peer())
            streams.append(stream)
        listener = await uringio.listen_tcp("127.0.0.1", 0)
        datagrams = await uringio.open_udp(("127.0.0.1", 0))
        reader, writer = os.pipe()
        file = await uringio.open_file(f"/proc/self/fd/{reader}")
        sink = streams[4]
        for call in (
            streams[0].recv,
            lambda: streams[1].recv_into(bytearray(1000)),
            lambda: streams[2].recv_into(Buffer(1000)),
            streams[3].recvmsg,
            streams[4].recv_lease,
            lambda: sink.send_all(bytes(50_000_000)),
            listener.accept,
            datagrams.recvmsg,
            # Elsewhere it is a thread's business, for which the end waits: a file may need saving.
            lambda: file.read(100) if backend == "uring" else uringio.sleep(1000),
            lambda: uringio.sleep(1000),
            lambda: uringio.wait_readable(reader),
            lambda: uringio.offload(threading.Event().wait, 0.1),
        ):
            async def wait(call=call):
                await call()
            kept.append(scheduler.spawn(wait))
        for _ in range(3):
            await scheduler.checkpoint()

    async def main():
        from contextlib import AsyncExitStack
        stack = AsyncExitStack()
        kept.append(stack)
        await all_kinds(stack)
        sys.kept = kept
        if how == "exit":
            sys.exit(7)
        if how == "_exit":
            os._exit(7)
        if how == "error":
            raise RuntimeError("unhandled")
        if how == "signal":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
            os.kill(os.getpid(), signal.SIGTERM)
            await uringio.sleep(100)
        if how == "daemon":
            ready.set()
            await uringio.sleep(1000)

    kept = []
    ready = threading.Event()
    if how == "daemon":
        threading.Thread(target=scheduler.run_and_leave, args=(main,), daemon=True).start()
        ready.wait()
        atexit.register(gc.collect)
        sys.exit(7)
    if how == "never closed":
        context = uringio.Context(backend=backend)

        class Ticked:
            spawn = context.spawn
            @staticmethod
            async def checkpoint():
                await uringio.checkpoint()

        scheduler = Ticked
        context.spawn(main)
        for _ in range(20):
            context.tick(0.001)
        kept.append(context)
        sys.exit(7)
    scheduler.run_and_leave(main)
"""


@pytest.mark.parametrize("how", ["exit", "_exit", "error", "signal", "daemon", "never closed"])
def test_interpreters_end_with_everything_in_flight(
    fresh_python: FreshPython, scheduler: Scheduler, how: str
) -> None:
    """Whatever ends it, the process ends with its own status and not by a signal."""
    if how == "never closed" and scheduler.name == "asyncio":
        pytest.skip("contexts are the native scheduler's")
    ended = fresh_python(
        ENDING, how, scheduler.name, scheduler.backend,
        env=with_tests(), options=("-W", "ignore", "-X", "faulthandler"),
    )  # fmt: skip
    assert ended.returncode == (1 if how == "error" else 7), ended.stderr
    assert "Fatal" not in ended.stderr


def test_memory_is_nobodys_after_the_driver_has_closed(rig: Rig) -> None:
    """What arrives when the ring has gone is written nowhere: the operation's memory is free."""
    with connected(rig) as (ours, theirs):
        memory = bytearray(1000)
        op = rig.submit(Op(o.RECV_INTO, ours.fileno(), len_=1000, memory=memory))
        rig.settle_down()
        rig.driver.close()
        assert op.error is not None
        memory.extend(b"")  # free to move
        theirs.sendall(b"\xaa" * 1000)
        # It is in the socket's queue now: loopback delivers within the send.
        assert ours.recv(1000, 0x2) == b"\xaa" * 1000  # MSG_PEEK
        assert memory == bytes(1000)


def test_every_call_is_refused_in_other_threads(scheduler: Scheduler) -> None:
    """Each awaitable call of each handle, begun where no loop runs: an error, and no change."""

    async def main() -> None:
        async with pairs.connected() as (near, far), await uringio.open_file("/dev/null") as file:
            listener = await uringio.listen_tcp("127.0.0.1", 0)
            datagrams = await uringio.open_udp(("127.0.0.1", 0))
            async with listener, datagrams:
                calls: list[Callable[[], Awaitable[object]]] = [
                    near.recv,
                    near.recv_lease,
                    near.recvmsg,
                    lambda: near.recv_exactly(1),
                    lambda: near.recv_into(bytearray(1)),
                    lambda: near.recv_into(Buffer(1)),
                    lambda: near.send_all(b"x"),
                    lambda: near.sendmsg([b"x"]),
                    lambda: near.send_buffer(Buffer(1)),
                    near.send_eof,
                    near.aclose,
                    listener.accept,
                    listener.aclose,
                    datagrams.recvmsg,
                    lambda: datagrams.send_to(b"x", datagrams.local_address),
                    datagrams.aclose,
                    lambda: file.read(1),
                    lambda: file.read_at(0, 1),
                    lambda: file.read_into(Buffer(1), 0),
                    file.stat,
                    file.aclose,
                    lambda: uringio.sleep(0),
                    lambda: uringio.open_file("/dev/null"),
                    lambda: uringio.connect_tcp("127.0.0.1", 1),
                    lambda: uringio.wait_readable(0),
                ]
                before = current.driver().statistics()
                refused: list[object] = []

                async def begin(call: Callable[[], Awaitable[object]]) -> None:
                    await call()

                def elsewhere() -> None:
                    for call in calls:
                        coroutine = begin(call)
                        try:
                            op = coroutine.send(None)
                            op.add_done_callback(print)
                            op.result()
                        except BaseException as error:
                            refused.append(error)
                        finally:
                            coroutine.close()

                thread = threading.Thread(target=elsewhere)
                thread.start()
                thread.join()
                assert len(refused) == len(calls)
                for error in refused:
                    assert isinstance(error, UringioError), repr(error)
                    assert not isinstance(error, OpError)
                assert current.driver().statistics().submitted == before.submitted
                await far.send_all(b"still ours")
                assert await near.recv() == b"still ours"

    scheduler.run(main)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="interpreters have no door before 3.13")
def test_interpreters_of_one_process_have_rings_of_their_own(
    fresh_python: FreshPython, backend: str
) -> None:
    """Two interpreters run loops, one inside of the other's, and do not meet."""
    fresh_python(
        """
        import sys
        import _interpreters
        import uringio

        INNER = '''
        import uringio
        async def main():
            async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
                near = await uringio.connect_tcp(*listener.local_address)
                far = await listener.accept()
                async with near, far:
                    await near.send_all(b"inside")
                    assert await far.recv_exactly(6) == b"inside"
        uringio.run(main, backend=%r)
        ''' % sys.argv[1]

        async def main():
            inner = _interpreters.create("legacy")
            sleeping = uringio.sleep(0.01)
            import textwrap
            failure = _interpreters.exec(inner, textwrap.dedent(INNER))
            assert failure is None, failure
            _interpreters.destroy(inner)
            await sleeping

        for _ in range(3):
            uringio.run(main, backend=sys.argv[1])
        """,
        backend,
        options=("-X", "faulthandler"),
    ).check()


def test_a_forked_childs_writes_do_not_reach_lent_memory(scheduler: Scheduler) -> None:
    """A child scribbles over memory that the kernel fills for its parent: the bytes are right."""

    async def main() -> None:
        async with pairs.connected() as (near, far):
            buffer = Buffer(100_000)
            address = buffer.address
            task = scheduler.spawn(_moved, near, buffer)
            for _ in range(3):
                await scheduler.checkpoint()
            pid = os.fork()
            if not pid:
                import ctypes

                try:
                    ctypes.memset(address, 0xAA, 100_000)
                finally:
                    os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            await far.send_all(bytes(range(200)))
            count, filled = await task.result()
            assert filled.read(0, count) == bytes(range(200))
            assert filled.read(200).count(0) == 100_000 - 200

    scheduler.run(main)


async def _moved(stream: uringio.SocketStream, buffer: Buffer) -> tuple[int, Buffer]:
    return await stream.recv_into(buffer)
