"""Strategies draw what they promise and shrink to little; the machine base drives any driver."""

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

import uringio
from tests.kernel import uring_refusal
from uringio import testing
from uringio.testing import strategies
from uringio.testing.machines import Action, DriverMachine

QUICK = settings(max_examples=60, deadline=None, database=None)


@QUICK
@given(st.data(), st.binary(max_size=40))
def test_splits_make_up_the_whole(data: st.DataObject, whole: bytes) -> None:
    """No piece is empty, none is missing, and there are no more than was asked for."""
    pieces = data.draw(strategies.byte_splits(whole, pieces_max=5))
    assert b"".join(pieces) == whole
    assert all(pieces)
    assert len(pieces) <= 5


def test_splits_reach_every_split_and_shrink_to_one() -> None:
    """All eight ways to cut four bytes are found; without a wish there is one piece."""
    seen = set()

    @settings(max_examples=400, deadline=None, database=None)
    @given(strategies.byte_splits(b"abcd"))
    def look(pieces: list[bytes]) -> None:
        seen.add(tuple(pieces))

    look()
    assert len(seen) == 8
    assert find(strategies.byte_splits(b"abcd"), lambda pieces: True) == [b"abcd"]
    assert find(strategies.byte_splits(b"abcd"), lambda pieces: len(pieces) > 1) in (
        [b"a", b"bcd"], [b"abc", b"d"], [b"ab", b"cd"],
    )  # fmt: skip


def test_splits_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """What hypothesis prints of a failing example can be pasted."""

    @settings(max_examples=50, deadline=None, database=None, derandomize=True)
    @given(strategies.byte_splits(b"abcd"))
    def fails(pieces: list[bytes]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fails()
    text = "".join([capsys.readouterr().out, *getattr(caught.value, "__notes__", [])])
    assert "pieces=[b'abcd']" in text


@QUICK
@given(strategies.fault_plans(breaking=True))
def test_plans_can_be_written_down(plan: testing.FaultPlan) -> None:
    """What is drawn can be given to the command that replays it, and is the same there."""
    from uringio.testing._faults import plan_of, plan_text

    again = plan_of(plan_text(plan))
    assert list(again.at) == list(plan.at)
    assert list(again.exact) == list(plan.exact)


def test_a_plan_shrinks_to_the_faults_that_it_takes() -> None:
    """Of all plans with which a short receive shows, one fault is left."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            near = await uringio.connect_tcp("127.0.0.1", listener.local_address[1])
            far = await listener.accept()
            async with near, far:
                await near.send_all(b"hello")
                assert await far.recv() == b"hello"

    def fails(plan: testing.FaultPlan) -> bool:
        try:
            testing.run(main, faults=plan)
        except AssertionError:
            return True
        return False

    plan = find(
        strategies.fault_plans(nth_max=8),
        fails,
        settings=settings(max_examples=500, deadline=None, database=None),
    )
    assert [one.kind for one in plan.at] == ["short"]
    assert not plan.exact


@QUICK
@given(strategies.socket_histories(b"one two three", whole=True), strategies.fault_plans())
def test_a_whole_history_says_everything(
    history: list[strategies.SocketEvent], plan: testing.FaultPlan
) -> None:
    """Played on a real stream, simulated, it sends all in order, whatever goes wrong below."""

    async def main() -> bytes:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            near = await uringio.connect_tcp("127.0.0.1", listener.local_address[1])
            far = await listener.accept()
        async with near, far, uringio.TaskGroup() as group:
            group.start_soon(strategies.play, near, history)
            return await far.recv_exactly(13)

    assert testing.run(main, faults=plan) == b"one two three"


def test_histories_stop_anywhere_and_shrink() -> None:
    """They may end before all is said, and close or not; the simplest sends all at once."""
    simplest = find(strategies.socket_histories(b"abc"), lambda history: True)
    assert simplest == [strategies.SocketEvent("send", b"abc")]
    cut = find(
        strategies.socket_histories(b"abc"),
        lambda history: (
            bool(history)
            and history[-1].action == "close"
            and sum(len(event.data) for event in history) < 3
        ),
    )
    assert [event.action for event in cut] in (["close"], ["send", "close"])


@QUICK
@given(strategies.kernels())
def test_kernels_of_every_kind_run_programs(kernel: testing.SimKernel) -> None:
    """Whatever kernel is drawn, a program that notices no harmless fault runs on it."""

    async def main() -> None:
        await uringio.sleep(1)

    testing.run(main, kernel=kernel)


def test_what_a_peer_says_is_received() -> None:
    """`play` returns what came in its receives, and waits no longer than it says."""

    async def main() -> bytes:
        near, far = testing.memory_stream_pair()
        await far.send_all(b"welcome")
        events = [
            strategies.SocketEvent("recv", seconds=0.01),
            strategies.SocketEvent("eof"),
            strategies.SocketEvent("close"),
        ]
        got = await strategies.play(near, events)
        assert await far.recv() == b""
        return got

    assert testing.run(main) == b"welcome"


# --- the machine base ----------------------------------------------------------------------------


class Echoes(DriverMachine):
    """Memory streams, and a count that is right."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = testing.memory_stream_pair(4)
        self.sent = self.received = 0
        self.senders: list[Action] = []

    @rule()
    def receive(self) -> None:
        self.start(self.take)

    async def take(self) -> None:
        try:
            self.received += len(await self.far.recv())
        except uringio.BusyError:
            pass

    @rule(count=st.integers(1, 9))
    def send(self, count: int) -> None:
        self.start(self.give, count)

    async def give(self, count: int) -> None:
        done = 0
        try:
            await self.near.send_all(bytes(count))
            done = count
        except uringio.BusyError:
            pass
        except uringio.Cancelled as error:
            done = error.done
            raise
        finally:
            self.sent += done

    @rule()
    def rest(self) -> None:
        self.settle()

    @invariant()
    def nothing_from_nowhere(self) -> None:
        assert self.received <= self.sent + sum(9 for one in self.actions if one.begun)


class RealEchoes(Echoes):
    on = "uring"


class PolledEchoes(Echoes):
    on = "epoll"


def run_machine(machine: type[DriverMachine], examples: int = 15) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=15,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("machine", [Echoes, RealEchoes, PolledEchoes])
def test_a_machine_drives_any_driver(machine: type[DriverMachine]) -> None:
    """The same rules on simulated and real kernels; outcomes of every kind are counted."""
    if machine.on == "uring" and (refusal := uring_refusal()):
        pytest.skip(f"no uring driver here: {refusal}")
    run_machine(machine)
    counts = machine.counts
    assert counts["done"]
    assert counts["cancelled"]
    assert counts["started"] == counts["done"] + counts["cancelled"] + counts["failed"]


class Wrong(Echoes):
    """Somebody counts what was not received."""

    async def take(self) -> None:
        self.received += 100


class Misuses(Echoes):
    """Something raises what says that the library was misused."""

    @rule()
    def misuse(self) -> None:
        self.start(self.receive_twice)

    async def receive_twice(self) -> None:
        raise uringio.ClosedError("closed")


class Forgets(Echoes):
    """It leaves a descriptor open."""

    @rule()
    def listen(self) -> None:
        self.listener = self.do(uringio.listen_tcp, "127.0.0.1", 0)

    def finish_up(self) -> None:
        self.near = self.far  # the listener is not closed


@pytest.mark.parametrize(
    ("machine", "error"),
    [(Wrong, AssertionError), (Misuses, uringio.ClosedError), (Forgets, testing.LeakError)],
    ids=["wrong", "misuses", "forgets"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestWarning")
def test_a_machine_fails_where_it_should(
    machine: type[DriverMachine], error: type[Exception]
) -> None:
    """A broken invariant, misuse, and what is left open at the end each fail an example."""
    with pytest.raises(error):
        run_machine(machine, 40)
