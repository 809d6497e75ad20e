"""Runs of the same method: those whose configs differ in nothing but the seed and the places of files."""

import json
import re
from dataclasses import dataclass
from typing import Any

from mifo_verl.report.bands import mean_interval
from mifo_verl.report.run import Run, changes

_PLACES = ("run_dir", "experiment_name", "default_local_dir", "resume_mode", "TENSORBOARD_DIR", "WANDB_DIR")
_NOT_THE_METHOD = ("seed", "data_loader_seed", *_PLACES)
_COLORS = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#b45309", "#0891b2", "#be123c", "#4d7c0f", "#6b7280", "#c026d3")


@dataclass(frozen=True)
class Group:
    """The seeds of one method, and the color of its curves."""

    label: str
    color: str
    runs: list[Run]


def group(runs: list[Run]) -> list[Group]:
    """The groups, in the order of their first runs."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        method = _method({key: value for key, value in run.config.items() if key != "name"})
        found.setdefault(json.dumps(method, sort_keys=True, default=str), []).append(run)
    labels = [_label(own) for own in found.values()]
    labels = [label if labels.count(label) == 1 else f"{label} ({place + 1})" for place, label in enumerate(labels)]
    return [
        Group(label, _COLORS[place % len(_COLORS)], own)
        for place, (label, own) in enumerate(zip(labels, found.values(), strict=True))
    ]


Curve = tuple[list[int], list[float], list[tuple[float, float] | None]]
"""(steps or intervals, mean over the runs that have a value there, its 95 % interval)."""


def curve(runs: list[Run], name: str) -> Curve:
    """One number of the RL records by step."""
    values: dict[int, list[float]] = {}
    for run in runs:
        for line in run.rl:
            value = line.get(name)
            if isinstance(value, dict):
                value = value.get("mean")
            if isinstance(value, int | float):
                values.setdefault(line["step"], []).append(float(value))
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
    return steps, means, bands


def _label(runs: list[Run]) -> str:
    return re.sub(r"[-_.](seed)?[-_=]?\d+$", "", runs[0].label) if len(runs) > 1 else runs[0].label


def _method(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _method(value) for key, value in node.items() if key not in _NOT_THE_METHOD}
    return node
