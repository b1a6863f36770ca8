"""The runner of other people's suites can tell, and does not lose what a crash interrupts."""

import sys
from pathlib import Path

import pytest

from tests.peers import suites
from tests.peers.judging import Different, judge, read_explained
from tests.peers.running import Outcome, Run, run_suite
from tests.peers.suites import ROOT, Suite, SuiteMissingError, find

MODULE = """
import asyncio
import os
import unittest


class Tests(unittest.TestCase):
    def test_a_loop(self):
        loop = asyncio.SelectorEventLoop()
        self.addCleanup(loop.close)
        self.assertIsInstance(loop, asyncio.SelectorEventLoop)
        self.assertEqual(type(loop).__module__, "uringio.aio.loop")

    def test_b_crash(self):
        asyncio.new_event_loop()
        os._exit(3)

    def test_c_no_loop(self):
        self.assertEqual(1, 1)

    def test_d_runner(self):
        with asyncio.Runner() as runner:
            for number in range(2):
                with self.subTest(number=number):
                    runner.run(asyncio.sleep(0))
                    self.assertEqual(number, 0)

    def test_e_policy(self):
        loop = asyncio.DefaultEventLoopPolicy().new_event_loop()
        loop.close()
        self.skipTest("why not")
"""


def test_a_suite_on_our_loop(tmp_path: Path) -> None:
    """Whoever makes a loop gets ours; each test has its outcome, those behind a crash as well."""
    (tmp_path / "strange_tests.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "broken_tests.py").write_text("import no_such_module", encoding="utf-8")
    path = (str(tmp_path), str(ROOT))
    suite = Suite("cpython", "", ("strange_tests", "broken_tests"), path, ())
    run = run_suite(suite, "uringio", jobs=2, timeout=50.0)
    outcomes = {
        name.rpartition(".")[2]: (one.outcome, one.loops) for name, one in run.tests.items()
    }
    assert outcomes == {
        "test_a_loop": ("passed", 1),
        "test_b_crash": ("crashed", 1),
        "test_c_no_loop": ("passed", 0),
        "test_d_runner": ("failed", 1),
        "test_e_policy": ("skipped", 1),
    }
    assert run.tests["strange_tests.Tests.test_d_runner"].detail.count("AssertionError") == 1
    assert [name for name in run.troubles if "broken_tests" in name]


def run_of(loop: str, **outcomes: str) -> Run:
    made = {name: Outcome(outcome, loops=name != "loopless") for name, outcome in outcomes.items()}
    return Run("cpython", loop, "3.11", made)


def test_what_is_unexplained_is_found_and_what_explains_nothing() -> None:
    """A test that any peer passes and ours does not is missing, unless it makes no loop."""
    runs = {
        "asyncio": run_of("asyncio", one="passed", two="passed", three="failed", loopless="passed"),
        "uvloop": run_of("uvloop", one="passed", two="failed", three="passed", loopless="passed"),
        "uringio": run_of("uringio", one="passed", two="hung", three="error", loopless="failed"),
    }
    explained = [
        Different("cpython", ["tw*"], "because", []),
        Different("cpython", ["one"], "for no reason any more", []),
        Different("cpython", ["on?"], "at times", [], sometimes=True),
    ]
    verdict = judge(runs, explained, whole=True)
    assert verdict.missing == {"three": ["uvloop"], "two": ["asyncio"]}
    assert verdict.unexplained == ["three"]
    assert verdict.stale == ["one"]
    assert verdict.share("asyncio") == 0.5
    assert judge(runs, explained, whole=False).stale == []


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_explanations_can_be_read(python: str) -> None:
    """The file is what `judging` says, and every entry has a reason."""
    for suite in suites.SUITES:
        assert all(one.reason and one.tests for one in read_explained(suite, python))


def test_an_interpreter_without_its_tests_is_told_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Some distributions leave CPython's tests out; then there is no suite."""
    monkeypatch.setitem(sys.modules, "test", None)  # type: ignore[arg-type]
    with pytest.raises(SuiteMissingError, match="no package `test`"):
        find("cpython", tmp_path)
