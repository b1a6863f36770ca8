"""Ctrl-C, as a terminal sends it: real signals to programs in processes of their own."""

import signal
import textwrap

import pytest

from tests.run.programs import Ended, program


def interrupted(ended: Ended) -> bool:
    """Whether the program ended as Python programs do that do not catch KeyboardInterrupt."""
    return ended.returncode == -signal.SIGINT and ended.stderr.endswith("KeyboardInterrupt\n")


# --- where it strikes ----------------------------------------------------------------------------

WAITS = {
    "sleep": "await uringio.sleep(3600)",
    "recv": """
        near, far = await pair()
        async with near, far:
            await near.recv()
    """,
    "accept": """
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            await listener.accept()
    """,
    "serve": """
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            async with await uringio.connect_tcp(*listener.local_address) as client:
                await listener.serve(echo)
    """,
    "children": """
        async with TaskGroup() as group:
            group.start_soon(uringio.sleep, 3600)
            group.start_soon(uringio.sleep, 3600)
    """,
    "grandchildren": """
        async def nest(depth):
            async with TaskGroup() as group:
                group.start_soon(nest, depth - 1) if depth else None
                group.start_soon(uringio.sleep, 3600)

        await nest(3)
    """,
    "offload": """
        import threading
        await uringio.offload(threading.Event().wait)
    """,
    "timeout": """
        with uringio.timeout(3600):
            await uringio.sleep(3600)
    """,
    "shielded": """
        with CancelScope(shield=True) as scope:
            scope.shield = True
            await uringio.sleep(3600)
    """,
}

WAITING = """
async def pair():
    async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
        near = await uringio.connect_tcp(*listener.local_address)
        return near, await listener.accept()

async def echo(stream):
    await stream.recv()

async def wait():
{wait}

async def main():
    say("ready")
    try:
        await wait()
    except KeyboardInterrupt:
        say("main heard")
        raise

try:
    uringio.run(main, backend=BACKEND)
finally:
    say("run ended")
    fds = [int(name) for name in os.listdir("/proc/self/fd")]
    say(f"fds {{sum(fd > 2 for fd in fds) - 1}}")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
"""


@pytest.mark.parametrize("where", WAITS)
def test_in_the_kernels_wait(backend: str, where: str) -> None:
    """
    Blocked in the kernel, wherever main waits: it hears KeyboardInterrupt, and all is unwound.
    """
    body = textwrap.indent(textwrap.dedent(WAITS[where]), "    ")
    with program(WAITING.format(wait=body), backend) as running:
        running.hears("ready")
        running.waits_in_the_kernel()
        running.signal()
        ended = running.ended()
    assert ended.said == ["ready", "main heard", "run ended", "fds 0"], ended.stderr
    assert interrupted(ended), ended


def test_in_main_that_computes(backend: str) -> None:
    """In user code it is raised at once, where the program is, though it never awaits."""
    with program(
        """
        async def main():
            try:
                say("ready")
                while True:
                    pass
            except KeyboardInterrupt:
                say("at once")
                raise

        uringio.run(main, backend=BACKEND)
        """,
        backend,
    ) as running:
        running.hears("ready")
        running.signal()
        ended = running.ended()
    assert ended.said == ["ready", "at once"]
    assert interrupted(ended), ended


def test_in_a_child_that_computes(backend: str) -> None:
    """A child's code is user code too; it leaves the groups bare, and the others are cancelled."""
    with program(
        """
        async def sibling(name):
            try:
                await uringio.sleep(3600)
            except uringio.Cancelled:
                say(name + " cancelled")
                raise

        async def compute():
            await uringio.checkpoint()
            say("ready")
            while True:
                pass

        async def main():
            try:
                async with TaskGroup() as outer:
                    outer.start_soon(sibling, "uncle")
                    async with TaskGroup() as inner:
                        inner.start_soon(sibling, "sibling")
                        inner.start_soon(compute)
            except KeyboardInterrupt:
                say("bare")
                raise

        uringio.run(main, backend=BACKEND)
        """,
        backend,
    ) as running:
        running.hears("ready")
        running.signal()
        ended = running.ended()
    assert ended.said == ["ready", "sibling cancelled", "uncle cancelled", "bare"]
    assert interrupted(ended), ended


def test_in_a_callback_that_computes(backend: str) -> None:
    """In a callback of the program's it is raised there, ends the pass, and all is unwound."""
    with program(
        """
        def compute(op):
            say("ready")
            while True:
                pass

        async def main():
            uringio.sleep(0).add_done_callback(compute)
            try:
                await uringio.sleep(3600)
            finally:
                say("unwound")

        uringio.run(main, backend=BACKEND)
        """,
        backend,
    ) as running:
        running.hears("ready")
        running.signal()
        ended = running.ended()
    assert ended.said == ["ready", "unwound"]
    assert interrupted(ended), ended


def test_the_traceback_shows_where_main_was(backend: str) -> None:
    """What the user sees names the line at which main waited."""
    with program(
        """
        async def deep():
            await uringio.sleep(3600)

        async def main():
            say("ready")
            await deep()

        uringio.run(main, backend=BACKEND)
        """,
        backend,
    ) as running:
        running.hears("ready")
        running.waits_in_the_kernel()
        running.signal()
        ended = running.ended()
    assert interrupted(ended)
    assert "in deep" in ended.stderr
    assert "in main" in ended.stderr
    assert "Exception ignored" not in ended.stderr


# --- what programs make of it --------------------------------------------------------------------


def test_swallowed_and_sent_again(backend: str) -> None:
    """A program may catch it and go on; the next one is delivered as well."""
    with program(
        """
        async def main():
            for word in ("first", "second", "third"):
                try:
                    say(word)
                    await uringio.sleep(3600)
                except KeyboardInterrupt:
                    pass
            await uringio.sleep(0)
            say("went on")

        uringio.run(main, backend=BACKEND)
        say("after")
        """,
        backend,
    ) as running:
        for word in ("first", "second", "third"):
            running.hears(word)
            running.waits_in_the_kernel()
            running.signal()
        ended = running.ended()
    assert ended.said[3:] == ["went on", "after"]
    assert ended.returncode == 0, ended.stderr


def test_again_while_main_cleans_up(backend: str) -> None:
    """A cleanup that hangs, shielded, is ended by the next Ctrl-C."""
    with program(
        """
        async def main():
            try:
                say("ready")
                await uringio.sleep(3600)
            finally:
                with CancelScope(shield=True):
                    say("cleaning")
                    await uringio.sleep(3600)

        uringio.run(main, backend=BACKEND)
        """,
        backend,
    ) as running:
        for word in ("ready", "cleaning"):
            running.hears(word)
            running.waits_in_the_kernel()
            running.signal()
        ended = running.ended()
    assert interrupted(ended), ended


def test_again_while_others_are_unwound(backend: str) -> None:
    """When main is gone and another task hangs, one Ctrl-C cancels and the next gives up."""
    with program(
        """
        from uringio._run import running

        async def stubborn():
            while True:
                with CancelScope(shield=True):
                    say("stubborn")
                    await uringio.sleep(3600)

        async def main():
            running.context().spawn(stubborn)
            await uringio.checkpoint()
            await uringio.checkpoint()

        try:
            uringio.run(main, backend=BACKEND)
        finally:
            say("given up")
        """,
        backend,
    ) as running:
        running.hears("stubborn")
        running.waits_in_the_kernel()
        running.signal()
        running.waits_in_the_kernel()
        running.signal()
        running.hears("given up")
        ended = running.ended()
    assert ended.returncode == -signal.SIGINT, ended


def test_cleanup_goes_on_after_it(backend: str) -> None:
    """Cleanup of main, its children and generators may await after Ctrl-C, and all of it is run."""
    with program(
        """
        async def numbers():
            try:
                yield 1
            finally:
                await uringio.sleep(0.001)
                say("generator")

        kept = numbers()

        async def child():
            try:
                await uringio.sleep(3600)
            finally:
                with CancelScope(shield=True):
                    await uringio.sleep(0.001)
                say("child")

        async def main():
            await anext(kept)
            try:
                async with TaskGroup() as group:
                    group.start_soon(child)
                    say("ready")
            finally:
                await uringio.sleep(0.001)
                say("main")

        uringio.run(main, backend=BACKEND)
        """,
        backend,
    ) as running:
        running.hears("ready")
        running.waits_in_the_kernel()
        running.signal()
        ended = running.ended()
    assert ended.said == ["ready", "child", "main", "generator"]
    assert interrupted(ended), ended


# --- handlers of the program's own ---------------------------------------------------------------


def test_own_handler_is_respected(backend: str) -> None:
    """A SIGINT handler that was there before stays; it wakes the loop and nobody is interrupted."""
    with program(
        """
        from uringio._run import running

        class State:
            count = 0

        async def main():
            scope, context = CancelScope(), running.context()

            def handler(number, frame):
                State.count += 1
                if State.count == 3:
                    context.run_soon(scope.cancel)
                say(f"signal {State.count}")

            signal.signal(signal.SIGINT, handler)
            with scope:
                say("signal 0")
                await uringio.sleep(3600)
            assert signal.getsignal(signal.SIGINT) is handler
            say("went on")
            return handler

        handler = uringio.run(main, backend=BACKEND)
        assert signal.getsignal(signal.SIGINT) is handler
        # The same once more, with the handler there from the start.
        State.count = 0
        uringio.run(main, backend=BACKEND)
        """,
        backend,
    ) as running:
        for _ in range(2):
            for number in range(3):
                running.hears(f"signal {number}")
                running.waits_in_the_kernel()
                running.signal()
            running.hears("went on")
        ended = running.ended()
    assert ended.returncode == 0, ended.stderr


def test_ignored_signal(backend: str) -> None:
    """SIG_IGN means what it says."""
    with program(
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)

        async def main():
            say("ready")
            os.read(0, 1)
            for number in range(3):
                signal.raise_signal(signal.SIGINT)
                await uringio.sleep(0.001)
            say("went on")

        uringio.run(main, backend=BACKEND)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        """,
        backend,
    ) as running:
        running.hears("ready")
        running.signal()
        running.hears("went on")
        ended = running.ended()
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("raised", ["SystemExit(7)", "LookupError('stop')"])
def test_own_handler_that_raises(backend: str, raised: str) -> None:
    """
    What a program's own SIGTERM handler raises, wherever it strikes, ends the program in order.
    """
    with program(
        f"""
        def handler(number, frame):
            raise {raised}

        signal.signal(signal.SIGTERM, handler)

        async def child():
            try:
                await uringio.sleep(3600)
            finally:
                say("child unwound")

        async def main():
            try:
                async with TaskGroup() as group:
                    group.start_soon(child)
                    await uringio.checkpoint()
                    say("ready")
            finally:
                say("main unwound")

        uringio.run(main, backend=BACKEND)
        """,
        backend,
    ) as running:
        running.hears("ready")
        running.waits_in_the_kernel()
        running.signal(signal.SIGTERM)
        ended = running.ended()
    assert ended.said == ["ready", "child unwound", "main unwound"], ended
    assert ended.returncode == (7 if "Exit" in raised else 1), ended
    assert ("LookupError: stop" in ended.stderr) == ("Lookup" in raised)


def test_main_thread_elsewhere(backend: str) -> None:
    """A loop in another thread leaves signals alone: they are the main thread's business."""
    with program(
        """
        import threading

        async def main(stop):
            say("ready")
            await uringio.offload(stop.wait)

        stop = threading.Event()
        thread = threading.Thread(
            target=lambda: uringio.run(main, stop, backend=BACKEND)
        )
        try:
            thread.start()
            while True:
                thread.join(0.01)  # by Python's own race, a wait without end might miss the signal
        except KeyboardInterrupt:
            say("main thread heard")
        stop.set()
        thread.join()
        """,
        backend,
    ) as running:
        running.hears("ready")
        running.signal()
        ended = running.ended()
    assert ended.said == ["ready", "main thread heard"]
    assert ended.returncode == 0, ended.stderr
