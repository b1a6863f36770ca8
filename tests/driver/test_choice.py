"""Which driver is chosen, whose word counts, and what is never papered over."""

import errno
import os
import re
from pathlib import Path

import pytest

import uringio
from tests.fresh import FreshPython
from tests.marks import needs_uring
from uringio import aio
from uringio._driver import current
from uringio._driver.choice import BACKENDS, VARIABLE, make_driver
from uringio._driver.op import Op
from uringio._driver.uring import UringDriver
from uringio._sys.system import System
from uringio.errors import OpError, RingError, UsageError


class Scarce(System):
    """A system on which rings of more than so many slots take too much locked memory."""

    def __init__(self, entries_max: int) -> None:
        super().__init__()
        self.entries_max = entries_max

    def io_uring_setup(self, entries: int, params_addr: int) -> int:
        if entries > self.entries_max:
            return -errno.ENOMEM
        return super().io_uring_setup(entries, params_addr)


def name_of(backend: str | None, system: System | None = None) -> str:
    driver = make_driver(_ignore, lambda _: BaseException(), backend=backend, system=system)
    driver.close()
    return driver.name


def _ignore(op: Op[object]) -> None:
    del op


@pytest.mark.parametrize("backend", ["epoll", "kqueue", "poll"])
def test_the_environment_chooses_for_those_who_do_not(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """URINGIO_BACKEND is the choice of "auto", on both schedulers; a program's own word wins."""
    monkeypatch.setenv(VARIABLE, backend)
    assert name_of("auto") == name_of(None) == backend
    assert name_of("poll") == "poll"

    async def main() -> str:
        return current.driver().name

    assert uringio.run(main) == backend
    assert aio.run(main()) == backend
    assert aio.run(main(), backend="epoll") == "epoll"


@needs_uring
@pytest.mark.parametrize("value", ["", "auto"])
def test_an_environment_without_an_opinion(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Empty and "auto" leave it to what works."""
    monkeypatch.setenv(VARIABLE, value)
    assert name_of("auto") == "uring"


def test_a_wrong_word_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which variable, and what it may be."""
    monkeypatch.setenv(VARIABLE, "iocp")
    with pytest.raises(UsageError, match=rf"{VARIABLE}.*'iocp'.*auto, uring, epoll, kqueue, poll"):
        name_of("auto")
    with pytest.raises(UsageError, match=VARIABLE):
        aio.new_event_loop()


def test_the_environment_does_not_speak_to_a_system_that_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What runs on a stand-in is decided by the stand-in alone."""
    monkeypatch.setenv(VARIABLE, "poll")
    assert name_of("epoll", System()) == "epoll"
    assert name_of(None, Scarce(1024)) in {"uring", "epoll"}


@needs_uring
@pytest.mark.parametrize("entries", [16, 64, 100])
def test_little_locked_memory_makes_a_smaller_ring(entries: int) -> None:
    """With a warning that says how small, and what to raise."""
    fitting = max(size for size in (16, 64) if size <= entries)
    with pytest.warns(RuntimeWarning, match=rf"{fitting} submission slots.*RLIMIT_MEMLOCK"):
        driver = make_driver(_ignore, lambda _: BaseException(), system=Scarce(entries))
    assert isinstance(driver, UringDriver)
    assert driver.ring.sq_entries == fitting
    driver.close()


@needs_uring
def test_no_locked_memory_at_all_is_said() -> None:
    """Not even the smallest ring fits: an error with a remedy, and no other backend."""
    with pytest.raises(RingError, match="RLIMIT_MEMLOCK") as caught:
        name_of(None, Scarce(8))
    assert caught.value.errno == errno.ENOMEM


@pytest.mark.parametrize("hidden", BACKENDS)
def test_what_a_system_lacks_is_not_imported(fresh_python: FreshPython, hidden: str) -> None:
    """A program on one backend imports no other's module, nor what only Linux has."""
    modules = {
        "uring": "_driver.uring",
        "epoll": "_driver.epoll",
        "kqueue": "_driver.kqueue",
        "poll": "_driver.poll",
    }
    others = [f"uringio.{name}" for backend, name in modules.items() if backend != hidden]
    fresh_python(
        """
        import sys
        import uringio

        async def main():
            await uringio.sleep(0)

        uringio.run(main, backend=sys.argv[1])
        assert not set(sys.argv[2:]) & set(sys.modules), sys.modules.keys()
        """,
        hidden,
        *others,
    ).check()


class Refusing(System):
    """A system that answers io_uring_setup(2) with one errno."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def io_uring_setup(self, entries: int, params_addr: int) -> int:
        del entries, params_addr
        return -self.number


def documented_fates() -> dict[str, str]:
    """Read the table of docs/backends.md: errno -> what becomes of it."""
    page = Path(__file__).parent.parent.parent / "docs" / "backends.md"
    if not page.exists():
        pytest.skip("no documents beside the tests")
    rows = re.finditer(r"(?m)^\| `(E[A-Z]+)` \| ([a-z ]+) \|", page.read_text(encoding="utf-8"))
    return {row[1]: row[2] for row in rows}


def test_every_errno_of_set_up_has_its_fate() -> None:
    """
    As documented: absent or forbidden is another backend's turn, anything else is an error.

    Never the other way round: whatever else the kernel may answer, nothing goes on in silence.
    """
    fates = documented_fates()
    assert {"EPERM", "ENOSYS", "EINVAL", "ENOMEM", "EMFILE", "ENFILE", "EFAULT"} <= fates.keys()
    for number, name in errno.errorcode.items():
        system = Refusing(number)
        if fates.get(name) == "another backend":
            driver = make_driver(_ignore, lambda _: BaseException(), system=system)
            driver.close()
            assert driver.name == "epoll"
            assert driver.refusal is not None
            assert driver.refusal.errno == number
            assert driver.refusal.__traceback__ is None
        else:
            assert fates.get(name, "error") in {"error", "smaller ring"}, name
            with pytest.raises(RingError) as caught:
                name_of(None, system)
            assert caught.value.errno == number
            assert caught.value.remedy


@pytest.mark.parametrize("backend", ["epoll", "kqueue", "poll"])
def test_a_driver_without_a_descriptor_says_what_it_was_for(backend: str) -> None:
    """And what to do, as a ring does; the standard library's error says neither."""

    class Exhausted(System):
        def pipe(self) -> tuple[int, int]:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with pytest.raises(OpError, match=rf"making the {backend} driver.*ulimit -n") as caught:
        make_driver(_ignore, lambda _: BaseException(), backend=backend, system=Exhausted())
    assert caught.value.errno == errno.EMFILE
