"""What a sweep's report begins with: every arm and every comparison, in the numbers that answer what was asked."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from mifo_verl.tools.report.figures import GREY, INK, RL_BLUE, Figure, card, vertical
from mifo_verl.tools.sweep.claims import is_share
from mifo_verl.tools.sweep.show import heading, primaries
from mifo_verl.tools.sweep.statistics import Interval

_ROW, _FRAME = 24, 110
"""Pixels of a row of a figure, and of all around its rows."""

_Row = tuple[str, Mapping[str, Any]]
"""A label and an interval: ``mean``, ``low`` and ``high``."""


def answers(table: Mapping[str, Any]) -> list[Figure]:
    """For every number that was named before the runs: the means of the arms, then the differences of the pairs.

    ``table``: that of ``make_table``. Shares are drawn in percent and points.
    """
    asked: dict[str, list[Mapping[str, Any]]] = {}
    for one in primaries(table):
        asked.setdefault(one["number"], []).append(one)
    drawn = []
    for number, found in asked.items():
        drawn.append(_means(table["arms"], number))
        drawn.append(_differences(found, number, table["num_tests"]))
    return drawn


def _means(arms: Sequence[Mapping[str, Any]], number: str) -> Figure:
    rows = [(arm["arm"], arm["numbers"][number]) for arm in arms if number in arm["numbers"]]
    scale = _scale(number)
    seeds = [(scale * value, label) for label, held in rows for value in held["by_seed"].values()]
    data = [_bars("mean, 95 %", rows, scale, RL_BLUE), _dots("a seed", seeds, INK, 4)]
    note = "The mean over the seeds, with its 95 % interval."
    return _rows(f"By arm: {heading(number)}", note, data, "%" if is_share(number) else heading(number), len(rows))


def _differences(found: Sequence[Mapping[str, Any]], number: str, num_tests: int) -> Figure:
    labels = [f"{one['first']} − {one['second']}" for one in found]
    data = [
        _bars(name, [(label, one[level]) for label, one in zip(labels, found, strict=True)], _scale(number), color)
        for name, level, color in ((f"all {num_tests} tests together", "corrected", GREY), ("95 %", "paired", RL_BLUE))
    ]
    note = "Paired by seed. A claim holds among all tests of the plan where the wide bar leaves 0 out."
    if not all(Interval(**one["corrected"]).has_width for one in found):
        note += " What has no bar claims nothing."
    unit = "points" if is_share(number) else heading(number)
    return _rows(f"Differences in {heading(number)}", note, data, unit, len(found), shapes=[vertical(0.0, INK)])


def _bars(name: str, rows: Sequence[_Row], scale: float, color: str) -> dict[str, Any]:
    """Means with the halves of their intervals; none for a single seed, nor where all seeds are the same."""
    intervals = [Interval(*(one[part] for part in ("mean", "low", "high", "num_seeds"))) for _, one in rows]
    halves = [scale * one.half_width if one.half_width and one.has_width else None for one in intervals]
    bars = {"type": "data", "array": halves, "color": color, "thickness": 2, "width": 4}
    return _dots(name, [(scale * one["mean"], label) for label, one in rows], color, 9) | {"error_x": bars}


def _dots(name: str, points: Sequence[tuple[float, str]], color: str, size: int) -> dict[str, Any]:
    where = {"x": [x for x, _ in points], "y": [label for _, label in points]}
    return {"type": "scatter", "mode": "markers", "name": name, "marker": {"color": color, "size": size}} | where


def _rows(title: str, note: str, data: list[Any], unit: str, rows: int, **layout: Any) -> Figure:
    """A figure with a labelled row for every arm or pair, the first on top."""
    axis = {"autorange": "reversed", "type": "category"}
    return card(
        title, note, go.Figure(data), unit, "", yaxis=axis, height=_FRAME + _ROW * rows, showlegend=True, **layout
    )


def _scale(number: str) -> float:
    return 100.0 if is_share(number) else 1.0
