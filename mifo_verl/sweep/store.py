"""``sweep.json``: which runs a sweep has, so that its table can be made again and a later call may add to it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mifo_verl.bridge.compose import ConfigError
from mifo_verl.bridge.records import replace_text
from mifo_verl.sweep.definition import Definition
from mifo_verl.sweep.plan import PlannedRun

SWEEP = "sweep.json"


def write_sweep(folder: Path, definition: Definition, command: str, runs: Sequence[PlannedRun]) -> None:
    """Keep the plan. Runs of an earlier call stay where they were; a run of the same name is the new one.

    What was asked stays too, where this call asks nothing.

    Raises ConfigError where ``baseline`` is no arm.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = read_sweep(folder) if (folder / SWEEP).exists() else {}
    new = [{"name": run.name, "arm": run.arm, "seed": run.seed} for run in runs]
    names = {run["name"] for run in new}
    all_runs = [*(run for run in held.get("runs", []) if run["name"] not in names), *new]
    arms = list(dict.fromkeys(run["arm"] for run in all_runs))
    baseline = held.get("baseline", runs[0].arm) if definition.baseline is None else definition.baseline
    if baseline is not False and baseline not in arms:
        raise ConfigError(f"baseline={baseline} must be one of {', '.join(arms)}; choose an arm of this sweep")
    plan = {"command": command, "baseline": baseline, "runs": all_runs}
    questions = [asdict(question) for question in definition.questions]
    asked: dict[str, Any] = {"title": definition.title, "numbers": definition.numbers, "questions": questions}
    if held and not definition.questions:
        asked = {name: held.get(name, value) for name, value in asked.items()}
    replace_text(folder / SWEEP, json.dumps(asked | plan, indent=2) + "\n")


def read_sweep(folder: Path) -> dict[str, Any]:
    """The plan kept in a folder. Raises ConfigError where there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / SWEEP).read_text())
    except (OSError, json.JSONDecodeError):
        raise ConfigError(f"sweep_dir={folder} must be the folder of a sweep, with a {SWEEP}; run one first") from None
    return found
