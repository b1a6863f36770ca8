"""
Run the tests of one module on one loop: the program of `running`'s child processes.

What it is to do comes as JSON in the first argument, and what came of each test goes as a line of
JSON to the file named there: first that the test has begun, so that the parent knows which one is
to blame for a hang or a crash, then its outcome.
"""

import json
import sys
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

__all__ = ["main"]

# The same tests once more, on asyncio's loop with another selector: on other loops nothing new.
_SAME_AGAIN = ("PollEventLoopTests", "SelectEventLoopTests")
_Error = tuple[type[BaseException], BaseException, TracebackType]


class Recorder(unittest.TestResult):
    """Writes what happens."""

    def __init__(self, results: Path, prefix: str) -> None:
        super().__init__()
        self._results = results.open("a", encoding="utf-8", buffering=1)
        self._prefix = prefix
        self._outcome = ""
        self._detail = ""
        self._began = 0.0
        self.loops_made = 0

    def _write(self, **record: object) -> None:
        self._results.write(json.dumps(record) + "\n")

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._outcome = self._detail = ""
        self.loops_made = 0
        self._began = time.monotonic()
        self._write(test=test.id().removeprefix(self._prefix), outcome="begun")

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self._write(
            test=test.id().removeprefix(self._prefix),
            outcome=self._outcome or "passed",
            detail=self._detail,
            loops=self.loops_made,
            seconds=round(time.monotonic() - self._began, 3),
        )

    def count_loop(self) -> None:
        """Note that the test has made a loop; at once, since it may never end."""
        self.loops_made += 1
        if self.loops_made == 1:
            self._write(outcome="looping")

    def trouble(self, where: str, detail: str) -> None:
        """Note what went wrong outside of any test."""
        self._write(test=where.removeprefix(self._prefix), outcome="set-up", detail=detail)

    def _note(self, outcome: str, detail: str) -> None:
        if self._outcome not in {"failed", "error"}:
            self._outcome, self._detail = outcome, detail

    def addFailure(self, test: unittest.TestCase, err: _Error) -> None:
        self._note("failed", self._exc_info_to_string(err, test))

    def addError(self, test: unittest.TestCase, err: _Error) -> None:
        detail = self._exc_info_to_string(err, test)
        if isinstance(test, unittest.TestCase):
            self._note("error", detail)
        else:  # the set-up of a class or module
            self.trouble(f"{test}", detail)

    def addSubTest(
        self, test: unittest.TestCase, subtest: unittest.TestCase, err: _Error | None
    ) -> None:
        if err is not None:
            self._note("failed", self._exc_info_to_string(err, test))

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        if isinstance(test, unittest.TestCase):
            self._note("skipped", reason)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._note("failed", "unexpected success")


def flat(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from flat(one)
        else:
            yield one


def main() -> None:
    order = json.loads(sys.argv[1])
    sys.path[:0] = order["path"]

    from tests.peers import factories

    recorder = Recorder(Path(order["results"]), order["prefix"])

    def made() -> None:
        recorder.count_loop()

    factories.substitute(order["loop"], made)
    loader = unittest.TestLoader()
    try:
        tests = list(flat(loader.loadTestsFromName(order["module"])))
    except unittest.SkipTest:
        return  # made for another system
    for error in loader.errors:
        recorder.trouble("import", error)
    if order["suite"] == "uvloop":
        from uvloop import _testbase

        generic = _testbase.AIOTestCase
        tests = [test for test in tests if isinstance(test, generic)]
        for case in {type(test) for test in tests}:
            # Programs that tests run in processes of their own.
            if getattr(case, "NEW_LOOP", None) and order["loop"] != "asyncio":
                case.NEW_LOOP = "uvloop.new_event_loop()"
    tests = [
        test
        for test in tests
        if not type(test).__module__.startswith("unittest.")
        and type(test).__name__ not in _SAME_AGAIN
    ]
    only, done = order["only"], set(order["done"])
    tests = [test for test in tests if test.id().removeprefix(order["prefix"]) not in done]
    tests = [test for test in tests if not only or any(part in test.id() for part in only)]
    unittest.TestSuite(tests).run(recorder)


if __name__ == "__main__":
    main()
