"""What a sweep compares: arms, each a list of overrides; a file of trainer_configs/sweep/, or the command line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mifo_verl.bridge.compose import ConfigError, config_folder
from mifo_verl.registry import nearest

_KEYS = ("title", "overrides", "arms", "baseline", "questions")


@dataclass(frozen=True)
class Question:
    """What the sweep is asked, and the pairs of arms whose differences answer it."""

    ask: str
    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class Definition:
    """Overrides of all runs, then those of every arm by its label."""

    title: str = ""
    overrides: list[str] = field(default_factory=list)
    arms: dict[str, list[str]] = field(default_factory=lambda: {"": []})
    baseline: str | bool | None = None
    """The label of the arm that the others are compared with; None: the first; False: only the questions' pairs are."""
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
    """A definition from its YAML. Raises ConfigError, naming the file, on keys that it does not have."""
    for key in node:
        if key not in _KEYS:
            raise ConfigError(f"{file}: {key} must be one of {', '.join(_KEYS)}{nearest(key, list(_KEYS))}; remove it")
    arms = {str(label): _overrides(given) for label, given in (node.get("arms") or {"": []}).items()}
    questions = [
        Question(one["ask"], [(first, second) for first, second in one["pairs"]]) for one in node.get("questions") or []
    ]
    return Definition(node.get("title", ""), _overrides(node.get("overrides")), arms, node.get("baseline"), questions)


def _overrides(given: Any) -> list[str]:
    """A list of overrides, also written as one line with blanks between them."""
    return str(given).split() if isinstance(given, str) else [str(one) for one in given or []]
