"""What a sweep compares: arms, each a list of overrides; a file of trainer_configs/sweep/, or the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mifo_verl.compose import ConfigError, config_folder
from mifo_verl.errors import nearest
from mifo_verl.tools.sweep.numbers import ACCURACY, PRIMARY

_KEYS = ("title", "overrides", "arms", "baseline", "numbers", "questions")
_QUESTION_KEYS = ("ask", "pairs", "numbers")
_MOST_PRIMARY = 2

Test = tuple[frozenset[str], str]
"""Two arms, whichever way round, and the number that they are compared in."""


@dataclass(frozen=True)
class Question:
    """What the sweep is asked, and the pairs of arms whose differences in ``numbers`` answer it."""

    ask: str
    pairs: list[tuple[str, str]]
    numbers: list[str] = field(default_factory=lambda: [ACCURACY])
    """The primary ones, one or two, named before the runs; every other number is exploratory."""
    late: bool = False
    """Whether it was asked when runs had started: all of its numbers are exploratory then."""

    @property
    def tests(self) -> frozenset[Test]:
        return frozenset((frozenset(pair), number) for pair in self.pairs for number in self.numbers)


def against(baseline: str, arms: Sequence[str], numbers: list[str]) -> Question:
    """The question that compares every arm with one of them."""
    return Question(f"Against {baseline}", [(arm, baseline) for arm in arms if arm != baseline], numbers)


def planned_tests(questions: Sequence[Question]) -> frozenset[Test]:
    """The distinct tests of what was asked before the runs."""
    return frozenset().union(*(one.tests for one in questions if not one.late))


@dataclass(frozen=True)
class Definition:
    """Overrides of all runs, then those of every arm by its label."""

    title: str = ""
    overrides: list[str] = field(default_factory=list)
    arms: dict[str, list[str]] = field(default_factory=lambda: {"": []})
    baseline: str | bool | None = None
    """The label of the arm that the others are compared with; None: the first; False: only the questions' pairs are."""
    numbers: list[str] = field(default_factory=lambda: [ACCURACY])
    """The primary numbers of the comparison with the baseline."""
    questions: list[Question] = field(default_factory=list)


def read_definition(name: str) -> Definition:
    """``trainer_configs/sweep/<name>.yaml``. Raises ConfigError if there is none, with the names that there are."""
    folder = config_folder() / "sweep"
    names = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in names:
        known = f"{', '.join(names)}{nearest(name, names)}"
        raise ConfigError(f"sweep={name} must be one of {known}; the files of {folder}/")
    return parse(yaml.safe_load((folder / f"{name}.yaml").read_text()), folder / f"{name}.yaml")


def parse(node: dict[str, Any], file: Path) -> Definition:
    """A definition from its YAML. Raises ConfigError, naming the file, on keys and numbers that it cannot have."""
    _require_known("key", node, _KEYS, file)
    questions = []
    for one in node.get("questions") or []:
        _require_known("key", one, _QUESTION_KEYS, file)
        questions.append(Question(one["ask"], [(str(a), str(b)) for a, b in one["pairs"]], _numbers(one, file)))
    return Definition(
        title=node.get("title", ""),
        overrides=_overrides(node.get("overrides")),
        arms={str(label): _overrides(given) for label, given in (node.get("arms") or {"": []}).items()},
        baseline=node.get("baseline"),
        numbers=_numbers(node, file),
        questions=questions,
    )


def _require_known(what: str, given: Sequence[str] | dict[str, Any], known: Sequence[str], file: Path) -> None:
    for one in given:
        if one not in known:
            near = nearest(one, list(known))
            raise ConfigError(f"{file}: {what}={one} must be one of {', '.join(known)}{near}; correct it")


def _numbers(node: dict[str, Any], file: Path) -> list[str]:
    """The primary numbers of a comparison. Raises ConfigError on others than ``PRIMARY``, on none, and on many."""
    numbers = [str(one) for one in node.get("numbers", [ACCURACY])]
    _require_known("numbers", numbers, PRIMARY, file)
    if not 1 <= len(numbers) <= _MOST_PRIMARY:
        why = "because a claim is of what was asked before"
        raise ConfigError(f"{file}: numbers={numbers} must be one or two, {why}; choose")
    return numbers


def _overrides(given: Any) -> list[str]:
    """A list of overrides, also written as one line with blanks between them."""
    return str(given).split() if isinstance(given, str) else [str(one) for one in given or []]
