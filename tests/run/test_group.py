"""Task groups: who is waited for, what is raised, and what is left in the kernel (nothing)."""

import contextvars
import gc
import threading
import weakref
from collections.abc import Callable

import pytest

import uringio
from tests.run.native import Gate, Run, forever, in_flight, wait_cancelled
from tests.surface.pairs import connected
from uringio import Cancelled, TaskGroup, UsageError, WrongThreadError


async def fail(error: BaseException) -> None:
    await uringio.checkpoint()
    raise error


def test_block_ends_with_its_last_child(run: Run) -> None:
    """The block waits for children, for those they start, and for those started meanwhile."""
    ended: list[str] = []

    async def child(group: TaskGroup, depth: int) -> None:
        if depth:
            group.start_soon(child, group, depth - 1)
        for _ in range(3):
            await uringio.checkpoint()
        ended.append(f"child {depth}")

    async def main() -> None:
        async with TaskGroup() as group:
            group.start_soon(child, group, 4)
        ended.append("block")

    run(main)
    assert ended == ["child 4", "child 3", "child 2", "child 1", "child 0", "block"]


def test_empty_group(run: Run) -> None:
    """A group without children is a block like any other, and lets the body's error pass."""

    async def main() -> None:
        async with TaskGroup():
            pass
        with pytest.raises(ExceptionGroup):
            async with TaskGroup():
                raise ValueError

    run(main)


def test_children_start_in_order_and_not_at_once(run: Run) -> None:
    """`start_soon` runs nothing by itself; the next pass starts the children as they were given."""
    started: list[int] = []

    async def child(number: int) -> None:
        started.append(number)

    async def main() -> None:
        async with TaskGroup() as group:
            for number in range(5):
                group.start_soon(child, number)
            assert started == []

    run(main)
    assert started == [0, 1, 2, 3, 4]


def test_child_sees_its_starters_context_variables(run: Run) -> None:
    """A child starts with a copy of the variables; what it sets stays its own."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
    seen: list[str] = []

    async def child(name: str) -> None:
        seen.append(variable.get())
        variable.set(name)
        await uringio.checkpoint()
        seen.append(variable.get())

    async def main() -> None:
        variable.set("main's")
        async with TaskGroup() as group:
            group.start_soon(child, "first")
            group.start_soon(child, "second")
            variable.set("main's later")
        seen.append(variable.get())

    run(main)
    assert seen == ["main's", "main's", "first", "second", "main's later"]
    assert variable.get() == "nothing"


# --- errors --------------------------------------------------------------------------------------


def test_first_failure_cancels_the_rest(run: Run) -> None:
    """Siblings and the body get Cancelled; the group raises the failure alone."""
    seen: list[str] = []
    error = ValueError("first")

    async def main() -> None:
        async with TaskGroup() as group:
            group.start_soon(wait_cancelled, seen, "sibling")
            group.start_soon(fail, error)
            await wait_cancelled(seen, "body")

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert caught.value.exceptions == (error,)
    assert sorted(seen) == ["body", "sibling"]
    assert caught.value.__context__ is None, "the body's Cancelled shows up as the group's context"


def test_body_failure_cancels_the_children(run: Run) -> None:
    """What the body raises is in the group too."""
    seen: list[str] = []

    async def main() -> None:
        async with TaskGroup() as group:
            group.start_soon(wait_cancelled, seen, "child")
            await uringio.checkpoint()
            raise LookupError("body")

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert [type(one) for one in caught.value.exceptions] == [LookupError]
    assert seen == ["child"]


def test_every_failure_is_in_the_group(run: Run) -> None:
    """Children that fail while they are cancelled are not forgotten."""

    async def fail_when_cancelled(error: Exception) -> None:
        try:
            await forever()
        finally:
            raise error

    async def main() -> None:
        async with TaskGroup() as group:
            for number in range(3):
                group.start_soon(fail_when_cancelled, KeyError(number))
            group.start_soon(fail, ValueError())

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert sorted(type(one).__name__ for one in caught.value.exceptions) == [
        "KeyError",
        "KeyError",
        "KeyError",
        "ValueError",
    ]


def test_nested_groups_nest_their_errors(run: Run) -> None:
    """An inner group's error is one error of the outer group; `except*` takes them apart."""
    found: list[BaseExceptionGroup[BaseException]] = []

    async def inner() -> None:
        async with TaskGroup() as group:
            group.start_soon(fail, ValueError("inner"))

    async def sibling() -> None:
        try:
            await forever()
        finally:
            raise OSError("outer")

    async def main() -> None:
        try:
            async with TaskGroup() as group:
                group.start_soon(inner)
                group.start_soon(sibling)
        except* ValueError as values:
            found.append(values)
        except* OSError as others:
            found.append(others)

    run(main)
    values, others = found
    assert [type(one) for one in values.exceptions] == [ExceptionGroup]
    assert [str(one) for one in flatten(values)] == ["inner"]
    assert [str(one) for one in others.exceptions] == ["outer"]


def flatten(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for one in error.exceptions for leaf in flatten(one)]


def test_an_inner_failure_reaches_the_outer_group(run: Run) -> None:
    """The failure of a grandchild ends the whole tree, depth for depth."""
    seen: list[str] = []

    async def middle() -> None:
        async with TaskGroup() as group:
            group.start_soon(fail, ValueError())
            group.start_soon(wait_cancelled, seen, "leaf")

    async def main() -> None:
        async with TaskGroup() as group:
            group.start_soon(middle)
            group.start_soon(wait_cancelled, seen, "uncle")

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    (middle_group,) = caught.value.exceptions
    assert isinstance(middle_group, ExceptionGroup)
    assert isinstance(middle_group.exceptions[0], ValueError)
    assert seen == ["leaf", "uncle"]


def test_errors_win_over_cancellation(run: Run) -> None:
    """When the parent is cancelled and a child fails of it, the failure comes out."""

    async def fail_when_cancelled() -> None:
        try:
            await forever()
        except Cancelled:
            raise ValueError from None

    async def main() -> None:
        with uringio.CancelScope() as scope:
            async with TaskGroup() as group:
                group.start_soon(fail_when_cancelled)
                await uringio.checkpoint()
                scope.cancel()

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert [type(one) for one in caught.value.exceptions] == [ValueError]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(4)])
@pytest.mark.parametrize("where", ["child", "body", "grandchild"])
def test_interrupts_leave_the_group_bare(run: Run, error: BaseException, where: str) -> None:
    """KeyboardInterrupt and SystemExit are not wrapped, whoever raised them and whatever else."""
    seen: list[str] = []

    async def fail_when_cancelled() -> None:
        try:
            await forever()
        finally:
            seen.append("cancelled")
            raise ValueError

    async def nest() -> None:
        async with TaskGroup() as group:
            group.start_soon(fail, error)

    async def main() -> None:
        async with TaskGroup() as group:
            group.start_soon(fail_when_cancelled)
            if where == "child":
                group.start_soon(fail, error)
            elif where == "grandchild":
                group.start_soon(nest)
            else:
                await fail(error)

    with pytest.raises(type(error)) as caught:
        run(main)
    assert caught.value is error
    assert seen == ["cancelled"]


def test_failures_keep_nothing_alive(run: Run) -> None:
    """Once the group's error is dropped, no cycle keeps the tasks' frames and objects alive."""

    class Held:
        pass

    refs: list[weakref.ref[Held]] = []

    async def child() -> None:
        held = Held()
        refs.append(weakref.ref(held))
        await uringio.checkpoint()
        raise ValueError

    async def main() -> None:
        try:
            async with TaskGroup() as group:
                group.start_soon(child)
                group.start_soon(forever)
                await forever()
        except ExceptionGroup:
            pass
        assert refs[0]() is None

    gc.collect()
    gc.disable()
    try:
        run(main)
    finally:
        gc.enable()


# --- cancelling ----------------------------------------------------------------------------------


def test_cancelling_the_groups_scope(run: Run) -> None:
    """`group.cancel_scope.cancel()` ends children and body, and the block ends quietly."""
    seen: list[str] = []

    async def main() -> None:
        async with TaskGroup() as group:
            group.start_soon(wait_cancelled, seen, "first")
            group.start_soon(wait_cancelled, seen, "second")
            await uringio.checkpoint()
            group.cancel_scope.cancel()
            await wait_cancelled(seen, "body")
        assert group.cancel_scope.cancelled_caught

    run(main)
    assert sorted(seen) == ["body", "first", "second"]


def test_a_child_cancels_its_group(run: Run) -> None:
    """A child may end the group it is in; it is cancelled itself at its next await."""
    seen: list[str] = []

    async def child(group: TaskGroup) -> None:
        group.cancel_scope.cancel()
        await wait_cancelled(seen, "self")

    async def main() -> None:
        async with TaskGroup() as group:
            group.start_soon(wait_cancelled, seen, "sibling")
            group.start_soon(child, group)

    run(main)
    assert sorted(seen) == ["self", "sibling"]


def test_parent_cancelled_while_it_waits_for_children(run: Run) -> None:
    """Cancellation from outside reaches the children, and the block's end raises Cancelled."""
    seen: list[str] = []

    async def parent(scope: uringio.CancelScope) -> None:
        with scope:
            async with TaskGroup() as group:
                group.start_soon(wait_cancelled, seen, "child")
            seen.append("not reached")

    async def main() -> None:
        scope = uringio.CancelScope()
        async with TaskGroup() as group:
            group.start_soon(parent, scope)
            for _ in range(4):
                await uringio.checkpoint()
            scope.cancel()
        assert scope.cancelled_caught

    run(main)
    assert seen == ["child"]


def test_child_started_in_a_cancelled_group(run: Run) -> None:
    """It starts, and is cancelled at its first await."""
    seen: list[str] = []

    async def child() -> None:
        seen.append("started")
        await wait_cancelled(seen, "cancelled")

    async def main() -> None:
        async with TaskGroup() as group:
            group.cancel_scope.cancel()
            group.start_soon(child)

    run(main)
    assert seen == ["started", "cancelled"]


def test_a_childs_own_scope_is_its_own(run: Run) -> None:
    """A child that cancels a scope inside itself ends well, and nobody else is touched."""

    async def child() -> str:
        with uringio.CancelScope() as scope:
            scope.cancel()
            await forever()
        return "went on"

    async def main() -> None:
        async with TaskGroup() as group:
            group.start_soon(child)
            await uringio.sleep(0)
        assert not group.cancel_scope.cancel_called

    run(main)


def test_a_shielded_child_is_waited_for(run: Run) -> None:
    """A cancelled group waits for a child's shielded cleanup to its end."""
    seen: list[str] = []
    gate = Gate()

    async def child() -> None:
        with uringio.CancelScope(shield=True):
            await gate.wait()
            seen.append("cleaned up")

    async def main() -> None:
        async with TaskGroup() as group:
            group.start_soon(child)
            await uringio.checkpoint()
            group.cancel_scope.cancel()
            with uringio.CancelScope(shield=True):
                await uringio.checkpoint()
                await uringio.checkpoint()
            assert seen == []
            gate.open()
        seen.append("block")

    run(main)
    assert seen == ["cleaned up", "block"]


def test_the_group_waits_for_the_kernel(run: Run) -> None:
    """When a cancelled group's block ends, the kernel has let go of what its children had there."""

    async def main() -> None:
        async with connected() as (near, _):
            async with TaskGroup() as group:
                group.start_soon(near.recv)
                group.start_soon(near.send_all, bytes(32 << 20))
                for _ in range(3):
                    await uringio.checkpoint()
                assert in_flight() == 2
                group.cancel_scope.cancel()
            assert in_flight() == 0

    run(main)


# --- misuse --------------------------------------------------------------------------------------


def test_start_soon_before_and_after(run: Run) -> None:
    """A group that is not open refuses, without leaving a coroutine that was never awaited."""

    async def main() -> None:
        group = TaskGroup()
        with pytest.raises(UsageError, match="async with"):
            group.start_soon(forever)
        waiting = forever()
        with pytest.raises(UsageError, match="async with"):
            group.spawn(waiting)
        async with group:
            pass
        with pytest.raises(UsageError, match="has ended"):
            group.start_soon(forever)
        waiting = forever()
        with pytest.raises(UsageError, match="has ended"):
            group.spawn(waiting)

    run(main)
    gc.collect()


def test_start_soon_while_the_block_waits(run: Run) -> None:
    """Until its last child has ended, a group is open to whoever can reach it."""
    seen: list[str] = []

    async def late() -> None:
        seen.append("late")

    async def child(group: TaskGroup) -> None:
        await uringio.sleep(0.001)
        group.start_soon(late)

    async def main() -> None:
        async with TaskGroup() as group:
            group.start_soon(child, group)

    run(main)
    assert seen == ["late"]


def test_start_soon_wrong_arguments(run: Run) -> None:
    """What is not an async function is refused at once, and the group goes on."""

    async def main() -> None:
        async with TaskGroup() as group:
            with pytest.raises(TypeError, match="not an async function"):
                group.start_soon(lambda: None)  # type: ignore[arg-type, return-value]
            with pytest.raises(TypeError, match="not what it returns"):
                group.start_soon(forever())  # type: ignore[arg-type]

    run(main)


def test_start_soon_from_another_thread(run: Run) -> None:
    """A foreign thread is refused, and starts nothing."""
    raised: list[BaseException] = []

    def foreign(group: TaskGroup) -> None:
        attempts: list[Callable[[], None]] = [
            lambda: group.start_soon(forever),
            group.cancel_scope.cancel,
        ]
        for attempt in attempts:
            try:
                attempt()
            except WrongThreadError as error:
                raised.append(error)

    async def main() -> None:
        async with TaskGroup() as group:
            thread = threading.Thread(target=foreign, args=(group,))
            thread.start()
            thread.join()
            assert not group.cancel_scope.cancel_called
            await uringio.checkpoint()

    run(main)
    assert len(raised) == 2


def test_group_is_used_once(run: Run) -> None:
    """Entering a group again is refused, while it is open and after."""

    async def main() -> None:
        group = TaskGroup()
        async with group:
            with pytest.raises(UsageError, match="entered once"):
                await group.__aenter__()
            group.start_soon(uringio.checkpoint)
        with pytest.raises(UsageError, match="entered once"):
            await group.__aenter__()

    run(main)


def test_group_outside_of_the_native_scheduler() -> None:
    """Without a loop of ours, entering says what to do."""

    async def main() -> None:
        async with TaskGroup():
            pass

    coroutine = main()
    with pytest.raises(UsageError, match="asyncio's own"):
        coroutine.send(None)


def test_many_children(run: Run) -> None:
    """Ten thousand children, each of them waiting, all end."""
    count = 0

    async def child() -> None:
        nonlocal count
        await uringio.checkpoint()
        count += 1

    async def main() -> None:
        async with TaskGroup() as group:
            for _ in range(10_000):
                group.start_soon(child)

    run(main)
    assert count == 10_000


@pytest.mark.parametrize("ending", ["cancel", "fail"])
def test_a_long_chain_of_groups(run: Run, ending: str) -> None:
    """Children of children, 2,000 deep, are all reached; no recursion gives out."""
    depth = 2_000
    ended = 0

    async def link(left: int, bottom: Gate) -> None:
        nonlocal ended
        try:
            async with TaskGroup() as group:
                if left:
                    group.start_soon(link, left - 1, bottom)
                else:
                    bottom.open()
                    await forever()
        finally:
            ended += 1

    async def main() -> None:
        bottom = Gate()
        async with TaskGroup() as group:
            group.start_soon(link, depth, bottom)
            await bottom.wait()
            if ending == "fail":
                raise ValueError
            group.cancel_scope.cancel()

    if ending == "fail":
        with pytest.raises(ExceptionGroup):
            run(main)
    else:
        run(main)
    assert ended == depth + 1
