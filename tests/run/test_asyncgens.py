"""Async generators that were not exhausted: closed where their `await` still works."""

import gc
import logging
import sys
import threading
from collections.abc import AsyncGenerator

import pytest

import uringio
from tests.run.native import Run, forever, until
from uringio import Context, TaskGroup


async def numbers(seen: list[str], name: str = "generator") -> AsyncGenerator[int, None]:
    """Count, and say when closed, after an await."""
    try:
        number = 0
        while True:
            yield number
            number += 1
            await uringio.checkpoint()
    finally:
        await uringio.sleep(0)
        seen.append(f"{name} closed")


def test_a_dropped_generator_is_closed(run: Run) -> None:
    """One that falls out of use is closed while the program runs, awaits and all."""
    seen: list[str] = []

    async def main() -> None:
        async for number in numbers(seen):
            if number == 3:
                break
        gc.collect()
        await until(lambda: bool(seen))

    run(main)
    assert seen == ["generator closed"]


def test_generators_that_are_left_are_closed_at_the_end(run: Run) -> None:
    """One that is still referenced when main returns is closed before `run` does."""
    seen: list[str] = []
    kept: list[AsyncGenerator[int, None]] = []

    async def main() -> None:
        for name in ("first", "second"):
            generator = numbers(seen, name)
            kept.append(generator)
            assert await anext(generator) == 0

    run(main)
    assert sorted(seen) == ["first closed", "second closed"]


def test_generators_are_closed_after_the_tasks_that_use_them(backend: str) -> None:
    """A task that is cancelled in the middle of a generator does not find it being closed."""
    from uringio._run import running

    seen: list[str] = []
    generator = numbers(seen)

    async def iterate() -> None:
        try:
            async for _ in generator:
                await uringio.sleep(3600)
        finally:
            seen.append("task ended")

    async def main() -> None:
        running.context().spawn(iterate)
        await uringio.checkpoint()
        await uringio.checkpoint()

    uringio.run(main, backend=backend)
    assert seen == ["task ended", "generator closed"]


def test_a_generator_made_while_closing(run: Run) -> None:
    """What a generator begins in its own cleanup is closed too."""
    seen: list[str] = []
    kept: list[AsyncGenerator[int, None]] = []

    async def outer() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            inner = numbers(seen, "inner")
            await anext(inner)
            kept.append(inner)
            seen.append("outer closed")

    async def main() -> None:
        generator = outer()
        kept.append(generator)
        await anext(generator)

    run(main)
    assert seen == ["outer closed", "inner closed"]


def test_one_that_fails_to_close(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Its error is logged, and the others are closed."""
    seen: list[str] = []
    kept: list[AsyncGenerator[int, None]] = []

    async def stubborn() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            raise ValueError("stubborn")

    async def main() -> None:
        for generator in (numbers(seen, "first"), stubborn(), numbers(seen, "last")):
            kept.append(generator)
            await anext(generator)

    with caplog.at_level(logging.ERROR, logger="uringio"):
        run(main)
    assert "ValueError: stubborn" in caplog.text
    assert sorted(seen) == ["first closed", "last closed"]


def test_closed_in_a_cancelled_program(backend: str) -> None:
    """After main was broken off, cleanup of generators may still await."""
    seen: list[str] = []
    kept: list[AsyncGenerator[int, None]] = []

    async def main() -> None:
        generator = numbers(seen)
        kept.append(generator)
        await anext(generator)
        async with TaskGroup() as group:
            group.start_soon(forever)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        uringio.run(main, backend=backend)
    assert seen == ["generator closed"]


def test_closing_a_generator_with_a_group_in_it(run: Run) -> None:
    """`aclose` of a generator in the middle of a task group cancels its children and waits."""
    seen: list[str] = []

    async def child() -> None:
        try:
            await forever()
        finally:
            seen.append("child ended")

    async def generator() -> AsyncGenerator[int, None]:
        async with TaskGroup() as group:
            group.start_soon(child)
            yield 1
            pytest.fail("not reached")

    async def main() -> None:
        it = generator()
        await anext(it)
        await uringio.checkpoint()
        await it.aclose()
        assert seen == ["child ended"]

    run(main)


def test_a_generator_with_a_group_in_it_that_is_left(backend: str) -> None:
    """Closed by another task at the end, it ends, and so do its children."""
    seen: list[str] = []
    kept: list[AsyncGenerator[int, None]] = []

    async def child() -> None:
        try:
            await uringio.sleep(3600)
        finally:
            seen.append("child ended")

    async def generator() -> AsyncGenerator[int, None]:
        async with TaskGroup() as group:
            group.start_soon(child)
            yield 1

    async def main() -> None:
        it = generator()
        kept.append(it)
        await anext(it)
        await uringio.checkpoint()

    uringio.run(main, backend=backend)
    assert seen == ["child ended"]


def test_hooks_are_restored(run: Run) -> None:
    """The thread's hooks are the same before and after, also after an error."""
    before = sys.get_asyncgen_hooks()

    async def main() -> None:
        assert sys.get_asyncgen_hooks() != before
        raise LookupError

    with pytest.raises(LookupError):
        run(main)
    assert sys.get_asyncgen_hooks() == before


def test_a_generator_that_outlives_its_loop(run: Run) -> None:
    """Dropping it later, when the loop is gone, harms nobody."""
    seen: list[str] = []
    kept: list[AsyncGenerator[int, None]] = []

    async def main() -> None:
        generator = numbers(seen)
        kept.append(generator)
        await anext(generator)

    run(main)
    kept.clear()
    gc.collect()
    assert seen == ["generator closed"]


def test_dropped_in_another_thread(context: Context) -> None:
    """A generator whose last reference goes in a foreign thread is closed in its own loop."""
    seen: list[str] = []
    kept: list[AsyncGenerator[int, None]] = []

    async def begin() -> None:
        generator = numbers(seen)
        kept.append(generator)
        await anext(generator)

    context.run_until_done(begin)
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    assert seen == []
    while not seen:
        context.tick(None)
    assert seen == ["generator closed"]
