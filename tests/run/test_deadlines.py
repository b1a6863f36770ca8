"""Time: `sleep`, `move_on_after`, `timeout`, and that nothing of them stays behind."""

import math
import random

import pytest

import uringio
from tests.run.native import Run, forever, in_flight
from tests.surface.pairs import connected
from uringio import Cancelled, CancelScope, TaskGroup, UsageError
from uringio._driver import current
from uringio._run import running
from uringio._run.deadlines import Deadlines

HOUR_S = 3600.0


def now_ns() -> int:
    return current.driver().system.monotonic_ns()


# --- sleep ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 0.0, 1e-9, 1e-6, 0.002])
def test_sleep_lasts_as_long_as_asked(run: Run, seconds: float) -> None:
    """Never less, by the clock that it is measured with."""

    async def main() -> int:
        before_ns = now_ns()
        await uringio.sleep(seconds)
        return now_ns() - before_ns

    assert run(main) >= int(seconds * 1e9)


def test_sleep_counts_from_the_call(run: Run) -> None:
    """The time of a sleep runs from when it is made, however late it is awaited."""

    async def main() -> None:
        before_ns = now_ns()
        early = uringio.sleep(0.001)
        after_ns = now_ns()
        assert before_ns + 1_000_000 <= early.off <= after_ns + 1_000_000
        while now_ns() < early.off:
            await uringio.checkpoint()
        await early

    run(main)


@pytest.mark.parametrize("seconds", [-1e-9, -1, -math.inf, math.nan])
def test_sleep_refuses_the_impossible(run: Run, seconds: float) -> None:
    """Negative times and NaN are mistakes."""

    async def main() -> None:
        with pytest.raises(ValueError, match="from 0 up"):
            uringio.sleep(seconds)

    run(main)


@pytest.mark.parametrize("seconds", [1e9, 1e300, math.inf])
def test_sleep_for_ever(run: Run, seconds: float) -> None:
    """Any length may be asked for; cancelling ends it."""

    async def main() -> None:
        with uringio.move_on_after(0.001) as scope:
            await uringio.sleep(seconds)
        assert scope.cancelled_caught

    run(main)


def test_sleepers_wake_in_the_order_of_their_deadlines(run: Run) -> None:
    """A thousand sleepers, started in any order, wake in the order of their times."""
    random_times = [random.randrange(0, 20_000_000) for _ in range(1000)]
    woken: list[int] = []

    async def sleeper(delay_ns: int) -> None:
        await uringio.sleep(delay_ns / 1e9)
        woken.append(delay_ns)

    async def start_all() -> None:
        # From one instant, which the calls of `sleep` themselves would smear.
        sleeps = [(delay_ns, uringio.sleep(0.05)) for delay_ns in random_times]
        base_ns = sleeps[0][1].off
        async with TaskGroup() as group:
            for delay_ns, op in sleeps:
                op.off = base_ns + delay_ns
                group.start_soon(wait, delay_ns, op)

    async def wait(delay_ns: int, op: object) -> None:
        await op  # type: ignore[misc]
        woken.append(delay_ns)

    run(start_all)
    assert woken == sorted(random_times)


def test_equal_deadlines_wake_in_the_order_of_their_start(run: Run) -> None:
    """First come, first served."""
    woken: list[int] = []

    async def wait(number: int, op: object) -> None:
        await op  # type: ignore[misc]
        woken.append(number)

    async def main() -> None:
        async with TaskGroup() as group:
            ops = [uringio.sleep(0.001) for _ in range(20)]
            for number, op in enumerate(ops):
                op.off = ops[0].off
                group.start_soon(wait, number, op)

    run(main)
    assert woken == list(range(20))


def test_cancelled_sleeps_leave_no_timers(run: Run) -> None:
    """Ten thousand sleeps, cancelled by their scopes or by hand, leave nothing in flight."""

    async def by_scope() -> None:
        for _ in range(50):
            with CancelScope() as scope:
                op = uringio.sleep(HOUR_S)
                running.context().run_soon(scope.cancel)
                await op
            assert scope.cancelled_caught

    async def by_hand() -> None:
        for _ in range(50):
            op = uringio.sleep(HOUR_S)
            op.add_done_callback(lambda _: None)
            assert op.cancel()

    async def main() -> None:
        async with TaskGroup() as group:
            for _ in range(100):
                group.start_soon(by_scope)
                group.start_soon(by_hand)
        assert in_flight() == 0

    run(main)


# --- move_on_after and timeout -------------------------------------------------------------------


def test_move_on_after(run: Run) -> None:
    """When the time runs out the block ends and the program goes on; it can tell."""

    async def main() -> None:
        with uringio.move_on_after(0.001) as scope:
            await forever()
        assert scope.cancelled_caught
        with uringio.move_on_after(HOUR_S) as scope:
            await uringio.checkpoint()
        assert not scope.cancel_called
        assert not scope.cancelled_caught

    run(main)


def test_timeout(run: Run) -> None:
    """When the time runs out the block raises TimeoutError, without Cancelled's trail."""

    async def main() -> None:
        with (
            pytest.raises(TimeoutError, match=r"within 0\.001 seconds") as caught,
            uringio.timeout(0.001),
        ):
            await forever()
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        with uringio.timeout(HOUR_S):
            await uringio.checkpoint()

    run(main)


def test_timeout_does_not_hide_errors(run: Run) -> None:
    """What the block raises by itself is what comes out, late or not."""

    async def fail_when_cancelled() -> None:
        try:
            await forever()
        finally:
            raise LookupError

    async def main() -> None:
        with pytest.raises(LookupError), uringio.timeout(HOUR_S):
            raise LookupError
        with pytest.raises(LookupError), uringio.timeout(0):
            await fail_when_cancelled()

    run(main)


def test_a_block_that_ends_in_time_after_all(run: Run) -> None:
    """A deadline that passes while the block computes, with no await behind it, is no timeout."""

    async def main() -> None:
        computed = False
        with uringio.timeout(0):
            computed = True
        assert computed

    run(main)


@pytest.mark.parametrize("make", [uringio.move_on_after, uringio.timeout])
def test_zero_seconds(run: Run, make: object) -> None:
    """Zero cancels the first await, and what is awaited is not even started."""

    async def main() -> None:
        async with connected() as (near, far):
            await far.send_all(b"kept")
            before = current.driver().statistics().submitted
            try:
                with make(0) as scope:  # type: ignore[operator]
                    assert scope.cancelled
                    await near.recv()
            except TimeoutError:
                assert make is uringio.timeout
            assert scope.cancelled_caught
            assert current.driver().statistics().submitted == before
            assert await near.recv() == b"kept"

    run(main)


@pytest.mark.parametrize("seconds", [-1, -1e-9, math.nan, -math.inf])
@pytest.mark.parametrize("make", [uringio.move_on_after, uringio.timeout])
def test_impossible_seconds(make: object, seconds: float) -> None:
    """A negative timeout, or none that is a number, is a mistake where it is made."""
    with pytest.raises(ValueError, match="from 0 up"):
        make(seconds)  # type: ignore[operator]


@pytest.mark.parametrize("seconds", [math.inf, 1e300])
def test_no_deadline(run: Run, seconds: float) -> None:
    """An infinite timeout is none, and costs the loop nothing."""

    async def main() -> None:
        with uringio.timeout(seconds) as scope:
            assert not running.context().deadlines.heap
            await uringio.sleep(0)
        assert not scope.cancel_called

    run(main)


@pytest.mark.parametrize("seconds", [-1.0, -math.inf, 0.0])
def test_a_scope_whose_deadline_has_passed(run: Run, seconds: float) -> None:
    """`CancelScope` itself takes a past deadline: it is cancelled when it is entered."""

    async def main() -> None:
        with CancelScope(deadline_seconds=seconds) as scope:
            assert scope.cancel_called
            await forever()
        assert scope.cancelled_caught

    run(main)


def test_the_nearest_deadline_counts(run: Run) -> None:
    """Of nested timeouts the shorter one ends its block, wherever it stands."""

    async def main() -> None:
        with uringio.timeout(HOUR_S):
            with uringio.move_on_after(0.001) as inner:
                await forever()
            assert inner.cancelled_caught
        with uringio.move_on_after(0.001) as outer:
            with pytest.raises(Cancelled), uringio.timeout(HOUR_S):
                await forever()
            await forever()
        assert outer.cancelled_caught

    run(main)


def test_deadline_of_a_scope_that_waits_for_children(run: Run) -> None:
    """A timeout around a group ends the children, and then the block."""

    async def main() -> None:
        async def wait_for_two() -> None:
            async with TaskGroup() as group:
                group.start_soon(forever)
                group.start_soon(uringio.sleep, HOUR_S)

        with pytest.raises(TimeoutError), uringio.timeout(0.001):
            await wait_for_two()

    run(main)


def test_deadline_while_others_keep_the_loop_busy(run: Run) -> None:
    """A loop that never rests still looks at the clock."""

    async def spin() -> None:
        while True:
            await uringio.checkpoint()

    async def main() -> None:
        with uringio.move_on_after(0.002):
            async with TaskGroup() as group:
                group.start_soon(spin)

    run(main)


# --- what stays behind ---------------------------------------------------------------------------


def test_deadlines_that_were_not_reached_leave_the_heap(run: Run) -> None:
    """A server that gives each request an hour does not keep an hour's requests."""

    async def main() -> None:
        with uringio.timeout(HOUR_S):
            for _ in range(10_000):
                with uringio.timeout(HOUR_S):
                    pass
            assert len(running.context().deadlines.heap) < 300

    run(main)


def test_the_heap_against_a_plain_list() -> None:
    """Random adding, leaving and expiring: the same scopes are cancelled, in the same order."""
    deadlines = Deadlines()
    alive: dict[CancelScope, int] = {}
    cancelled: list[CancelScope] = []
    now = 0
    for _ in range(20_000):
        choice = random.random()
        if choice < 0.5:
            scope = CancelScope()
            alive[scope] = now + random.randrange(1, 1000)
            deadlines.add(scope, alive[scope])
        elif choice < 0.9 and alive:
            scope = random.choice(list(alive)[:10])
            del alive[scope]
            deadlines.remove(scope)
        else:
            now += random.randrange(30)
            due = [scope for scope, deadline in alive.items() if deadline <= now]
            cancelled.extend(due)
            for scope in due:
                del alive[scope]
            deadlines.expire(now)
            assert all(scope.cancel_called for scope in due)
        assert deadlines.nearest_ns() == min(alive.values(), default=None)
        assert len(deadlines.heap) <= 2 * len(alive) + 66
    assert cancelled
    assert not any(scope.cancel_called for scope in alive)


def test_expired_in_order(run: Run) -> None:
    """Scopes that expire in one pass are cancelled in the order of their deadlines."""
    ended: list[int] = []

    async def wait(number: int, seconds: float) -> None:
        with uringio.move_on_after(seconds):
            await forever()
        ended.append(number)

    async def main() -> None:
        async with TaskGroup() as group:
            for number in (2, 0, 1):
                group.start_soon(wait, number, 0.001 * (number + 1))
            await uringio.checkpoint()
            until_ns = now_ns() + 5_000_000
            while now_ns() < until_ns:
                pass

    run(main)
    assert ended == [0, 1, 2]


def test_timers_need_a_loop() -> None:
    """`sleep` outside of a loop says so; making a timeout there is allowed, entering it is not."""
    with pytest.raises(UsageError):
        uringio.sleep(1)
    scope = uringio.timeout(1)
    with pytest.raises(UsageError):
        scope.__enter__()
