"""Whole programs on the simulated kernel: they are right under faults, and the same each time."""

import errno
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from tests.fresh import FreshPython
from tests.testing import programs
from uringio import testing
from uringio.errors import OpError

RINGS = ["6.18", "6.1", "6.0", "5.19"]


@pytest.mark.parametrize("profile", RINGS)
def test_echo_survives_every_fault_on_each_rung(profile: str) -> None:
    """Delays, short transfers, EINTR, EAGAIN, overflow, ENOBUFS: every byte comes back."""
    faults = ops = 0
    for seed in range(4):
        kernel = testing.SimKernel(seed, profile, testing.STORM)
        assert testing.run(programs.echo_server_and_clients, kernel=kernel) == 6
        faults += kernel.faults.total
        ops += kernel.op_count
    assert faults >= ops * 5 / 100, f"{faults} faults in {ops} operations prove little"


@pytest.mark.parametrize("profile", ["5.10", "blocked", "absent"])
def test_programs_fall_back_to_epoll(profile: str) -> None:
    """Where no ring can be had, the same programs run on a simulated epoll, faults and all."""
    for seed in range(3):
        kernel = testing.SimKernel(seed, profile, testing.STORM)
        assert testing.run(programs.echo_server_and_clients, kernel=kernel) == 6
        assert kernel.faults.total
        assert any(line.startswith("epoll_wait") for line in kernel.trace.tail)
        kernel = testing.SimKernel(seed, profile, testing.STORM)
        assert testing.run(programs.cancel_storm, kernel=kernel)[0]


def test_echo_without_faults_needs_none() -> None:
    """The calm plan injects nothing, and the echo is echoed."""
    kernel = testing.SimKernel(1)
    assert testing.run(programs.echo_server_and_clients, kernel=kernel) == 6
    assert kernel.faults.total == 0
    assert kernel.idle()


@pytest.mark.parametrize("profile", ["6.18", "5.19"])
def test_cancel_storm_loses_no_byte(profile: str) -> None:
    """Cancels that win, lose and come too late: what a receive had got is the next one's."""
    cancelled = 0
    seen: dict[str, int] = {}
    for seed in range(4):
        kernel = testing.SimKernel(seed, profile, testing.STORM)
        cancelled += testing.run(programs.cancel_storm, kernel=kernel)[0]
        for what, count in kernel.notes.items():
            seen[what] = seen.get(what, 0) + count
    assert cancelled > 100
    assert seen["cancel won"] and seen["cancel lost"] and seen["overflow"]


@pytest.mark.parametrize("profile", ["6.18", "5.19", "blocked"])
def test_polls_of_half_closed_streams_survive_every_fault(profile: str) -> None:
    """Room is told of when there is some, whatever of the kernel's answers is lost or cut short."""
    seen: dict[str, int] = {}
    for seed in range(4):
        plan = replace(testing.STORM, end_shots=0.3)
        kernel = testing.SimKernel(seed, profile, plan)
        assert testing.run(programs.half_closed, kernel=kernel) == 12
        for what, count in kernel.notes.items():
            seen[what] = seen.get(what, 0) + count
    assert profile == "blocked" or (seen["multishot ended early"] and seen["cancel lost"])


def test_pool_exhaustion_is_survived() -> None:
    """With many more receives ready than buffers, all are served and the pool has grown."""
    kernel = testing.SimKernel(5, faults=testing.FaultPlan(starve=0.3))
    assert testing.run(programs.many_at_once, kernel=kernel) == 100
    assert kernel.faults.counts["starve"] > 10


@pytest.mark.parametrize("profile", ["6.18", "blocked"])
def test_accept_storm_is_weathered(profile: str) -> None:
    """Resets and EMFILE on both sides: the server goes on, and in the end all are served."""
    anew = 0
    for seed in range(3):
        plan = replace(testing.STORM, reset=0.05, exhaust=0.05, until_ns=200_000_000)
        kernel = testing.SimKernel(seed, profile, plan)
        anew += testing.run(programs.accept_storm, kernel=kernel)
        assert kernel.faults.counts["reset"]
    assert anew


def test_liveness_returns_when_the_faults_stop() -> None:
    """After the last fault everything ends within five simulated seconds."""
    quiet_ns = 2_000_000
    for seed in range(4):
        kernel = testing.SimKernel(seed, faults=replace(testing.STORM, until_ns=quiet_ns))
        testing.run(programs.echo_server_and_clients, kernel=kernel)
        assert kernel.faults.stopped and kernel.faults.total
        assert kernel.clock.elapsed_ns - quiet_ns < 5 * 10**9


@pytest.mark.parametrize("profile", ["6.18", "5.19", "blocked"])
def test_files_are_read_as_written(profile: str) -> None:
    """Short and late reads and writes, EINTR: the file is whole, and survives a power cut."""
    for seed in range(3):
        kernel = testing.SimKernel(seed, profile, testing.STORM)
        testing.run(programs.copy_file, 50_000, kernel=kernel)
        kernel.disk.power_cut()
        assert kernel.disk.content(b"/data") == programs.pattern(3, 50_000)


@pytest.mark.parametrize("profile", ["6.18", "6.1", "5.19", "blocked"])
def test_zero_copy_sends_lend_their_memory(profile: str) -> None:
    """Notifications come late; memory is lent until then, and registered where there is a ring."""
    late = 0
    for seed in range(4):
        kernel = testing.SimKernel(seed, profile, testing.STORM)
        assert testing.run(programs.zero_copies, kernel=kernel) == (profile != "blocked")
        late += kernel.notes.get("notification late", 0)
    assert bool(late) == (profile in {"6.18", "6.1"})  # KERNEL 6.0: SEND_ZC


@pytest.mark.parametrize("profile", ["6.18", "5.19"])
@pytest.mark.parametrize("program", [programs.burst, programs.lease_and_keep])
def test_queues_and_leases(program: Callable[[], Awaitable[None]], profile: str) -> None:
    """Full queues, and buffers that come back in another order: nothing is lost or mixed up."""
    for seed in range(2):
        testing.run(program, seed=seed, profile=profile, faults=testing.STORM)


def test_power_cut_loses_what_was_not_synced() -> None:
    """Without a sync a file may be gone; a page written over may be old, new or torn."""
    kernel = testing.SimKernel(1)
    kernel.disk.write_file(b"/synced", b"a" * 40_960)
    testing.run(programs.write_without_sync, kernel=kernel)
    assert kernel.disk.content(b"/synced") == b"b" * 40_960
    kernel.disk.power_cut()
    assert kernel.disk.content(b"/new") is None
    survived = kernel.disk.content(b"/synced")
    assert survived is not None and len(survived) == 40_960
    pages = {survived[start : start + 4096] for start in range(0, 40_960, 4096)}
    assert {page[:1] for page in pages} == {b"a", b"b"}
    assert any(len(set(page)) == 2 for page in pages), "no page is torn"


@pytest.mark.parametrize("profile", ["6.18", "blocked"])
def test_calls_off_the_loop_take_part(profile: str) -> None:
    """What goes to a worker thread is made at a simulated time, the same each time."""
    hashes = set()
    for _ in range(2):
        kernel = testing.SimKernel(4, profile, testing.STORM)
        kernel.net.names["server.example"] = "10.0.0.7"
        found = testing.run(programs.resolves, "server.example", kernel=kernel)
        assert found == [("10.0.0.7", 80)]
        hashes.add(kernel.trace_hash())
    assert len(hashes) == 1


def test_one_fault_at_one_place() -> None:
    """An exact fault strikes the call that it names, and comes out typed."""
    plan = testing.FaultPlan(exact=(testing.ExactFault("connect", 2, errno.ENETUNREACH),))
    with pytest.raises(ExceptionGroup) as caught:
        testing.run(programs.echo_server_and_clients, faults=plan)
    error = caught.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, OpError)
    assert error.errno == errno.ENETUNREACH


def test_deadlock_is_told_and_can_be_had_again() -> None:
    """A program that waits for what cannot happen is stopped, with a command that repeats it."""
    with pytest.raises(testing.DeadlockError, match="accept") as caught:
        testing.run(programs.waits_for_ever, seed=3, profile="6.1", faults=testing.STORM)
    (note,) = caught.value.__notes__
    assert "python -m uringio.testing tests.testing.programs:waits_for_ever --seed 3" in note
    assert "--profile 6.1 --faults 'delay=0.15," in note


def test_leak_is_told() -> None:
    """A socket that is still open at the end is named."""
    import uringio

    try:
        with pytest.raises(testing.LeakError, match="socket"):
            testing.run(programs.forgets_a_socket)
    finally:
        stream = uringio.__dict__.pop("_leaked")
        stream._fd.take()  # its kernel is gone
        del stream


@pytest.mark.parametrize("text", ["", "short=0.5,delay=0.25,delay_ns_max=7,until_ns=9", "recv#3=4"])
def test_fault_plans_are_words(text: str) -> None:
    """What the replay command says is the plan that it came from."""
    from uringio.testing._faults import plan_of, plan_text

    assert plan_of(plan_text(plan_of(text))) == plan_of(text)
    assert plan_of(plan_text(testing.STORM)) == testing.STORM


def test_same_seed_same_trace_in_another_process(fresh_python: FreshPython) -> None:
    """Neither addresses nor hash seeds nor the process's history reach the trace."""
    program = "tests.testing.programs:cancel_storm"
    code = "import sys; from uringio.testing.__main__ import main; main(sys.argv[1:])"
    arguments = (program, "--seed", "5", "--seeds", "2", "--faults", "storm")
    told = {
        fresh_python(code, *arguments, env={"PYTHONHASHSEED": hash_seed}).check().stdout
        for hash_seed in ("1", "77")
    }
    assert len(told) == 1
    kernel = testing.SimKernel(5, faults=testing.STORM)
    testing.run(programs.cancel_storm, kernel=kernel)
    assert kernel.trace_hash() in told.pop()


def test_other_seed_other_trace() -> None:
    """The seed is what decides."""
    hashes = set()
    for seed in range(3):
        kernel = testing.SimKernel(seed)
        testing.run(programs.echo_server_and_clients, 2, (10,), kernel=kernel)
        hashes.add(kernel.trace_hash())
    assert len(hashes) == 3
