"""The harness can fail: its leak check, its seed and its child interpreters are tested too."""

import _thread
import os
import threading

import pytest

from tests import leaks
from tests.fresh import FreshPython


def test_leak_check_sees_a_leaked_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A descriptor opened after the stock-taking is named."""
    monkeypatch.setattr(leaks, "THREAD_END_S", 0.0)
    before = leaks.holdings()
    fd = os.open(os.devnull, os.O_RDONLY)
    try:
        assert leaks.difference(before) == [f"fd {fd} -> {os.devnull} leaked"]
    finally:
        os.close(fd)
    assert leaks.difference(before) == []


def test_leak_check_sees_a_descriptor_closed_by_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing what was open before is reported as well."""
    monkeypatch.setattr(leaks, "THREAD_END_S", 0.0)
    fd = os.open(os.devnull, os.O_RDONLY)
    before = leaks.holdings()
    os.close(fd)
    assert leaks.difference(before) == [f"fd {fd} -> {os.devnull} was closed"]


def test_leak_check_waits_for_what_a_worker_still_holds() -> None:
    """A descriptor that a thread which no Python code knows closes in a moment has not leaked."""
    before = leaks.holdings()
    fd = os.open(os.devnull, os.O_RDONLY)
    seen = threading.Event()

    def close_late() -> None:
        seen.wait(0.1)
        os.close(fd)

    _thread.start_new_thread(close_late, ())
    assert leaks.difference(before) == []


def test_leak_check_waits_for_threads_and_names_those_that_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread that ends is no leak; one that runs on is."""
    before = leaks.holdings()
    threading.Thread(target=int).start()
    assert leaks.difference(before) == []

    monkeypatch.setattr(leaks, "THREAD_END_S", 0.0)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="stays")
    thread.start()
    try:
        assert leaks.difference(before) == ["thread 'stays' still runs"]
    finally:
        stop.set()
        thread.join()


def test_fresh_python_reports_output_and_status(fresh_python: FreshPython) -> None:
    """Both streams, the arguments and the exit status come back."""
    run = fresh_python(
        """
        import sys
        print("out", *sys.argv[1:])
        print("err", file=sys.stderr)
        sys.exit(3)
        """,
        "one",
        "two",
    )
    assert (run.stdout, run.stderr, run.returncode) == ("out one two\n", "err\n", 3)
    with pytest.raises(AssertionError, match="exit status 3"):
        run.check()


def test_fresh_python_finds_the_package_from_anywhere(
    fresh_python: FreshPython, tmp_path: os.PathLike[str]
) -> None:
    """A child in another folder imports the package under test."""
    code = "import uringio.errors; print(uringio.errors.__name__)"
    assert fresh_python(code, cwd=tmp_path).check().stdout == "uringio.errors\n"


def test_fresh_python_kills_what_hangs(fresh_python: FreshPython) -> None:
    """A child that outstays its time fails the test, with what it had printed."""
    code = "import threading; print('began', flush=True); threading.Event().wait()"
    for timeout_s in (0.5, 2.0, 8.0, 32.0):  # on a busy machine it takes a while to begin
        with pytest.raises(AssertionError, match="still running") as caught:
            fresh_python(code, timeout_s=timeout_s)
        if "began" in str(caught.value):
            return
    pytest.fail("what the child printed was lost")


def test_warnings_are_errors_in_children(fresh_python: FreshPython) -> None:
    """A warning in a child ends it, as it would end a test."""
    run = fresh_python("import warnings; warnings.warn('no', stacklevel=1)")
    assert run.returncode == 1
    assert "UserWarning: no" in run.stderr
