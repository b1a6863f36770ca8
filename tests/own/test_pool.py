"""Pools: a hard bound, classes that share it, and buffers that come back when dropped."""

import gc
import itertools
import threading
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fresh import FreshPython
from uringio._own.buffer import Buffer
from uringio._own.pool import SIZE_CLASSES, Pool
from uringio.errors import (
    DoubleReleaseError,
    OpError,
    UnsupportedError,
    UsageError,
    UseAfterMoveError,
)

MIB = 1 << 20


@pytest.mark.parametrize("size", [1, 4096, 4097, 65536, 262145, MIB])
def test_sizes_and_addresses(size: int) -> None:
    """A buffer has the size that was asked for and begins at a page."""
    pool = Pool(4 * MIB)
    buffer = pool.allocate(size)
    assert buffer is not None
    assert (buffer.size, buffer.address % 4096) == (size, 0)
    buffer.release()


@pytest.mark.parametrize("size", [0, -1, MIB + 1])
def test_sizes_that_no_class_has(size: int) -> None:
    """They are a mistake, not a full pool."""
    with pytest.raises(ValueError, match=r"1\.\.1048576"):
        Pool(4 * MIB).allocate(size)


@pytest.mark.parametrize("classes", [(), (4096, 4096), (8192, 4096), (4097,), (0, 4096)])
def test_classes_that_make_no_sense(classes: tuple[int, ...]) -> None:
    """They are refused when the pool is made."""
    with pytest.raises(ValueError, match="size class"):
        Pool(4 * MIB, classes)


def test_the_bound_is_hard() -> None:
    """Not one buffer more than the bound has room for, whatever was asked before."""
    pool = Pool(2 * MIB)
    out = [pool.allocate(65536) for _ in range(40)]
    assert [buffer is not None for buffer in out] == [True] * 32 + [False] * 8
    stats = pool.stats()
    assert (stats.out_bytes, stats.refused_count) == (2 * MIB, 8)
    for buffer in out:
        if buffer is not None:
            buffer.release()


def test_no_class_starves_another_for_ever() -> None:
    """Memory that one class has given back can become buffers of another."""
    pool = Pool(2 * MIB)
    small = [pool.allocate(4096) for _ in range(512)]
    assert pool.allocate(MIB) is None
    for buffer in small:
        assert buffer is not None
        buffer.release()
    large = [pool.allocate(MIB), pool.allocate(MIB)]
    assert None not in large
    for buffer in large:
        assert buffer is not None
        buffer.release()


def test_what_came_back_last_goes_out_first() -> None:
    """Its pages are the likeliest to be cached."""
    pool = Pool(MIB)
    first, second = pool.allocate(4096), pool.allocate(4096)
    assert first is not None
    assert second is not None
    address = second.address
    first.release()
    second.release()
    again = pool.allocate(4096)
    assert again is not None
    assert again.address == address
    again.release()


def test_misuse_of_what_was_given_back() -> None:
    """Two returns, a return elsewhere and a use after the return are three clear errors."""
    pool, other = Pool(MIB), Pool(MIB)
    buffer = pool.allocate(100)
    assert buffer is not None
    with pytest.raises(UsageError, match="not of this pool"):
        other.release(buffer)
    with pytest.raises(UsageError, match="not of this pool"):
        pool.release(Buffer(100))
    pool.release(buffer)
    with pytest.raises(DoubleReleaseError):
        pool.release(buffer)
    with pytest.raises(UseAfterMoveError):
        buffer.read()
    assert pool.stats().out_count == 0


def test_an_old_handle_never_opens_the_next_owner_s_memory() -> None:
    """The same bytes, handed out again, are closed to whoever had them before."""
    pool = Pool(MIB)
    old = pool.allocate(4096)
    assert old is not None
    address = old.address
    old.release()
    new = pool.allocate(4096)
    assert new is not None
    assert new.address == address
    for act in (old.read, old.release, lambda: old.write(b"x")):
        with pytest.raises((UseAfterMoveError, DoubleReleaseError)):
            act()
    new.release()


def test_a_forgotten_buffer_comes_back_with_a_warning() -> None:
    """Dropping the last handle returns the memory and says so."""
    pool = Pool(MIB)
    buffer = pool.allocate(4096)
    assert buffer is not None
    with pytest.warns(ResourceWarning, match="4096 bytes was dropped without release"):
        del buffer
        gc.collect()
    stats = pool.stats()
    assert (stats.out_count, stats.forgotten_count) == (0, 1)


def test_a_view_of_a_forgotten_buffer_keeps_it_out() -> None:
    """Memory that somebody can still see is not handed out again."""
    pool = Pool(MIB)
    buffer = pool.allocate(4096)
    assert buffer is not None
    view = buffer.view().__enter__()
    del buffer
    gc.collect()
    assert pool.stats().out_count == 1
    with pytest.warns(ResourceWarning):
        del view
        gc.collect()
    assert pool.stats().out_count == 0


def test_preallocation_makes_pages_real() -> None:
    """The buffers are ready afterwards, and all of them are in the pool."""
    pool = Pool(2 * MIB)
    pool.preallocate(65536, 20)
    stats = pool.stats()
    assert stats.out_count == 0
    assert stats.free_count[65536] == 32
    with pytest.raises(ValueError, match="room for 2 of 3"):
        pool.preallocate(MIB, 3)
    assert pool.stats().out_count == 0


def test_huge_pages_are_a_wish() -> None:
    """The pool works with them and where there are none."""
    pool = Pool(4 * MIB, huge_pages=True)
    buffer = pool.allocate(MIB)
    assert buffer is not None
    buffer.write(b"x", offset=MIB - 1)
    buffer.release()


def test_buffers_dropped_in_many_threads_all_come_back() -> None:
    """Allocation and release from several threads at once leave nothing out and nothing twice."""
    pool = Pool(2 * MIB)
    seen: list[bool] = []

    def work(number: int) -> None:
        stamp = bytes([number]) * 4096
        fine = True
        for _ in range(300):
            buffer = pool.allocate(4096)
            if buffer is not None:
                buffer.write(stamp)
                fine = fine and buffer.read() == stamp
                buffer.release()
        seen.append(fine)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 6
    stats = pool.stats()
    assert (stats.out_count, stats.out_bytes) == (0, 0)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, MIB)), max_size=60))
def test_bytes_of_different_owners_never_meet(steps: list[tuple[int, int]]) -> None:
    """Whatever is allocated, returned and forgotten, no two buffers overlap, and sums agree."""
    pool = Pool(4 * MIB)
    out: list[Buffer] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for choice, size in steps:
            if choice < 3:
                buffer = pool.allocate(size)
                if buffer is not None:
                    out.append(buffer)
                del buffer
            elif out and choice == 3:
                out.pop(size % len(out)).release()
            elif out and choice == 4:
                del out[size % len(out)]
            places = sorted((one.address, one.address + one.size) for one in out)
            assert all(a[1] <= b[0] for a, b in itertools.pairwise(places))
            stats = pool.stats()
            assert stats.out_count == len(out)
            classes = [min(c for c in SIZE_CLASSES if c >= one.size) for one in out]
            assert stats.out_bytes == sum(classes) <= pool.max_bytes
        for one in out:
            one.release()
    assert pool.stats().out_count == 0


def test_memory_of_a_node() -> None:
    """Pages of a pool for node 0, which every machine has, are there; the kernel says so."""
    try:
        pool = Pool(MIB, node=0)
    except UnsupportedError as error:
        pytest.skip(str(error))
    except PermissionError as error:
        pytest.skip(f"a filter forbids mbind: {error}")
    pool.preallocate(MIB, 1)
    start = f"{pool.memory.addr:08x} "
    lines = Path("/proc/self/numa_maps").read_text(encoding="ascii").splitlines()
    (line,) = [line for line in lines if line.startswith(start.strip())]
    assert "prefer:0" in line
    assert "N0=256" in line


def test_nodes_that_there_are_not() -> None:
    """Numbers that no node can have are refused at once, others by the kernel, by name."""
    for node in (-1, 1024):
        with pytest.raises(ValueError, match="memory node is from 0 to 1023"):
            Pool(MIB, node=node)
    with pytest.raises((OpError, UnsupportedError), match=r"node 1023|NUMA node"):
        Pool(MIB, node=1023)


ASKING = """
import faulthandler, gc
from uringio import BufferPool
pool = BufferPool(1 << 20)  # so that each turn cuts it anew
met = 0
class Asking:
    def __init__(self):
        self.me = self
    def __del__(self):
        global met
        met += pool._inside
        pool.stats()
        buffer = pool.allocate(4096)
        if buffer is not None:
            buffer.release()
faulthandler.dump_traceback_later(60, exit=True)
gc.set_threshold(7)
for turn in range(300):
    Asking()
    size = 4096 if turn % 2 else 65536
    taken = [pool.allocate(size) for _ in range(9)]
    for buffer in taken:
        if buffer is not None:
            buffer.release()
print(met > 0, pool.stats().out_count)
"""


def test_a_finalizer_that_calls_in_does_not_hang(fresh_python: FreshPython) -> None:
    """The garbage collector may run while a pool is at work, and what it finds may ask the pool."""
    said = fresh_python(ASKING).check().stdout
    assert said == "True 0\n"  # it did break in, and nothing was lost
