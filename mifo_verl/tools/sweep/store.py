"""``sweep.json``: which runs a sweep has and what was asked of them, so that its table can be made again.

A later call may add runs. What was asked before the first run started stays as it was; what is asked later is marked.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mifo_verl.compose import ConfigError
from mifo_verl.run.journal import CONFIG, replace_text
from mifo_verl.tools.sweep.definition import Definition, Question
from mifo_verl.tools.sweep.numbers import ACCURACY
from mifo_verl.tools.sweep.plan import PlannedRun

SWEEP = "sweep.json"


def write_sweep(folder: Path, definition: Definition, command: str, runs: Sequence[PlannedRun]) -> None:
    """Keep the plan. Runs of an earlier call stay where they were; a run of the same name is the new one.

    What was asked stays too, where this call asks nothing. Runs that come when others have started are ``added``.

    Raises ConfigError where ``baseline`` is no arm.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = read_sweep(folder) if (folder / SWEEP).exists() else {}
    was_added = {run["name"]: run.get("added", False) for run in held.get("runs", [])}
    started = any((folder / name / CONFIG).exists() for name in was_added)
    new = [
        {"name": run.name, "arm": run.arm, "seed": run.seed, "added": was_added.get(run.name, started)} for run in runs
    ]
    names = {run["name"] for run in new}
    all_runs = [*(run for run in held.get("runs", []) if run["name"] not in names), *new]
    arms = list(dict.fromkeys(run["arm"] for run in all_runs))
    baseline = held.get("baseline", runs[0].arm) if definition.baseline is None else definition.baseline
    if baseline is not False and baseline not in arms:
        raise ConfigError(f"baseline={baseline} must be one of {', '.join(arms)}; choose an arm of this sweep")
    questions = [asdict(question) for question in definition.questions]
    asked: dict[str, Any] = {"title": definition.title, "numbers": definition.numbers, "questions": questions}
    if held and not definition.questions:
        asked = {name: held.get(name, value) for name, value in asked.items()}
    asked |= {"baseline": baseline}
    if started:
        asked = _held_fixed(held, asked, arms)
    replace_text(folder / SWEEP, json.dumps(asked | {"command": command, "runs": all_runs}, indent=2) + "\n")


def _held_fixed(held: dict[str, Any], asked: dict[str, Any], arms: Sequence[str]) -> dict[str, Any]:
    """What was asked before, and then as ``late`` questions whatever this call asks beside it.

    Another baseline, or other numbers for the comparison with it, are a late question of all arms.
    """
    before = {"numbers": held.get("numbers", [ACCURACY]), "baseline": held["baseline"]}
    new = list(asked["questions"])
    if asked["baseline"] is not False and any(asked[name] != value for name, value in before.items()):
        pairs = [(arm, asked["baseline"]) for arm in arms if arm != asked["baseline"]]
        new.append(asdict(Question(f"Against {asked['baseline']}", pairs, asked["numbers"])))
    known = {_tests(question) for question in held["questions"]}
    late = [question | {"late": True} for question in new if _tests(question) not in known]
    return asked | before | {"questions": [*held["questions"], *late]}


def _tests(question: dict[str, Any]) -> frozenset[tuple[frozenset[str], str]]:
    """What a question compares, whatever its words."""
    numbers = question.get("numbers", [ACCURACY])
    return frozenset((frozenset(pair), number) for pair in question["pairs"] for number in numbers)


def read_sweep(folder: Path) -> dict[str, Any]:
    """The plan kept in a folder. Raises ConfigError where there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / SWEEP).read_text())
    except (OSError, json.JSONDecodeError):
        raise ConfigError(f"sweep_dir={folder} must be the folder of a sweep, with a {SWEEP}; run one first") from None
    return found
