"""Each kind of fault strikes where it is planned, is counted, and is survived or told."""

import errno
import os

import pytest

import uringio
from tests.testing import programs
from uringio import fs, testing
from uringio.errors import OpError
from uringio.files import open_beneath
from uringio.testing import FaultPlan, OpFault

# Kinds that a program need not notice, and a program in which each has an occasion.
TRANSPARENT = {
    "late": programs.copy_file,
    "stall": programs.echo_server_and_clients,
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_programs_need_not_notice(kind: str) -> None:
    """Results told late, a clock that jumps, seldom ways: all is as ever, and they were there."""
    for seed in range(3):
        kernel = testing.SimKernel(seed, faults=FaultPlan(**{kind: 0.5}))  # type: ignore[arg-type]
        testing.run(TRANSPARENT[kind], kernel=kernel)
        assert kernel.faults.counts[kind]


async def files_of_all_kinds() -> None:
    """Use every operation that has a seldom way."""
    await fs.mkdir("/a")
    async with await uringio.open_file("/a/file", "wb") as file:
        await file.write_all(b"x" * 10_000)
        await file.truncate(5_000)
        await file.fallocate(0, 6_000)
    await fs.copy_tree("/a", "/b")
    async with (
        await uringio.open_file("/b", flags=os.O_DIRECTORY) as folder,
        await open_beneath(folder, "file", flags=os.O_NONBLOCK) as file,
    ):
        assert (await file.stat()).st_size == 6_000
    await programs.many_at_once()


def test_every_seldom_way_is_taken() -> None:
    """Each place of the library that was made for it, and nothing goes wrong."""
    seen: set[str] = set()
    for seed in range(12):
        profile = ("6.18", "blocked")[seed % 3 == 2]
        kernel = testing.SimKernel(seed, profile, FaultPlan(buggify=0.5, starve=0.2))
        testing.run(files_of_all_kinds, kernel=kernel)
        seen.update(what for what in kernel.notes if what.startswith("buggified"))
    assert seen == {
        "buggified: small queues", "buggified: no registered index",
        "buggified: buffers do not grow", "buggified: a thread does it",
        "buggified: no open is tried",
    }  # fmt: skip


def test_no_real_system_takes_a_seldom_way() -> None:
    """Where nothing is simulated the answer is no."""
    from uringio._sys.system import real_system

    assert real_system().buggify("anything") is False


@pytest.mark.parametrize("profile", ["6.18", "blocked"])
@pytest.mark.parametrize(
    ("op", "number", "expected"),
    [
        ("openat", errno.ENOMEM, OSError),
        ("openat", errno.ENFILE, OSError),
        ("fsync", errno.EIO, OSError),
        ("fsync", errno.ENOSPC, OSError),
    ],
)
def test_any_errno_of_any_operation(
    profile: str, op: str, number: int, expected: type[OSError]
) -> None:
    """A share of the calls of one operation fails with one errno, on a ring and without."""
    plan = FaultPlan(errors=(OpFault(op, number, 1.0),))
    kernel = testing.SimKernel(0, profile, plan)
    with pytest.raises(expected) as caught:
        testing.run(programs.copy_file, kernel=kernel)
    assert caught.value.errno == number
    assert isinstance(caught.value, OpError)
    assert kernel.faults.counts[f"{op}~{number}"] == 1


def test_busy_enters_are_tried_again() -> None:
    """EBUSY, EAGAIN and EINTR of io_uring_enter(2) cost time and nothing else."""
    for number in (errno.EBUSY, errno.EAGAIN, errno.EINTR):
        plan = FaultPlan(errors=(OpFault("enter", number, 0.3),))
        kernel = testing.SimKernel(1, faults=plan)
        assert testing.run(programs.echo_server_and_clients, kernel=kernel) == 6
        assert kernel.faults.counts[f"enter~{number}"] > 5


@pytest.mark.parametrize("text", ["recv~12=0.5", "*~105=0.25,late=0.5", "recv~12=0.5,recv~12@3"])
def test_errors_are_words_too(text: str) -> None:
    """The replay command says them, and what it says is the plan that it came from."""
    from uringio.testing._faults import plan_of, plan_text

    assert plan_of(plan_text(plan_of(text))) == plan_of(text)


def test_lost_datagrams_are_lost_for_good() -> None:
    """Some arrive and some do not; the sender cannot tell which."""
    kernel = testing.SimKernel(3, faults=FaultPlan(lose=0.5))

    async def main() -> list[bytes]:
        got: list[bytes] = []
        async with (
            await uringio.open_udp(("127.0.0.1", 0)) as receiver,
            await uringio.open_udp(None, receiver.local_address) as sender,
        ):
            for number in range(40):
                assert await sender.send(b"%d" % number)
            with uringio.move_on_after(1):
                while True:
                    got.append(await receiver.recv())
        return got

    got = testing.run(main, kernel=kernel)
    assert len(got) == 40 - kernel.faults.counts["lose"]
    assert 5 < len(got) < 35
    assert got == sorted(got, key=int)


def test_a_full_disk_is_told() -> None:
    """What fits is written; then ENOSPC."""
    kernel = testing.SimKernel(0)
    kernel.disk.room_bytes = 20_000
    with pytest.raises(OSError, match="space") as caught:
        testing.run(programs.copy_file, kernel=kernel)
    assert caught.value.errno == errno.ENOSPC
    assert len(kernel.disk.content(b"/data") or b"") == 20_000


async def saves_by_renaming(sync_file: bool, sync_folder: bool) -> None:
    async with await uringio.open_file("/new", "wb") as file:
        await file.write_all(b"new" * 5_000)
        if sync_file:
            await file.fsync()
    await fs.rename("/new", "/name")
    if sync_folder:
        async with await uringio.open_file("/", flags=os.O_DIRECTORY) as folder:
            await folder.fsync()


def test_power_cuts_tell_safe_renames_from_unsafe_ones() -> None:
    """Synced before the rename: old or new.  Not synced: also empty or torn, in some seed."""
    old, new = b"old" * 5_000, b"new" * 5_000
    for syncs, allowed in (((True, True), {new}), ((True, False), {old, new})):
        survivors = set()
        for seed in range(30):
            kernel = testing.SimKernel(seed)
            kernel.disk.write_file(b"/name", old)
            testing.run(saves_by_renaming, *syncs, kernel=kernel)
            kernel.disk.power_cut()
            survivors.add(kernel.disk.content(b"/name"))
        assert survivors == allowed
    broken = 0
    for seed in range(30):
        kernel = testing.SimKernel(seed)
        kernel.disk.write_file(b"/name", old)
        testing.run(saves_by_renaming, False, False, kernel=kernel)
        kernel.disk.power_cut()
        broken += kernel.disk.content(b"/name") not in {old, new}
    assert broken > 3


def test_another_kernel_starts_on_what_is_left() -> None:
    """The disk outlives its kernel, as a recovering program needs it to."""
    kernel = testing.SimKernel(1)
    testing.run(programs.copy_file, kernel=kernel)
    kernel.disk.power_cut()

    async def recover() -> bytes:
        async with await uringio.open_file("/data") as file:
            return await file.read_all()

    again = testing.SimKernel(2, disk=kernel.disk)
    assert testing.run(recover, kernel=again) == programs.pattern(3, 30_000)
