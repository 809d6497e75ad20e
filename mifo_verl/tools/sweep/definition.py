"""What a sweep compares: arms, each a list of overrides; a file of trainer_configs/sweep/, or the command line."""

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


@dataclass(frozen=True)
class Question:
    """What the sweep is asked, and the pairs of arms whose differences in ``numbers`` answer it."""

    ask: str
    pairs: list[tuple[str, str]]
    numbers: list[str] = field(default_factory=lambda: [ACCURACY])
    """The primary ones, one or two, named before the runs; every other number is exploratory."""
    late: bool = False
    """Whether it was asked when runs had started: all of its numbers are exploratory then."""


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
    """``trainer_configs/sweep/<name>.yaml``. Raises ConfigError where it is none, with the names that there are."""
    folder = config_folder() / "sweep"
    names = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in names:
        raise ConfigError(
            f"sweep={name} must be one of {', '.join(names)}{nearest(name, names)}; the files of {folder}/"
        )
    return parse(yaml.safe_load((folder / f"{name}.yaml").read_text()), folder / f"{name}.yaml")


def parse(node: dict[str, Any], file: Path) -> Definition:
    """A definition from its YAML. Raises ConfigError, naming the file, on keys and numbers that it cannot have."""
    _require_keys(node, _KEYS, file)
    arms = {str(label): _overrides(given) for label, given in (node.get("arms") or {"": []}).items()}
    questions = []
    for one in node.get("questions") or []:
        _require_keys(one, _QUESTION_KEYS, file)
        pairs = [(str(first), str(second)) for first, second in one["pairs"]]
        questions.append(Question(one["ask"], pairs, _numbers(one, file)))
    title, overrides = node.get("title", ""), _overrides(node.get("overrides"))
    return Definition(title, overrides, arms, node.get("baseline"), _numbers(node, file), questions)


def _require_keys(node: dict[str, Any], known: tuple[str, ...], file: Path) -> None:
    for key in node:
        if key not in known:
            raise ConfigError(f"{file}: {key} must be one of {', '.join(known)}{nearest(key, list(known))}; remove it")


def _numbers(node: dict[str, Any], file: Path) -> list[str]:
    """The primary numbers of a comparison. Raises ConfigError on others than ``PRIMARY``, on none, and on many."""
    numbers = [str(one) for one in node.get("numbers", [ACCURACY])]
    for one in numbers:
        if one not in PRIMARY:
            near = nearest(one, list(PRIMARY))
            raise ConfigError(f"{file}: numbers={one} must be one of {', '.join(PRIMARY)}{near}; correct it")
    if not 1 <= len(numbers) <= _MOST_PRIMARY:
        raise ConfigError(
            f"{file}: numbers={numbers} must be one or two, because a claim is of what was asked before; choose"
        )
    return numbers


def _overrides(given: Any) -> list[str]:
    """A list of overrides, also written as one line with blanks between them."""
    return str(given).split() if isinstance(given, str) else [str(one) for one in given or []]
