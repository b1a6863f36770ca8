"""Addresses are those of the bytes, and what holds the bytes holds them still."""

import array
import ctypes
import gc
import mmap
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fresh import FreshPython
from uringio._sys import memory
from uringio._sys.memory import BYTES_DATA_OFFSET, Memory, ReadableBuffer, memory_at, pin


@pytest.fixture(params=["inline", "portable"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to the bytes of a `bytes`: CPython's own, and the one for everybody else."""
    name: str = request.param
    if name == "portable":
        monkeypatch.setattr(memory, "BYTES_DATA_OFFSET", None)
    elif BYTES_DATA_OFFSET is None:
        pytest.skip(f"{sys.implementation.name} does not store bytes inline")
    return name


class Bytes(bytes):
    """A subclass: instances carry a dictionary behind the bytes."""


@pytest.mark.parametrize(
    "data", [b"", b"a", b"hello\0world", bytes(range(256)) * 300, Bytes(b"sub")]
)
def test_address_of_bytes_is_where_they_are(way: str, data: bytes) -> None:
    """What stands at the address are the bytes, whichever way it was found."""
    addr, len_bytes, keep = pin(data)
    assert len_bytes == len(data)
    assert ctypes.string_at(addr, len_bytes) == data
    assert (keep is data) == (way == "inline")


def test_address_of_bytes_is_the_storage_itself() -> None:
    """On CPython no copy is made: a byte poked at the address is seen in the object."""
    if BYTES_DATA_OFFSET is None:
        pytest.skip(f"{sys.implementation.name} does not store bytes inline")
    data = bytes(bytearray(b"immutable, they say"))
    addr, _, _keep = pin(data)
    memory_at(addr, 1)[0] = ord("I")
    assert data == b"Immutable, they say"


def test_copy_outlives_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The portable way copies, so that its owner alone keeps the bytes alive."""
    monkeypatch.setattr(memory, "BYTES_DATA_OFFSET", None)
    addr, len_bytes, keep = pin(b"soon gone" * 1000)
    gc.collect()
    assert ctypes.string_at(addr, len_bytes) == b"soon gone" * 1000
    del keep


@given(data=st.binary(max_size=70_000))
def test_any_bytes_are_found(data: bytes) -> None:
    """The address is right for every length."""
    addr, len_bytes, _keep = pin(data)
    assert ctypes.string_at(addr, len_bytes) == data


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: bytearray(b"abcdefgh"),
        lambda: memoryview(bytearray(b"abcdefgh")),
        lambda: memoryview(bytearray(b"__abcdefgh__"))[2:10],
        lambda: memoryview(bytearray(b"abcdefgh")).cast("I"),
        lambda: memoryview(bytearray(b"abcdefgh")).cast("B", (2, 4)),
        lambda: array.array("B", b"abcdefgh"),
        lambda: array.array("i", memoryview(b"abcdefgh").cast("i")),
        lambda: (ctypes.c_char * 8)(*b"abcdefgh"),
        lambda: (ctypes.c_int32 * 2).from_buffer_copy(b"abcdefgh"),
        lambda: ctypes.c_int64.from_buffer_copy(b"abcdefgh"),
    ],
)
def test_address_of_an_export_is_the_storage_itself(
    make: Callable[[], ReadableBuffer], writable: bool
) -> None:
    """Writable exporters of any shape and format are neither copied nor moved."""
    data = make()
    addr, len_bytes, _keep = pin(data, writable=writable)
    assert len_bytes == 8
    assert ctypes.string_at(addr, 8) == b"abcdefgh"
    memory_at(addr, 8)[3] = ord("D")
    assert memoryview(data).tobytes() == b"abcDefgh"


def test_pinned_bytearray_cannot_be_resized() -> None:
    """While pinned it keeps its place; once let go it may grow again."""
    data = bytearray(b"x" * 100)
    pinned = pin(data, writable=True)
    for resize in (lambda: data.extend(b"y" * 10_000), data.clear, data.pop):
        with pytest.raises(BufferError):
            resize()
    assert data == b"x" * 100
    del pinned
    data.extend(b"y")
    assert len(data) == 101


def test_pin_keeps_the_exporter_alive() -> None:
    """Whoever holds the third part need not hold the buffer itself."""

    class Owned(bytearray):
        pass

    data = Owned(b"kept")
    gone = weakref.ref(data)
    addr, _, keep = pin(data, writable=True)
    del data
    gc.collect()
    assert ctypes.string_at(addr, 4) == b"kept"
    assert gone() is not None
    del keep
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"bytes", "immutable"),
        (memoryview(b"view of bytes"), "read-only"),
        (memoryview(bytearray(b"sealed")).toreadonly(), "read-only"),
        (memoryview(bytearray(b"every second"))[::2], "contiguous"),
    ],
)
def test_what_may_not_be_written_is_refused(data: ReadableBuffer, words: str) -> None:
    """The kernel would write there whatever Python promised of it."""
    with pytest.raises(TypeError, match=words):
        pin(data, writable=True)


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (memoryview(b"view of bytes"), b"view of bytes"),
        (memoryview(bytearray(b"sealed")).toreadonly(), b"sealed"),
        (memoryview(bytearray(b"a.b.c.d."))[::2], b"abcd"),
        (memoryview(b"a.b.c.d.")[::2], b"abcd"),
        (memoryview(bytearray(b"abcd"))[::-1], b"dcba"),
    ],
)
@pytest.mark.usefixtures("way")
def test_what_has_no_address_is_copied(data: memoryview, content: bytes) -> None:
    """For reading, a copy serves, with the items in their order."""
    addr, len_bytes, _keep = pin(data)
    assert ctypes.string_at(addr, len_bytes) == content


def test_fortran_order_is_copied_in_the_order_of_its_items() -> None:
    """Memory that is contiguous, but by columns, is neither refused nor sent in the wrong order."""
    exporter = pytest.importorskip("_testbuffer", reason="this Python has no _testbuffer")
    kwargs = {"shape": [2, 3], "format": "B"}
    by_columns = exporter.ndarray(
        list(range(6)), flags=exporter.ND_FORTRAN | exporter.ND_WRITABLE, **kwargs
    )
    view = memoryview(by_columns)
    assert view.contiguous
    assert not view.c_contiguous
    addr, len_bytes, _keep = pin(view)
    assert ctypes.string_at(addr, len_bytes) == view.tobytes()
    with pytest.raises(TypeError, match="contiguous"):
        pin(view, writable=True)


@pytest.mark.parametrize("data", [bytearray(), memoryview(bytearray()), memoryview(b"")])
def test_empty_memory_has_length_zero(data: ReadableBuffer) -> None:
    """Nothing is pinned where there is nothing; the kernel is told length 0."""
    _, len_bytes, _keep = pin(data)
    assert len_bytes == 0


@pytest.mark.parametrize("data", ["text", 7, None, [1, 2]])
def test_what_is_no_buffer_is_named(data: object) -> None:
    """The error names the type that was given."""
    with pytest.raises(TypeError, match=type(data).__name__):
        pin(data)  # type: ignore[arg-type]


def test_released_view_is_refused() -> None:
    """A view that was given up has no address any more."""
    view = memoryview(bytearray(8))
    view.release()
    with pytest.raises(ValueError, match="released"):
        pin(view)


def test_memory_is_zeroed_aligned_and_its_own() -> None:
    """A fresh page, at the address that it says, seen through all of its doors."""
    owned = Memory(3 * mmap.PAGESIZE)
    assert owned.addr % mmap.PAGESIZE == 0
    assert owned.len_bytes == len(owned.view) == 3 * mmap.PAGESIZE
    assert ctypes.string_at(owned.addr, owned.len_bytes) == bytes(owned.len_bytes)
    owned.view[10:15] = b"hello"
    assert owned.slices[10:15] == b"hello"
    assert ctypes.string_at(owned.addr + 10, 5) == b"hello"
    memory_at(owned.addr + 10, 1)[0] = ord("H")
    assert owned.slices[10:15] == b"Hello"


def test_memory_cannot_be_closed_or_resized() -> None:
    """The address stays good for as long as the object lives."""
    owned = Memory(mmap.PAGESIZE)
    with pytest.raises(BufferError):
        owned.slices.close()
    with pytest.raises(BufferError):
        owned.slices.resize(2 * mmap.PAGESIZE)


def test_view_alone_keeps_the_memory() -> None:
    """A closure that holds only the view may go on using the address."""
    owned = Memory(mmap.PAGESIZE)
    addr, view = owned.addr, owned.view
    del owned
    gc.collect()
    memory_at(addr, 4)[:] = b"here"
    assert bytes(view[:4]) == b"here"


def test_memory_is_unmapped_with_its_last_reference() -> None:
    """Nothing of it stays behind in the address space."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc/self/maps here")
    owned = Memory(16 << 20)
    addr = owned.addr

    def mapped() -> bool:
        spans = [line.split()[0].split("-") for line in maps.read_text().splitlines()]
        return any(int(start, 16) <= addr < int(end, 16) for start, end in spans)

    assert mapped()
    del owned
    gc.collect()
    assert not mapped()


def test_forked_child_has_memory_of_its_own(fresh_python: FreshPython) -> None:
    """What a child writes is not seen by the parent's requests, nor the other way round."""
    fresh_python("""
        import os
        from uringio._sys.memory import Memory
        memory = Memory(4096)
        memory.view[:6] = b"parent"
        to_child, from_parent = os.pipe()
        pid = os.fork()
        if pid == 0:
            ok = memory.slices[:6] == b"parent"
            memory.view[:6] = b"child!"
            os.read(to_child, 1)
            os._exit(0 if ok and memory.slices[:6] == b"child!" else 1)
        memory.view[:6] = b"PARENT"
        os.write(from_parent, b".")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert memory.slices[:6] == b"PARENT"
    """).check()


def test_peek_and_poke() -> None:
    """The view at an address is flat bytes, both ways, also when it is empty."""
    data = bytearray(b"0123456789")
    addr, _, _keep = pin(data, writable=True)
    view = memory_at(addr + 2, 4)
    assert (view.format, view.itemsize, view.ndim, view.readonly) == ("B", 1, 1, False)
    assert bytes(view) == b"2345"
    view[:] = b"abcd"
    assert data == b"01abcd6789"
    assert bytes(memory_at(addr, 0)) == b""
