"""A failing run is repeated bit for bit, and shrunk to the faults that it takes."""

import errno

import pytest

import uringio
from tests.testing import programs
from uringio import testing
from uringio.net import SocketStream
from uringio.testing.__main__ import main

PROGRAM = "tests.testing.test_minimising:forgetful_server"


async def forgetful(stream: SocketStream) -> None:
    """Echo, but with one send for each receive, whatever it sends of it: the planted bug."""
    async with stream:
        while data := await stream.recv():
            await stream.sendmsg([data])


async def forgetful_server() -> None:
    async with (
        await uringio.listen_tcp("127.0.0.1", programs.PORT) as listener,
        uringio.TaskGroup() as serving,
    ):
        serving.start_soon(listener.serve, forgetful)
        async with uringio.TaskGroup() as clients:
            for number in range(4):
                clients.start_soon(client, number)
        serving.cancel_scope.cancel()


async def client(number: int) -> None:
    async with await uringio.connect_tcp("127.0.0.1", programs.PORT) as stream:
        for _ in range(5):
            message = programs.pattern(number, 64)
            await stream.send_all(message)
            with uringio.timeout(1):
                assert await stream.recv_exactly(len(message)) == message


def test_faults_are_left_out_until_each_counts() -> None:
    """Of a hundred faults one short send is left, and without it the program is right."""
    found = testing.minimise(forgetful_server, seed=4, faults=testing.STORM)
    assert found is not None
    assert found.fault_count_before > 30
    assert found.fault_count == 1, found.plan
    (strike,) = found.plan.at
    assert isinstance(strike, testing.Strike) and strike.kind == "short"
    assert found.runs < 60
    (line,) = found.story
    assert line.startswith(f"{strike} (sendmsg, ")
    kernel = testing.SimKernel(4, faults=found.plan)
    with pytest.raises(ExceptionGroup):
        testing.run(forgetful_server, kernel=kernel)
    assert str(strike) in found.command
    testing.run(forgetful_server, seed=4)


def test_program_without_a_bug_has_nothing_to_shrink() -> None:
    """What does not fail is told so."""
    assert testing.minimise(programs.echo_server_and_clients, seed=1) is None


def test_faults_that_struck_can_be_had_again_without_shares() -> None:
    """The recorded faults alone make the same run, event for event."""
    first = testing.SimKernel(3, "6.1", testing.STORM)
    testing.run(programs.echo_server_and_clients, kernel=first)
    assert len(first.faults.struck) == first.faults.total == sum(first.faults.counts.values())
    strikes = [one for one in first.faults.struck if isinstance(one, testing.Strike)]
    plan = testing.FaultPlan(at=strikes)
    again = testing.SimKernel(3, "6.1", plan)
    testing.run(programs.echo_server_and_clients, kernel=again)
    assert again.trace_hash() == first.trace_hash()
    assert again.faults.struck == first.faults.struck


def test_exact_faults_are_shrunk_too() -> None:
    """A fault at a place is one of those that may be left out."""
    exact = (
        testing.ExactFault("recv", 2, errno.ECONNRESET),
        testing.ExactFault("connect", 1, errno.ENETUNREACH),
    )
    plan = testing.FaultPlan(short=0.2, exact=exact)
    found = testing.minimise(programs.echo_server_and_clients, seed=1, faults=plan)
    assert found is not None and found.plan.at == ()
    assert len(found.plan.exact) == 1


def test_command_minimises_and_repeats(capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line: the seed that fails, its faults, and one command that repeats it."""
    assert main([PROGRAM, "--seed", "4", "--seeds", "3", "--faults", "storm", "--minimise"]) == 1
    told = capsys.readouterr().out
    assert "seed 4 fails" in told
    assert "1 left after" in told
    command = told.splitlines()[-1].partition("see it again: ")[2]
    assert command.startswith(f"python -m uringio.testing {PROGRAM} --seed 4 --profile 6.18")
    plan = command.partition("--faults ")[2].strip("'")
    with pytest.raises(ExceptionGroup):
        main([PROGRAM, "--seed", "4", "--faults", plan])
    assert main([PROGRAM, "--seed", "4", "--minimise"]) == 0
