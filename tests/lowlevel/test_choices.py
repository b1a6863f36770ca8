"""What kind of ring may be asked for: the library and the kernel agree, and refusals say why."""

import errno
import itertools
import select
from collections.abc import Callable
from functools import partial
from typing import Protocol

import pytest

from tests.lowlevel.rig import PATIENCE_NS
from uringio._ring.setup import queue_init
from uringio._sys.system import System, real_system
from uringio.errors import OpError, RingError, UnsupportedError, UsageError
from uringio.lowlevel import Ring, SetupFlags, query
from uringio.lowlevel import _choices as choices

MakeRing = Callable[..., Ring]
S = SetupFlags
# Those that need another argument, or say nothing beside the others, are left out.
TRIED = [one for one in S if one not in {S.ATTACH_WQ, S.CQSIZE, S.CLAMP, S.SUBMIT_ALL}]


class Closable(Protocol):
    """A ring, of either kind."""

    def close(self) -> None:
        """Be no more."""


def answer(make: Callable[[], Closable]) -> Exception | None:
    """
    Make a ring, close it, and return what was raised instead.

    Memory that counts against a limit is given back some time after a ring was closed.
    """
    poller = select.poll()
    for _ in range(PATIENCE_NS // 1_000_000):
        try:
            made = make()
        except RingError as error:
            if error.errno != errno.ENOMEM:
                return error
            poller.poll(1)
        except UsageError as error:
            return error
        else:
            made.close()
            return None
    raise AssertionError("memory was short for too long")


def test_kernel_and_library_refuse_the_same(make_ring: MakeRing) -> None:
    """
    For every three set-up flags that the kernel knows: refused by name here, or made there.

    So no combination comes back as a bare EINVAL, and none is refused that could be had.
    """
    make_ring().close()
    try:
        known = query().setup_flags
    except OpError:
        pytest.skip("this kernel does not tell which flags it knows (Linux 6.18 does)")
    flags = [one for one in TRIED if one & known]
    wrong: list[str] = []
    for few in itertools.chain(*(itertools.combinations(flags, count) for count in (1, 2, 3))):
        asked = S(sum(few))
        processor = 0 if S.SQ_AFF in asked else None
        ours = answer(partial(Ring, 1, flags=asked, sq_thread_cpu=processor))
        if isinstance(ours, RingError):
            wrong.append(f"{asked!r} got {ours}")
        elif ours and not answer(partial(queue_init, real_system(), 1, ladder=(int(asked),))):
            wrong.append(f"{asked!r} could be had")
    assert wrong == []


class Refuses(System):
    """Refuses every set-up, by one errno."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def io_uring_setup(self, entries: int, params_addr: int) -> int:
        """Refuse."""
        del entries, params_addr
        return -self._number


@pytest.mark.parametrize(
    ("number", "flags", "text"),
    [
        (errno.EPERM, S.SQPOLL, "SELinux.*SQPOLL: try without"),
        (errno.EACCES, S.SQPOLL, "SELinux.*SQPOLL: try without"),
        (errno.EPERM, S.NO_SQARRAY, "seccomp.*use another backend"),
        (errno.EBUSY, S.NO_MMAP | S.REGISTERED_FD_ONLY, "sixteen registered indexes"),
        (errno.ENOMEM, S.NO_MMAP, "RLIMIT_MEMLOCK"),
        (errno.EMFILE, S.SQPOLL, "no descriptor left"),
    ],
)
def test_a_refusal_says_what_to_do(number: int, flags: int, text: str) -> None:
    """By the kind of ring that was asked for; the kernel's own word is its cause."""
    with pytest.raises(RingError, match=text) as caught:
        Ring(4, flags=flags, system=Refuses(number))
    assert caught.value.errno == number
    cause = caught.value.__cause__
    assert cause is None or (isinstance(cause, RingError) and cause.errno == number)


def known_flags(monkeypatch: pytest.MonkeyPatch, flags: int | None) -> None:
    """Have the kernel tell that it knows these, None: that it knows not how to tell."""

    def answer() -> object:
        if flags is None:
            raise OpError(errno.EINVAL, "too old")
        return query()._replace(setup_flags=flags)

    monkeypatch.setattr(choices, "query", answer)


def test_flags_that_are_too_young_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the release that has the newest of them; older kernels do not tell, and get a guess."""
    refuses = Refuses(errno.EINVAL)
    known_flags(monkeypatch, int(S.SINGLE_ISSUER | S.DEFER_TASKRUN | S.CLAMP | S.CQSIZE))
    with pytest.raises(UnsupportedError) as caught:
        Ring(4, flags=S.CQE_MIXED | S.NO_SQARRAY | S.SINGLE_ISSUER, system=refuses)
    assert (caught.value.since, caught.value.op) == (
        "Linux 6.18", "SetupFlags.NO_SQARRAY and SetupFlags.CQE_MIXED",
    )  # fmt: skip
    known_flags(monkeypatch, None)
    with pytest.raises(RingError, match=r"newest of these flags needs Linux 6\.18"):
        Ring(4, flags=S.CQE_MIXED | S.NO_SQARRAY, system=refuses)


def test_flags_that_are_known_and_yet_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else is wrong then: the processor, or a rule that is younger than this library."""
    refuses = Refuses(errno.EINVAL)
    known_flags(monkeypatch, int(sum(S)))
    with pytest.raises(RingError, match=r"on processor 1.*on line"):
        Ring(4, flags=S.SQPOLL, sq_thread_cpu=1, system=refuses)
    with pytest.raises(RingError, match="takes them not together"):
        Ring(4, flags=S.CQE_MIXED, system=refuses)
    with pytest.raises(RingError, match="no kernel knows set-up flags 0x40000000"):
        Ring(4, flags=1 << 30, system=refuses)


class Narrow(System):
    """A system whose pointers have 32 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.pointer_bytes = 4


@pytest.mark.parametrize("flags", [None, S.SQPOLL, S.NO_MMAP])
def test_a_process_of_32_bits_gets_no_ring(flags: int | None) -> None:
    """Its structures would be laid out otherwise: refused clearly, whatever is asked for."""
    with pytest.raises(RingError, match="64-bit Python"):
        Ring(4, flags=flags, system=Narrow())
