"""``sweep.json``: which runs a sweep has and what was asked of them, so that its table can be made again.

A later call may add runs. What was asked before the first run started stays as it was; what is asked later is marked.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from mifo_verl.compose import ConfigError
from mifo_verl.run.journal import CONFIG, SUMMARY, replace_text
from mifo_verl.tools.sweep.definition import Definition, Question, against
from mifo_verl.tools.sweep.numbers import ACCURACY
from mifo_verl.tools.sweep.plan import PlannedRun

SWEEP = "sweep.json"


@dataclass(frozen=True)
class StoredRun:
    """One run of the plan; ``added`` if it came when others had started."""

    name: str
    arm: str
    seed: int
    added: bool = False


@dataclass(frozen=True)
class StoredSweep:
    """What ``sweep.json`` holds."""

    baseline: str | bool
    command: str
    runs: list[StoredRun]
    title: str = ""
    numbers: list[str] = field(default_factory=lambda: [ACCURACY])
    questions: list[Question] = field(default_factory=list)

    @property
    def arms(self) -> list[str]:
        """The arms of the plan, finished or not."""
        return list(dict.fromkeys(run.arm for run in self.runs))

    @property
    def asked(self) -> list[Question]:
        """All questions; the first is the comparison with the baseline, if there is one."""
        first = [against(self.baseline, self.arms, self.numbers)] if isinstance(self.baseline, str) else []
        return [*first, *self.questions]


def is_finished(folder: Path) -> bool:
    """Whether the run of a folder has come to its end."""
    try:
        return "sft_phases" in json.loads((folder / SUMMARY).read_text())
    except (OSError, json.JSONDecodeError):
        return False


def read_sweep(folder: Path) -> StoredSweep:
    """The plan kept in a folder. Raises ConfigError if there is none."""
    try:
        return msgspec.json.decode((folder / SWEEP).read_bytes(), type=StoredSweep)
    except (OSError, msgspec.MsgspecError):
        raise ConfigError(f"sweep_dir={folder} must be the folder of a sweep, with a {SWEEP}; run one first") from None


def write_sweep(folder: Path, definition: Definition, command: str, runs: Sequence[PlannedRun]) -> None:
    """Keep the plan. Runs of an earlier call stay as they were; a run of the same name is the new one.

    What was asked stays too, if this call asks nothing. Raises ConfigError if ``baseline`` is no arm.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = read_sweep(folder) if (folder / SWEEP).exists() else None
    known = {run.name: run for run in held.runs} if held else {}
    started = any((folder / name / CONFIG).exists() for name in known)
    new = {
        run.name: StoredRun(run.name, run.arm, run.seed, known[run.name].added if run.name in known else started)
        for run in runs
    }
    all_runs = [*(run for name, run in known.items() if name not in new), *new.values()]
    baseline = definition.baseline
    if baseline is None:
        baseline = held.baseline if held else runs[0].arm
    says = definition if definition.questions or held is None else held
    asked = StoredSweep(baseline, command, all_runs, says.title, says.numbers, says.questions)
    if baseline is not False and baseline not in asked.arms:
        raise ConfigError(f"baseline={baseline} must be one of {', '.join(asked.arms)}; choose an arm of this sweep")
    if held and started:
        asked = _held_fixed(held, asked)
    replace_text(folder / SWEEP, msgspec.json.format(msgspec.json.encode(asked), indent=2).decode() + "\n")


def _held_fixed(held: StoredSweep, asked: StoredSweep) -> StoredSweep:
    """What was asked before, and then as ``late`` questions whatever this call asks beside it.

    Another baseline, or other numbers for the comparison with it, are a late question of all arms.
    """
    new = list(asked.questions)
    if isinstance(asked.baseline, str) and (asked.numbers, asked.baseline) != (held.numbers, held.baseline):
        new.append(against(asked.baseline, asked.arms, asked.numbers))
    known = {one.tests for one in held.questions}
    late = [replace(one, late=True) for one in new if one.tests not in known]
    return replace(asked, numbers=held.numbers, baseline=held.baseline, questions=[*held.questions, *late])
