"""Buffers: sizes, alignment, copies in and out, views that end."""

import array
import gc
import sys

import pytest

from uringio._own.buffer import Buffer
from uringio.errors import BorrowedError, DoubleReleaseError, UseAfterMoveError


@pytest.mark.parametrize("align", [1, 64, 4096, 16384, 1 << 20])
@pytest.mark.parametrize("size", [1, 4095, 4097])
def test_memory_begins_where_it_was_asked_to(size: int, align: int) -> None:
    """The address is a multiple of the alignment, and every byte of the size is there."""
    buffer = Buffer(size, align=align)
    assert buffer.address % align == 0
    assert buffer.size == size
    buffer.write(b"\xaa" * size)
    assert buffer.read() == b"\xaa" * size


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_is_positive(size: int) -> None:
    """No memory is a mistake, and said so."""
    with pytest.raises(ValueError, match="from 1 byte up"):
        Buffer(size)


@pytest.mark.parametrize("align", [0, -4096, 3, 4097])
def test_an_alignment_is_a_power_of_two(align: int) -> None:
    """Anything else has no meaning."""
    with pytest.raises(ValueError, match="power of two"):
        Buffer(1, align=align)


def test_copies_count_as_slices_do() -> None:
    """`read` takes what a slice of bytes would, for every kind of index."""
    data = bytes(range(50))
    buffer = Buffer.holding(data)
    for start in (-60, -5, 0, 3, 49, 50, 70):
        for stop in (None, -60, -1, 0, 4, 50, 99):
            assert buffer.read(start, stop) == data[start:stop]
            with buffer.view(start, stop) as view:
                assert view == data[start:stop]


def test_what_does_not_fit_is_not_written() -> None:
    """A refused write leaves every byte as it was."""
    buffer = Buffer.holding(b"12345678")
    for data, offset in ((b"123456789", 0), (b"1", 8), (b"1", -1), (b"", 9)):
        with pytest.raises(ValueError, match="do not fit"):
            buffer.write(data, offset=offset)
    assert buffer.read() == b"12345678"


def test_any_exporter_can_be_written() -> None:
    """Items count by their bytes; memory with gaps is written in the order of its items."""
    buffer = Buffer(16)
    assert buffer.write(memoryview(array.array("I", [1, 2]))) == 8
    assert buffer.read(0, 8) == array.array("I", [1, 2]).tobytes()
    assert buffer.write(memoryview(b"a.b.c.")[::2], offset=8) == 3
    assert buffer.read(8, 11) == b"abc"


def test_a_view_writes_through_and_dies_with_its_block() -> None:
    """What is stored through a view is in the buffer; after the block the view refuses."""
    buffer = Buffer.holding(b"hello")
    with buffer.view() as view:
        view[:1] = b"J"
    assert buffer.read() == b"Jello"
    with pytest.raises(ValueError, match="released"):
        view[0]


def test_a_borrowed_buffer_is_not_moved_or_released() -> None:
    """While a view is alive both are refused; reading and writing go on."""
    buffer = Buffer(8)
    with buffer.view(), buffer.view():
        with pytest.raises(BorrowedError, match="2 views of it are alive"):
            buffer.release()
        with pytest.raises(BorrowedError, match="cannot be moved"):
            buffer.loan.require(buffer.key, "be moved")
        buffer.write(b"fine")
    buffer.release()


def test_a_slice_that_outlives_its_block_keeps_the_buffer_borrowed() -> None:
    """The block says so, and the buffer is free again once the slice has gone."""
    buffer = Buffer.holding(b"hello")
    with pytest.raises(BorrowedError, match="outlives its block"):  # noqa: SIM117
        with buffer.view() as view:
            kept = view[1:3]
    with pytest.raises(BorrowedError):
        buffer.release()
    assert bytes(kept) == b"el"
    del view
    kept.release()
    del kept
    gc.collect()
    buffer.release()


def test_an_error_in_the_block_is_not_hidden() -> None:
    """What went wrong inside is what the caller hears, even if a slice is left over."""
    buffer = Buffer(4)
    kept = []
    with pytest.raises(KeyError), buffer.view() as view:
        kept.append(view[:2])
        raise KeyError
    assert repr(buffer) == "<Buffer 4 bytes, borrowed>"


def test_views_keep_the_memory_and_not_the_handle() -> None:
    """A view of a buffer that nobody has any more still reads what was written."""
    view = Buffer.holding(b"still here").view().__enter__()
    gc.collect()
    churn = [Buffer.holding(b"something else") for _ in range(50)]
    assert bytes(view) == b"still here"
    del churn


def test_a_released_buffer_refuses() -> None:
    """Everything is refused, and a second release is named for what it is."""
    buffer = Buffer(4)
    buffer.release()
    for act in (buffer.read, buffer.view().__enter__, lambda: buffer.write(b"1")):
        with pytest.raises(UseAfterMoveError, match="was released"):
            act()
    with pytest.raises(DoubleReleaseError):
        buffer.release()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="classes export buffers from 3.12 on")
def test_it_exports_the_buffer_protocol() -> None:
    """`memoryview(buffer)` is a borrow, and so is each function that takes bytes-like objects."""
    buffer = Buffer.holding(b"hello")
    assert bytes(buffer) == b"hello"  # type: ignore[call-overload]
    view = memoryview(buffer)  # type: ignore[arg-type]
    with pytest.raises(BorrowedError):
        buffer.release()
    view.release()
    del view
    buffer.release()
    with pytest.raises((UseAfterMoveError, TypeError, BufferError)):
        memoryview(buffer)  # type: ignore[arg-type]
