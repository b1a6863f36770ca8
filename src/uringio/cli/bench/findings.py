"""
What a suite of questions found: each contender's answer to each of them, round by round.

The suites beside echo ask several things, each in a unit of its own and of less is better; an
answer is one number, with what else should be seen in its line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

from .result import ResultError, parsed
from .rivals import FORMS
from .rounds import Spread, spread

FORMAT = 1


@dataclass(frozen=True)
class Question:
    """
    One thing that is asked of every contender; the less, the better.
    """

    name: str
    """How results know it."""
    title: str
    """What is asked, as tables and the page head it."""
    unit: str
    beside: tuple[str, ...] = ()
    """What else an answer tells, by the names of columns."""


@dataclass(frozen=True)
class Answer:
    """
    What one contender answered in one round.
    """

    question: str
    contender: str
    round: int
    value: float
    """In the question's unit."""
    beside: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class Budget:
    """
    The most that one contender may take: of a rival, or in the question's unit.
    """

    question: str
    contender: str
    rival: str | None
    most: float


@dataclass(frozen=True)
class Verdict:
    """
    A budget held against a result.
    """

    who: str
    """Whose budget it is, and against whom."""
    where: str
    """In which cell, or of which question."""
    measured: float
    most: float
    unit: str = ""
    """Of both; none for ratios."""

    @property
    def is_held(self) -> bool:
        """
        Whether it is within.
        """
        return self.measured <= self.most

    def __str__(self) -> str:
        """
        Return it as the command prints it.
        """
        digits = 0 if self.unit else 3
        unit = f" {self.unit}" if self.unit else ""
        verdict = "held" if self.is_held else "EXCEEDED"
        return (
            f"budget {self.who}, {self.where}: {self.measured:.{digits}f} of at most "
            f"{self.most:.{digits}f}{unit}: {verdict}"
        )


@dataclass
class Findings:
    """
    Everything about one run of one suite.
    """

    suite: str
    machine: dict[str, object]
    settings: dict[str, object]
    """How it was measured, as the page shows it."""
    questions: list[Question]
    contenders: list[str]
    """In the order of the tables."""
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    broken: dict[str, str] = field(default_factory=dict[str, str])
    answers: list[Answer] = field(default_factory=list[Answer])

    def table(self, question: str) -> dict[str, dict[int, Answer]]:
        """
        Return the answers to one question by contender and round.
        """
        found: dict[str, dict[int, Answer]] = {}
        for answer in self.answers:
            if answer.question == question:
                found.setdefault(answer.contender, {})[answer.round] = answer
        return {name: found[name] for name in (*self.contenders, *found) if name in found}

    def cost(self, question: str, contender: str) -> Spread | None:
        """
        Return the spread of one contender's answers, or None where it has none.
        """
        by_round = self.table(question).get(contender)
        return spread([one.value for one in by_round.values()]) if by_round else None

    def ratio(self, question: str, contender: str, rival: str) -> Spread | None:
        """
        Return the spread of the ratios within rounds, or None when no round has both.

        Two forms of server, such as streams and Protocol, are not compared with each other.
        """
        if len({_form(contender), _form(rival), ""}) > 2:
            return None
        table = self.table(question)
        ours, theirs = table.get(contender, {}), table.get(rival, {})
        shared = sorted(ours.keys() & theirs.keys())
        values = [ours[at].value / theirs[at].value for at in shared if theirs[at].value > 0]
        return spread(values) if values else None

    def ratios(self) -> list[dict[str, object]]:
        """
        Return the ratios of every pair, for JSON.
        """
        rows: list[dict[str, object]] = []
        for question in self.questions:
            names = list(self.table(question.name))
            for name in names:
                for rival in names:
                    found = self.ratio(question.name, name, rival) if name != rival else None
                    if found is not None:
                        rows.append(
                            {
                                "question": question.name,
                                "contender": name,
                                "rival": rival,
                                "ratio": found.as_dict(),
                            }
                        )
        return rows

    def verdicts(self, budgets: Sequence[Budget]) -> list[Verdict]:
        """
        Return a verdict for each budget that this result can be held against.
        """
        units = {one.name: one.unit for one in self.questions}
        found: list[Verdict] = []
        for one in budgets:
            if one.rival is None:
                cost = self.cost(one.question, one.contender)
                who, unit = one.contender, units.get(one.question, "")
            else:
                cost = self.ratio(one.question, one.contender, one.rival)
                who, unit = f"{one.contender} / {one.rival}", ""
            if cost is not None:
                found.append(Verdict(who, one.question, cost.median, one.most, unit))
        return found

    def as_json(self) -> dict[str, object]:
        """
        Return all of it, with the ratios, as JSON takes it.
        """
        fields = asdict(self)
        return {
            "benchmark": fields.pop("suite"),
            "format": FORMAT,
            **fields,
            "ratios": self.ratios(),
        }


def _form(contender: str) -> str:
    return next((form for form in FORMS if contender.endswith(f"-{form}")), "")


def load(path: Path, suite: str) -> Findings:
    """
    Return the findings that were written to *path*.

    Raises:
        ResultError: It cannot be read, or is of another suite or format.
    """
    fields = parsed(path, suite, FORMAT)
    try:
        questions = [
            Question(row["name"], row["title"], row["unit"], tuple(row["beside"]))
            for row in cast("list[dict[str, str]]", fields.pop("questions"))
        ]
        answers = [
            Answer(**row)  # type: ignore[arg-type]  # of as many types as asdict() took apart
            for row in cast("list[dict[str, int]]", fields.pop("answers"))
        ]
        for name in ("benchmark", "format", "ratios"):
            del fields[name]
        plain = cast("dict[str, int]", fields)
        return Findings(
            suite=suite,
            questions=questions,
            answers=answers,
            **plain,  # type: ignore[arg-type]  # as_json() wrote them
        )
    except (KeyError, TypeError) as failure:
        raise ResultError(f"{path} is not whole: {failure}") from None
