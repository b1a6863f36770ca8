"""Numbers that their fields cannot hold are refused, whichever function they are given to."""

import inspect
import struct
from collections.abc import Callable, Iterator

import pytest

import uringio.lowlevel
from uringio.errors import UnsupportedError, UsageError
from uringio.lowlevel import (
    Batch,
    Message,
    Request,
    Ring,
    SetupFlags,
    Vectors,
    pack_epoll_event,
    prep_madvise64,
    prep_msg_ring,
    prep_nop,
    prep_read,
    prep_rw,
)

Refusals = (TypeError, ValueError, UsageError)
FUNCTIONS = {
    name: getattr(uringio.lowlevel, name)
    for name in dir(uringio.lowlevel)
    if name.startswith("prep_") and name != "prep_send_set_addr"
}
# Of the types that are not told apart below: what is taken by name.
SOUND: dict[str, object] = {
    "event": pack_epoll_event(0, 0),
    "words": [(4096, 0, 2)],
    "command": b"",
}


def _sound(name: str, parameter: inspect.Parameter) -> object:
    """Return what a function takes for an argument."""
    if name in SOUND:
        return SOUND[name]
    declared = str(parameter.annotation)
    for word, value in (
        ("Vectors", Vectors([bytearray(4)], writable=True)),
        ("Message", Message()),
        ("os.PathLike", "name"),
        ("memoryview", bytearray(256)),
        ("Memory", bytearray(256)),
    ):
        if word in declared:
            return value
    return 1 if parameter.default is inspect.Parameter.empty else parameter.default


def _numbers(function: Callable[..., None]) -> Iterator[str]:
    """Name the arguments of a function that are plain numbers."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.annotation in {int, "int", "int | None", int | None}:
            yield name


@pytest.fixture
def large(make_ring: Callable[..., Ring]) -> Ring:
    """A ring for requests of any size, none of which is ever submitted."""
    return make_ring(256, flags=SetupFlags.SQE128)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_number_is_cut_to_its_field(large: Ring, name: str) -> None:
    """Too many bits are refused, by a ring and by a batch, and leave nothing behind."""
    function = FUNCTIONS[name]
    sound = {
        one: _sound(one, parameter)
        for one, parameter in inspect.signature(function).parameters.items()
        if one != "ring"
    }
    batch = Batch()
    try:
        function(large, **sound)
    except UnsupportedError as error:
        pytest.skip(str(error))
    assert large.queued == 1
    for one in _numbers(function):
        for value in (-(1 << 70), 1 << 64, 1 << 70):
            for where in (large, batch):
                with pytest.raises(Refusals):
                    function(where, **{**sound, one: value})
    assert (large.queued, large.in_flight) == (1, 1)
    assert (len(batch), batch.entries) == (0, [])


def test_a_length_is_not_cut_to_32_bits(ring: Ring) -> None:
    """A read of 4 GiB would have been one of nothing, and its result the end of the file."""
    with pytest.raises(ValueError, match=r"READ is .*: len is a number .* not 4294967296"):
        prep_read(ring, 0, 4096, 0, len_bytes=1 << 32)
    with pytest.raises(ValueError, match=r"MSG_RING is .*: len is a number .* not 4294967297"):
        prep_msg_ring(ring, 0, (1 << 32) + 1, 0)
    with pytest.raises(ValueError, match=r"no memory of -1 bytes"):
        prep_read(ring, 0, 4096, 0, len_bytes=-1)
    with pytest.raises(ValueError, match=r"no memory of 1 bytes at -4096"):
        prep_read(ring, 0, -4096, 0, len_bytes=1)
    with pytest.raises(ValueError, match=r"an operation is a number from 0 to 255, not -250"):
        prep_rw(ring, -250, 0, 0, 0, 0)
    assert ring.queued == 0
    prep_madvise64(ring, 4096, 0, len_bytes=1 << 40)  # whose length has 64 bits


@pytest.mark.parametrize("kind", [Ring, Batch, Request])
def test_negative_numbers_are_written_as_c_does(
    make_ring: Callable[..., Ring], kind: type[Ring | Batch | Request]
) -> None:
    """What the kernel takes for an unsigned number may be given as the signed one it stands for."""
    where = make_ring() if kind is Ring else kind()
    prep_msg_ring(where, 5, -7, 1)
    if isinstance(where, Ring):
        core = where._core
        assert core is not None
        raw = bytes(core.sqes[:64])
    else:
        raw = bytes(where.raw)
    assert struct.unpack_from("=i", raw, 24)[0] == -7


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda ring: ring.register_files([1 << 31]), ValueError, "a descriptor is a number"),
        (lambda ring: ring.register_files([None]), TypeError, "a descriptor is a number, not None"),
        (lambda ring: ring.register_files([0], [-1]), ValueError, "a tag is a number from 0"),
        (lambda ring: ring.register_files_update(-1, [0]), ValueError, "first_slot cannot be -1"),
        (lambda ring: ring.register_files_sparse(1 << 32), ValueError, "count cannot be 4294"),
        (lambda ring: ring.register_buffers_sparse(-1), ValueError, "count cannot be -1"),
        (lambda ring: ring.register_file_alloc_range(-1, 1), ValueError, "first_slot cannot"),
        (lambda ring: ring.register_eventfd(1 << 40), ValueError, "a descriptor is a number"),
        (lambda ring: ring.register_iowq_max_workers(-1), ValueError, "bounded cannot be -1"),
        (lambda ring: ring.register_iowq_aff([1 << 70]), ValueError, "no processor"),
        (lambda ring: ring.register_clock(-1), ValueError, "clock cannot be -1"),
        (lambda ring: ring.register_sync_cancel(1 << 64), ValueError, "user_data cannot be"),
        (lambda ring: ring.register_sync_cancel(1, timeout_ns=1.5), TypeError, "float"),
        (lambda ring: ring.register_napi(1, prefer_busy_poll=256), ValueError, "prefer_busy"),
        (lambda ring: ring.unregister_personality((1 << 32) + 1), ValueError, "has 32 bits"),
        (lambda ring: ring.buf_ring_head(-1), ValueError, "group cannot be -1"),
        (lambda ring: ring.setup_buf_ring(1.5, 1, 64), TypeError, "group is a number, not 1.5"),
        (lambda ring: ring.resize_rings(8, 1 << 32), ValueError, "queues cannot have"),
        (lambda ring: ring.wait(1, 1 << 63), ValueError, "cannot take"),
        (lambda ring: ring.wait(1, 1.5), TypeError, "float"),
        (lambda ring: ring.wait(1, until_ns=1.5), TypeError, "float"),
        (lambda _: Ring.sandboxed(8, ops=[256]), ValueError, "op cannot be 256"),
        (lambda ring: ring.register_restrictions(ops=["NOP"]), TypeError, "op is a number"),
        (lambda _: pack_epoll_event(-1, 0), ValueError, "events cannot be -1"),
    ],
)
def test_registrations_and_waits_name_what_does_not_fit(
    ring: Ring, call: Callable[[Ring], object], kind: type[Exception], text: str
) -> None:
    """The kernel is not asked, and no number reaches it cut short."""
    with pytest.raises(kind, match=text):
        call(ring)
    prep_nop(ring, user_data=3)
    assert ring.wait() == [(3, 0, 0)]
