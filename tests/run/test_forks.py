"""
A fork in the middle of I/O: the child hears of it, the parent never does.

Each program runs in an interpreter of its own, so that no child can become a second test runner.
"""

import pytest

from tests.fresh import FreshPython, FreshRun

PRELUDE = """
import os, signal, sys, traceback
from functools import partial
import uringio
from uringio import CancelScope, Context, RingForkedError, TaskGroup
from uringio._driver.op import EVENT, Op
from uringio._run import running
from uringio.lowlevel import nop

BACKEND = sys.argv[1]
PARENT = os.getpid()
signal.alarm(25)

async def pair():
    async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
        near = await uringio.connect_tcp(*listener.local_address)
        return near, await listener.accept()

async def forever():
    await Op(EVENT)

async def until(condition):
    while not condition():
        await uringio.checkpoint()

def wait_for(pid, code=0):
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == code, f"the child ended with {status}"

def fork(program):
    # Runs a plain function in the child, which ends with it.
    pid = os.fork()
    if pid:
        wait_for(pid)
        return
    end_child(program)

def end_child(program):
    code = 1
    try:
        signal.alarm(20)
        program()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)

def leaf(error):
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
"""


@pytest.fixture
def forking(fresh_python: FreshPython, backend: str) -> "Forking":
    """Run a program that forks, with the prelude above."""
    return Forking(fresh_python, backend)


class Forking:
    """Runs programs that fork, and checks that they end well and without a word."""

    def __init__(self, fresh_python: FreshPython, backend: str) -> None:
        self._fresh_python = fresh_python
        self._backend = backend

    def __call__(self, code: str) -> FreshRun:
        # Both are dedented together, so the program is written at the prelude's depth.
        ended = self._fresh_python(PRELUDE + code, self._backend).check()
        assert ended.stderr == ""
        return ended


REFUSED_EVERYWHERE = """
async def refused_everywhere(near):
    makers = [
        nop,
        partial(uringio.sleep, 0),
        partial(uringio.sleep, 3600),
        near.recv,
        partial(near.send_all, b"from the child"),
        uringio.checkpoint,
        forever,
        partial(uringio.offload, print),
        partial(uringio.connect_tcp, "127.0.0.1", 1),
    ]
    for make in makers:
        try:
            await make()
        except RingForkedError as error:
            assert "in the child" in str(error)
        else:
            raise AssertionError(f"{make} was made")
    try:
        async with TaskGroup() as group:
            group.start_soon(forever)
    except RingForkedError:
        pass
    except BaseExceptionGroup as error:
        assert isinstance(leaf(error), RingForkedError)
"""


def test_the_child_is_refused_and_the_parent_goes_on(forking: Forking) -> None:
    """In the task that forks the child's awaits are refused; the parent's next ops are right."""
    forking(
        REFUSED_EVERYWHERE
        + """
async def main():
    near, far = await pair()
    async with near, far, TaskGroup() as group:
        received = []

        async def receive():
            received.append(await near.recv())

        group.start_soon(receive)
        for _ in range(3):
            await uringio.checkpoint()
        called = []
        flying = nop()
        flying.add_done_callback(called.append)  # in flight when the fork comes
        pid = os.fork()
        if not pid:
            code = 1
            try:
                await refused_everywhere(far)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        await until(lambda: called)
        wait_for(pid)
        await far.send_all(b"for the parent")
        await until(lambda: received)
        assert received == [b"for the parent"]
        for number in range(1000):
            payload = b"%d" % number
            await far.send_all(payload)
            assert await near.recv() == payload

uringio.run(main, backend=BACKEND)
"""
    )


def test_a_child_may_run_a_loop_of_its_own(forking: Forking) -> None:
    """`uringio.run` works in the child, in the middle of the parent's task, more than once."""
    forking(
        """
async def childs_main():
    near, far = await pair()
    async with near, far, TaskGroup() as group:
        group.start_soon(near.send_all, b"in the child")
        return await far.recv()

async def main():
    near, far = await pair()
    async with near, far:
        await near.send_all(b"kept")
        pid = os.fork()
        if not pid:
            code = 1
            try:
                for _ in range(3):
                    assert uringio.run(childs_main, backend=BACKEND) == b"in the child"
                    try:
                        await uringio.sleep(0)  # still refused in the parent's task
                    except RingForkedError:
                        code = 0
            except BaseException:
                traceback.print_exc()
                code = 1
            finally:
                os._exit(code)
        wait_for(pid)
        assert await far.recv() == b"kept"

uringio.run(main, backend=BACKEND)
"""
    )


def test_only_the_task_that_forked_goes_on(forking: Forking) -> None:
    """In the child nothing that was ready ever runs, neither tasks nor functions."""
    ended = forking(
        """
def say(word):
    os.write(1, (word if os.getpid() == PARENT else "wrong").encode() + b" ")

async def other(number):
    for _ in range(5):
        say(str(number))
        await uringio.checkpoint()

async def main():
    async with TaskGroup() as group:
        for number in range(3):
            group.start_soon(other, number)
        await uringio.checkpoint()
        running.context().run_soon(partial(say, "soon"))
        pid = os.fork()
        if pid:
            wait_for(pid)
        else:
            await uringio.checkpoint()

try:
    uringio.run(main, backend=BACKEND)
except BaseException as error:
    if os.getpid() == PARENT:
        raise
    os._exit(0 if isinstance(leaf(error), RingForkedError) else 1)
assert os.getpid() == PARENT
"""
    )
    assert sorted(ended.stdout.split()) == sorted(["0", "1", "2"] * 5 + ["soon"])


@pytest.mark.parametrize("where", ["main", "task"])
def test_a_child_that_lets_it_pass(forking: Forking, where: str) -> None:
    """`run` ends in the child too, with RingForkedError, wherever the fork was; nothing hangs."""
    forking(
        f"""
WHERE = {where!r}

async def fork_and_go_on():
    pid = os.fork()
    if pid:
        wait_for(pid, 17)
    await uringio.sleep(0)

async def main():
    if WHERE == "main":
        await fork_and_go_on()
    else:
        async with TaskGroup() as group:
            group.start_soon(forever)
            group.start_soon(fork_and_go_on)
            await uringio.sleep(0.01)
            group.cancel_scope.cancel()

try:
    uringio.run(main, backend=BACKEND)
except BaseException as error:
    if os.getpid() == PARENT:
        raise
    os._exit(17 if isinstance(leaf(error), RingForkedError) else 1)
if os.getpid() != PARENT:
    os._exit(1)
"""
    )


def test_a_child_that_catches_it(forking: Forking) -> None:
    """A child that catches the error and returns from main gets main's result out of `run`."""
    forking(
        """
async def main():
    pid = os.fork()
    if pid:
        wait_for(pid, 18)
        return "parent"
    try:
        with CancelScope():
            await uringio.sleep(1)
    except RingForkedError:
        return "child"

result = uringio.run(main, backend=BACKEND)
if os.getpid() != PARENT:
    os._exit(18 if result == "child" else 1)
assert result == "parent"
"""
    )


def test_closing_a_stream_in_the_child(forking: Forking) -> None:
    """It is refused, and the parent's connection stays what it was."""
    forking(
        """
async def main():
    near, far = await pair()
    async with near, far:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                await near.aclose()
            except RingForkedError:
                code = 0
            finally:
                os._exit(code)
        wait_for(pid)
        await near.send_all(b"still open")
        assert await far.recv() == b"still open"

uringio.run(main, backend=BACKEND)
"""
    )


def test_a_context_between_its_ticks(forking: Forking) -> None:
    """A fork of an embedding host: in the child the context refuses, and closes without a sound."""
    forking(
        """
context = Context(backend=BACKEND)
task = context.spawn(forever)
context.tick()

def program():
    for attempt in (context.tick, context.run, partial(context.run_until_done, forever)):
        try:
            attempt()
        except RingForkedError:
            continue
        raise AssertionError(attempt)
    uringio.run(uringio.checkpoint, backend=BACKEND)
    context.close()

fork(program)
context.tick()
assert not task.finished
context.close()
"""
    )


def test_ctrl_c_in_the_child(forking: Forking) -> None:
    """The child's signals are its own: Python's handler, no wakeup fd, its own loop's Ctrl-C."""
    forking(
        """
signal.signal(signal.SIGINT, signal.default_int_handler)

async def childs_main():
    os.kill(os.getpid(), signal.SIGINT)
    await uringio.sleep(3600)

def program():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
    try:
        uringio.run(childs_main, backend=BACKEND)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

async def main():
    fork(program)
    os.kill(os.getpid(), signal.SIGINT)
    await uringio.sleep(3600)

try:
    uringio.run(main, backend=BACKEND)
except KeyboardInterrupt:
    print("heard")
assert os.getpid() == PARENT
"""
    )


def test_many_forks_under_load(forking: Forking) -> None:
    """Twenty forks while a stream is busy: not one byte goes wrong in the parent."""
    forking(
        """
async def pump(near):
    for number in range(500):
        await near.send_all(b"%06d" % number)
    await near.send_eof()

async def main():
    near, far = await pair()
    async with near, far, TaskGroup() as group:
        group.start_soon(pump, near)
        received = b""
        forks = 0
        while data := await far.recv(60):
            received += data
            if forks < 20:
                forks += 1
                fork(lambda: None)
        assert received == b"".join(b"%06d" % number for number in range(500))
        assert forks == 20

uringio.run(main, backend=BACKEND)
"""
    )
