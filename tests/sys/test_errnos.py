"""Every errno has a fate, and what the user must know comes with a remedy."""

import errno

import pytest

from uringio._sys.errnos import (
    ENTER_FATES,
    ENTER_REMEDIES,
    SETUP_REMEDIES,
    Fate,
    fate_of_enter,
)
from uringio.errors import RingError

# As io_uring_enter(2) has them, by hand: what is neither here nor RAISE cannot happen.
ENDS_THE_WAIT = {errno.ETIME, errno.EINTR}
NEEDS_ROOM = {errno.EAGAIN, errno.EBUSY}
ENDS_THE_RING = {
    errno.EEXIST,
    errno.EBADR,
    errno.EBADFD,
    errno.ENXIO,
    errno.EOWNERDEAD,
    errno.ENOMEM,
    errno.EPERM,
    errno.EACCES,
    errno.ENOSYS,
}


@pytest.mark.parametrize("number", sorted(errno.errorcode), ids=lambda one: errno.errorcode[one])
def test_enter_knows_what_to_do_about_every_errno(number: int) -> None:
    """Each errno of this system has exactly one fate, and it is the one written down here."""
    fates = [
        fate
        for fate, numbers in (
            (Fate.DONE, ENDS_THE_WAIT),
            (Fate.REAP, NEEDS_ROOM),
            (Fate.RAISE, ENDS_THE_RING),
        )
        if number in numbers
    ] or [Fate.BUG]
    assert [fate_of_enter(number)] == fates


def test_unheard_of_errno_is_a_bug() -> None:
    """A number that this Python has no name for has a fate too."""
    assert fate_of_enter(4095) is Fate.BUG


def test_table_holds_no_bugs() -> None:
    """A row says what to do; what has none is a bug already."""
    assert Fate.BUG not in ENTER_FATES.values()


@pytest.mark.parametrize("number", sorted(ENTER_REMEDIES))
def test_remedies_are_for_what_is_raised(number: int) -> None:
    """A remedy that nobody would see is a mistake in one of the tables."""
    assert fate_of_enter(number) is Fate.RAISE


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EPERM, ("seccomp", "kernel.io_uring_disabled", "another backend")),
        (errno.ENOSYS, ("kernel", "seccomp", "another backend")),
        (errno.EACCES, ("security policy", "nother backend")),
        (errno.ENOMEM, ("RLIMIT_MEMLOCK", "ulimit -l", "fewer entries")),
        (errno.EMFILE, ("ulimit -n",)),
        (errno.ENFILE, ("fs.file-max",)),
        (errno.EINVAL, ("5.19", "another backend")),
    ],
)
def test_refused_setup_names_cause_and_remedy(number: int, words: tuple[str, ...]) -> None:
    """Whoever meets the error reads what to look at, without a search."""
    text = str(RingError(number, "io_uring_setup failed", SETUP_REMEDIES[number]))
    for word in words:
        assert word in text


@pytest.mark.parametrize("remedy", [*SETUP_REMEDIES.values(), *ENTER_REMEDIES.values()])
def test_remedies_read_as_sentences(remedy: str) -> None:
    """They follow a full stop: a capital, or the lower-case name of the thing itself."""
    assert remedy[0].isupper() or remedy.startswith("io_uring")
    assert not remedy.endswith(".")
    assert "  " not in remedy
