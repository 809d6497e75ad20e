"""Runs of the same method: those whose configs differ in nothing but the seed and the places of files."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from mifo_verl.probes.coupling import mean_of
from mifo_verl.tools.report.bands import mean_interval
from mifo_verl.tools.report.run import Run, changes

_PLACES = ("run_dir", "experiment_name", "default_local_dir", "TENSORBOARD_DIR", "WANDB_DIR")
_RESUMED = ("resume_mode", "resume_from_path")
_NOT_THE_METHOD = ("seed", "data_loader_seed", *_PLACES, *_RESUMED)
_DASHES = ("solid", "dash", "dot", "dashdot")
_COLORS = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#b45309", "#0891b2", "#be123c", "#4d7c0f", "#6b7280", "#c026d3")


@dataclass(frozen=True)
class Group:
    """The seeds of one method, and how its curves are drawn: no two of up to 40 groups alike."""

    label: str
    color: str
    dash: str
    runs: list[Run]

    @property
    def finished(self) -> list[Run]:
        """Those whose end can be compared."""
        return [run for run in self.runs if run.is_finished]


def group(runs: list[Run]) -> list[Group]:
    """The groups, in the order of their first runs. A seed that is there again is no other seed: it begins a group."""
    found: dict[tuple[str, int], list[Run]] = {}
    seen: Counter[tuple[str, Any]] = Counter()
    for run in runs:
        method = _method({key: value for key, value in run.config.items() if key != "name"})
        key = json.dumps(method, sort_keys=True, default=str)
        seed = key, run.config.get("seed")
        found.setdefault((key, seen[seed]), []).append(run)
        seen[seed] += 1
    labels = [_label(own) for own in found.values()]
    labels = [label if labels.count(label) == 1 else f"{label} ({place + 1})" for place, label in enumerate(labels)]
    return [
        Group(label, _COLORS[place % len(_COLORS)], _DASHES[place // len(_COLORS) % len(_DASHES)], own)
        for place, (label, own) in enumerate(zip(labels, found.values(), strict=True))
    ]


@dataclass(frozen=True)
class Curve:
    """The mean over the runs that have a value at a step or interval, its 95 % interval, and how many they are."""

    at: list[int]
    means: list[float]
    bands: list[tuple[float, float] | None]
    counts: list[int]


def curve(runs: list[Run], name: str) -> Curve:
    """One number of the RL records by step, or the validation accuracy."""
    values: dict[int, list[float]] = {}
    for run in runs:
        recorded = ((line["step"], mean_of(line.get(name))) for line in run.rl)
        for step, value in run.validations() if name == "validation" else recorded:
            if value is not None:
                values.setdefault(step, []).append(value)
    return _banded(values)


def probe_curve(runs: list[Run], phase: str, name: str) -> Curve:
    """What a phase changed of a probed quantity, by interval."""
    values: dict[int, list[float]] = {}
    for run in runs:
        for interval, changed in changes(run, phase, name):
            values.setdefault(interval, []).append(changed)
    return _banded(values)


def _banded(values: dict[int, list[float]]) -> Curve:
    steps = sorted(values)
    means, bands = [], []
    for step in steps:
        mean, half = mean_interval(values[step])
        means.append(mean)
        bands.append(None if half is None else (mean - half, mean + half))
    return Curve(steps, means, bands, [len(values[step]) for step in steps])


def _label(runs: list[Run]) -> str:
    return re.sub(r"[-_.](seed)?[-_=]?\d+$", "", runs[0].label) if len(runs) > 1 else runs[0].label


def _method(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _method(value) for key, value in node.items() if key not in _NOT_THE_METHOD}
    return node
