"""The kqueue binding: each system's layout, and what a kqueue promises, on the one at hand."""

import os
import select
import socket
import sys
from collections.abc import Iterator

import pytest

from uringio import lowlevel
from uringio._sys import kqueue_numbers as q
from uringio._sys.kqueue import LAYOUTS, Kevent, Kqueue, Translation, layout_of
from uringio._sys.kqueue_emulated import EmulatedKqueue
from uringio._sys.system import System
from uringio.errors import OpError, UnsupportedError

# system, sizeof(struct kevent), then offsets of filter, flags, fflags, data, udata
GOLDEN = [
    ("freebsd", 64, 8, 10, 12, 16, 24),
    ("freebsd11", 32, 8, 10, 12, 16, 24),
    ("darwin", 32, 8, 10, 12, 16, 24),
    ("openbsd", 32, 8, 10, 12, 16, 24),
    ("dragonfly", 32, 8, 10, 12, 16, 24),
    ("netbsd", 72, 8, 12, 16, 24, 32),
    ("netbsd10", 40, 8, 12, 16, 24, 32),
    ("netbsd9", 40, 8, 12, 16, 24, 32),
    ("library", 32, 8, 10, 12, 16, 24),
]


@pytest.mark.parametrize("row", GOLDEN)
def test_layouts(row: tuple[str, int, int, int, int, int, int]) -> None:
    """Every field is where the system's sys/event.h has it, on 64 bits."""
    system, size, *offsets = row
    layout = LAYOUTS[system]
    assert layout.size == size
    for number, offset in enumerate((0, *offsets)):
        values = [0] * 6
        values[number] = 1
        [index] = [index for index, byte in enumerate(layout.packed.pack(*values)) if byte]
        assert index == offset or sys.byteorder == "big"


def test_no_layout_is_left_out() -> None:
    """Whoever adds one pins it."""
    assert {row[0] for row in GOLDEN} == set(LAYOUTS)


@pytest.mark.parametrize(
    ("platform", "release", "system"),
    [
        ("freebsd14", "14.1-RELEASE-p2", "freebsd"),
        ("freebsd12", "12.0-RELEASE", "freebsd"),
        ("freebsd11", "11.4-STABLE", "freebsd11"),
        ("darwin", "23.5.0", "darwin"),
        ("netbsd11", "11.0", "netbsd"),
        ("netbsd11", "12.99.1", "netbsd"),
        ("netbsd10", "10.1_STABLE", "netbsd10"),
        ("netbsd9", "9.3", "netbsd9"),
        ("openbsd7", "7.5", "openbsd"),
        ("dragonfly6", "6.4-RELEASE", "dragonfly"),
    ],
)
def test_the_platform_decides(platform: str, release: str, system: str) -> None:
    """The two generations of FreeBSD and of NetBSD are told apart by their release."""
    assert layout_of(platform, release).system == system


@pytest.mark.parametrize(
    ("platform", "release"), [("linux", "6.18.0"), ("sunos5", "5.11"), ("freebsd", "CURRENT")]
)
def test_a_platform_that_is_not_known_is_refused(platform: str, release: str) -> None:
    """A struct that may be one field wrong is not guessed."""
    with pytest.raises(UnsupportedError, match="kqueue"):
        layout_of(platform, release)


def test_numbers_agree_with_the_standard_library() -> None:
    """Where Python knows kqueue, its constants are ours."""
    if not hasattr(select, "kqueue"):
        pytest.skip("this Python has no select.kqueue")
    here = layout_of(sys.platform, os.uname().release)
    for name in vars(q):
        if name.startswith(("EV_", "EVFILT_", "NOTE_")) and hasattr(select, f"KQ_{name}"):
            filter_ = getattr(q, name) if name.startswith("EVFILT_") else None
            ours = here.filters.get(filter_, 0) if filter_ is not None else getattr(q, name)
            assert ours == getattr(select, f"KQ_{name}"), name


# What each system calls a filter, by its header; None: there is none.
FILTERS = {
    "freebsd": (-1, -4, -5, -6, -7, -11),
    "freebsd11": (-1, -4, -5, -6, -7, -11),
    "darwin": (-1, -4, -5, -6, -7, -10),
    "openbsd": (-1, -4, -5, -6, -7, -10),
    "dragonfly": (-1, -4, -5, -6, -7, -9),
    "netbsd": (0, 3, 4, 5, 6, 8),
    "netbsd10": (0, 3, 4, 5, 6, 8),
    "netbsd9": (0, 3, 4, 5, 6, None),
    "library": (-1, -4, -5, -6, -7, -11),
}
IN_ORDER = (
    q.EVFILT_READ, q.EVFILT_VNODE, q.EVFILT_PROC, q.EVFILT_SIGNAL, q.EVFILT_TIMER, q.EVFILT_USER
)  # fmt: skip

# system, then NOTE_SECONDS, MSECONDS, USECONDS, NSECONDS, ABSTIME by its header
TIMERS = [
    ("freebsd", (1, 2, 4, 8, 0x10)),
    ("freebsd11", (1, 2, 4, 8, 0x10)),
    ("darwin", (1, 0, 2, 4, 8)),
    ("openbsd", (1, 0, 2, 3, 0x10)),
    ("dragonfly", (None, 0, None, None, None)),
    ("netbsd", (1, 0, 2, 3, 0x10)),
    ("netbsd10", (1, 0, 2, 3, 0x10)),
    ("netbsd9", (None, 0, None, None, None)),
    ("library", (1, 0, 2, 4, 8)),
]
UNITS = (q.NOTE_SECONDS, q.NOTE_MSECONDS, q.NOTE_USECONDS, q.NOTE_NSECONDS, q.NOTE_ABSTIME)


@pytest.mark.parametrize("system", sorted(LAYOUTS))
def test_filters_have_their_systems_numbers(system: str) -> None:
    """There and back; a filter that is not there is refused by its name."""
    translation = Translation(LAYOUTS[system])
    for ours, theirs in zip(IN_ORDER, FILTERS[system], strict=True):
        if theirs is None:
            with pytest.raises(UnsupportedError, match="EVFILT_USER is not supported here"):
                translation.theirs(Kevent(1, ours))
        else:
            assert translation.theirs(Kevent(1, ours)) == (theirs, 0)
            assert translation.ours(Kevent(1, theirs)).filter == ours
    with pytest.raises(UnsupportedError, match="filter -99 is not supported here"):
        translation.theirs(Kevent(1, -99))


@pytest.mark.parametrize(("system", "expected"), TIMERS)
def test_units_have_their_systems_numbers(system: str, expected: tuple[int | None, ...]) -> None:
    """A unit that is not there is refused, and so are two, which may mean a third one there."""
    translation = Translation(LAYOUTS[system])
    for ours, theirs in zip(UNITS, expected, strict=True):
        if theirs is None:
            with pytest.raises(UnsupportedError, match=r"EVFILT_TIMER with NOTE_\w+ is not"):
                translation.theirs(Kevent(1, q.EVFILT_TIMER, fflags=ours))
        else:
            assert translation.theirs(Kevent(1, q.EVFILT_TIMER, fflags=ours))[1] == theirs
    with pytest.raises(ValueError, match="one unit"):
        translation.theirs(Kevent(1, q.EVFILT_TIMER, fflags=q.NOTE_SECONDS | q.NOTE_USECONDS))
    event = Kevent(1, LAYOUTS[system].filters[q.EVFILT_TIMER], fflags=3)
    assert translation.ours(event) == Kevent(1, q.EVFILT_TIMER)


@pytest.mark.parametrize("system", sorted(LAYOUTS))
def test_notes_go_there_and_come_back(system: str) -> None:
    """Those of files and processes one by one and all at once; others are refused by name."""
    layout = LAYOUTS[system]
    translation = Translation(layout)
    for filter_ in (q.EVFILT_VNODE, q.EVFILT_PROC):
        there = layout.notes[filter_]
        told = [note for note in there if there[note]]
        assert len({there[note] for note in told}) == len(told)
        for notes in (*told, sum(told)):
            number, theirs = translation.theirs(Kevent(1, filter_, fflags=notes))
            assert translation.ours(Kevent(1, number, fflags=theirs)).fflags == notes
    for note in (q.NOTE_OPEN, q.NOTE_TRUNCATE, q.NOTE_FUNLOCK):
        if note not in layout.notes[q.EVFILT_VNODE]:
            with pytest.raises(UnsupportedError, match=r"EVFILT_VNODE with NOTE_\w+ is not"):
                translation.theirs(Kevent(1, q.EVFILT_VNODE, fflags=note | q.NOTE_WRITE))


@pytest.mark.parametrize(
    ("system", "filter_", "note", "theirs"),
    [
        ("openbsd", q.EVFILT_VNODE, q.NOTE_TRUNCATE, 0x80),
        ("library", q.EVFILT_VNODE, q.NOTE_TRUNCATE, 0x80),
        ("freebsd", q.EVFILT_VNODE, q.NOTE_OPEN, 0x80),
        ("netbsd10", q.EVFILT_VNODE, q.NOTE_CLOSE_WRITE, 0x200),
        ("darwin", q.EVFILT_VNODE, q.NOTE_FUNLOCK, 0x100),
        ("darwin", q.EVFILT_PROC, q.NOTE_EXIT | q.NOTE_EXITSTATUS, 0x84000000),
        ("freebsd", q.EVFILT_PROC, q.NOTE_EXIT | q.NOTE_EXITSTATUS, 0x80000000),
        ("openbsd", q.EVFILT_USER, q.NOTE_TRIGGER | q.NOTE_FFCOPY | 5, 0xC1000005),
    ],
)
def test_notes_that_differ(system: str, filter_: int, note: int, theirs: int) -> None:
    """Each by its system's header."""
    assert Translation(LAYOUTS[system]).theirs(Kevent(1, filter_, fflags=note))[1] == theirs


def test_every_number_has_a_public_name() -> None:
    """The enumerations have the names and values of the table, and nothing else."""
    public = {
        ("EVFILT_", lowlevel.KqueueFilter): {"AIO"},
        ("EV_", lowlevel.KeventFlags): set(),
    }
    for (prefix, kind), private in public.items():
        expected = {
            name.removeprefix(prefix): value
            for name, value in vars(q).items()
            if name.startswith(prefix) and name.removeprefix(prefix) not in private
        }
        assert {one.name: one.value for one in kind} == expected
    notes = {
        f"NOTE_{one.name}": one.value
        for kind in (
            lowlevel.KqueueSocketNotes, lowlevel.KqueueVnodeNotes, lowlevel.KqueueProcNotes,
            lowlevel.KqueueTimerNotes, lowlevel.KqueueUserNotes,
        )
        for one in kind
    }  # fmt: skip
    masks = {"NOTE_FFNOP", "NOTE_FFCTRLMASK", "NOTE_FFLAGSMASK"}
    expected = {k: v for k, v in vars(q).items() if k.startswith("NOTE_") and k not in masks}
    # An IntFlag has no member for what is two bits of others.
    assert notes | {"NOTE_FFCOPY": int(lowlevel.KqueueUserNotes.FFCOPY)} == expected


@pytest.fixture
def kq() -> Iterator[Kqueue | EmulatedKqueue]:
    made = System().kqueue()
    yield made
    made.close()
    made.close()
    assert made.fileno() == -1


@pytest.fixture
def streams() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


Kq = Kqueue | EmulatedKqueue
Streams = tuple[socket.socket, socket.socket]
PATIENCE_NS = 20_000_000_000


def told(kq: Kq, timeout_ns: int = PATIENCE_NS) -> list[tuple[int, int]]:
    return [(event.ident, event.filter) for event in kq.control((), 64, timeout_ns)]


def test_a_level_is_told_as_long_as_it_holds(kq: Kq, streams: Streams) -> None:
    """Without EV_CLEAR, and no more once there is nothing to read."""
    ours, theirs = streams
    kq.control([Kevent(ours.fileno(), q.EVFILT_READ, q.EV_ADD)])
    assert told(kq, 0) == []
    theirs.send(b"x")
    for _ in range(2):
        assert told(kq) == [(ours.fileno(), q.EVFILT_READ)]
    ours.recv(1)
    assert told(kq, 0) == []


def test_a_change_is_told_once(kq: Kq, streams: Streams) -> None:
    """With EV_CLEAR, and again with the next bytes."""
    ours, theirs = streams
    kq.control([Kevent(ours.fileno(), q.EVFILT_READ, q.EV_ADD | q.EV_CLEAR)])
    for _ in range(2):
        theirs.send(b"x")
        assert told(kq) == [(ours.fileno(), q.EVFILT_READ)]
        assert told(kq, 0) == []


def test_both_directions_are_events_of_their_own(kq: Kq, streams: Streams) -> None:
    """Each with its udata."""
    ours, theirs = streams
    fd = ours.fileno()
    kq.control([Kevent(fd, q.EVFILT_READ, udata=7), Kevent(fd, q.EVFILT_WRITE, udata=2**63 + 1)])
    theirs.send(b"x")
    events = kq.control((), 64, PATIENCE_NS)
    assert {(event.filter, event.udata) for event in events} == {
        (q.EVFILT_READ, 7),
        (q.EVFILT_WRITE, 2**63 + 1),
    }


def test_oneshot_and_dispatch(kq: Kq, streams: Streams) -> None:
    """EV_ONESHOT goes with its event; EV_DISPATCH is disabled by it, until it is enabled."""
    ours, theirs = streams
    fd = ours.fileno()
    theirs.send(b"x")
    kq.control([Kevent(fd, q.EVFILT_READ, q.EV_ADD | q.EV_ONESHOT)])
    assert len(told(kq)) == 1
    assert told(kq, 0) == []
    with pytest.raises(OpError, match="kevent"):
        kq.control([Kevent(fd, q.EVFILT_READ, q.EV_DELETE)])
    kq.control([Kevent(fd, q.EVFILT_READ, q.EV_ADD | q.EV_DISPATCH)])
    assert len(told(kq)) == 1
    assert told(kq, 0) == []
    kq.control([Kevent(fd, q.EVFILT_READ, q.EV_ENABLE | q.EV_DISPATCH)])
    assert len(told(kq)) == 1


def test_the_end_of_a_stream_is_told(kq: Kq, streams: Streams) -> None:
    """EV_EOF comes with the event for reading."""
    ours, theirs = streams
    kq.control([Kevent(ours.fileno(), q.EVFILT_READ, q.EV_ADD | q.EV_CLEAR)])
    theirs.shutdown(socket.SHUT_WR)
    [event] = kq.control((), 64, PATIENCE_NS)
    assert event.flags & q.EV_EOF


def test_changes_that_fail_are_answered(kq: Kq, streams: Streams) -> None:
    """With EV_ERROR and the errno where there is room, by an exception where not; good ones too."""
    ours, _theirs = streams
    number = os.dup(ours.fileno())
    os.close(number)
    bad = Kevent(number, q.EVFILT_READ, q.EV_ADD | q.EV_RECEIPT)
    good = Kevent(ours.fileno(), q.EVFILT_READ, q.EV_ADD | q.EV_RECEIPT)
    answers = kq.control([bad, good], 2, 0)
    assert [(one.ident, bool(one.flags & q.EV_ERROR)) for one in answers] == [
        (number, True),
        (ours.fileno(), True),
    ]
    assert [bool(one.data) for one in answers] == [True, False]
    with pytest.raises(OpError, match=r"Bad file descriptor \[kevent"):
        kq.control([bad])


def test_user_events(kq: Kq) -> None:
    """EVFILT_USER is triggered by a change, and cleared by its event with EV_CLEAR."""
    kq.control([Kevent(5, q.EVFILT_USER, q.EV_ADD | q.EV_CLEAR)])
    assert told(kq, 0) == []
    kq.control([Kevent(5, q.EVFILT_USER, 0, q.NOTE_TRIGGER)])
    assert told(kq) == [(5, q.EVFILT_USER)]
    assert told(kq, 0) == []


def test_what_does_not_fit_is_refused(kq: Kq) -> None:
    """Before the kernel sees any of it."""
    with pytest.raises(ValueError, match="at most 512"):
        kq.control((), 513)
    with pytest.raises(ValueError, match="at most 512"):
        kq.control([Kevent(0, q.EVFILT_READ)] * 513)
    for timeout_ns in (-1, 1 << 63):
        with pytest.raises(ValueError, match="from 0 to"):
            kq.control((), 1, timeout_ns)


def test_one_that_is_forgotten_warns() -> None:
    """Dropped without being closed it says so, and closes its descriptor; not one given away."""
    reader, writer = os.pipe()
    for fd in (reader, writer):
        kqueue = Kqueue.__new__(Kqueue)  # there are none here, but in a library
        kqueue._fd, kqueue._close = fd, os.close
        if fd == writer:
            assert kqueue.detach() == fd
            del kqueue
            os.close(fd)
            continue
        with pytest.warns(ResourceWarning, match=f"unclosed kqueue, fd={fd}"):
            del kqueue
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
