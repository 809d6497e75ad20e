"""Runs of the same method, the seeds of which are compared: their curves and their means."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy.special import stdtrit

from mifo_verl.run.flatten import settings_of
from mifo_verl.tools.report.run import Run, distinct
from mifo_verl.tools.statistics import LEVEL

FEWEST = 3
"""Seeds of an interval that is shown: that of two is 4.5 times as wide as that of three with the same scatter."""
DASHES = ("solid", "dash", "dot", "dashdot")
COLORS = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#b45309", "#0891b2", "#be123c", "#4d7c0f", "#6b7280", "#c026d3")


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
    """The groups, in the order of their first runs: configs that differ in seeds and places of files alone.

    A seed that is there again is no other seed: it begins a group.
    """
    found: dict[tuple[str, int], list[Run]] = {}
    seen: Counter[tuple[str, Any]] = Counter()
    for run in runs:
        settings = {key: value for key, value in settings_of(run.config).items() if not key.endswith("seed")}
        key = json.dumps(settings, sort_keys=True, default=str)
        seed = key, run.config.get("seed")
        found.setdefault((key, seen[seed]), []).append(run)
        seen[seed] += 1
    labels = distinct([_label(own) for own in found.values()])
    return [
        Group(label, COLORS[place % len(COLORS)], DASHES[place // len(COLORS) % len(DASHES)], own)
        for place, (label, own) in enumerate(zip(labels, found.values(), strict=True))
    ]


def curve(group: Group, name: str) -> pd.DataFrame:
    """One number of the RL records, or the validation accuracy, by step: mean, half of its interval, count."""
    return _over_runs(pd.Series(run.signal(name), dtype=float) for run in group.runs)


def probe_curve(group: Group, phase: str, name: str) -> pd.DataFrame:
    """What a phase changed of a probed quantity, by interval: mean, half of its interval, count."""
    chosen = (run.probes[(run.probes["phase"] == phase) & (run.probes["name"] == name)] for run in group.runs)
    return _over_runs(probes.set_index("interval")["change"] for probes in chosen)


def _over_runs(values: Iterable[pd.Series]) -> pd.DataFrame:
    """Student's t interval over the runs that have a value there; ``half`` is NaN for fewer than FEWEST."""
    found = pd.concat(list(values)).groupby(level=0).agg(["mean", "std", "count"])
    half = stdtrit(found["count"] - 1, (1 + LEVEL) / 2) * found["std"] / found["count"] ** 0.5
    return found.assign(half=half.where(found["count"] >= FEWEST))[["mean", "half", "count"]]


def _label(runs: list[Run]) -> str:
    return re.sub(r"[-_.](seed)?[-_=]?\d+$", "", runs[0].label) if len(runs) > 1 else runs[0].label
