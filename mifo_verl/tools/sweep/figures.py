"""What a sweep's report begins with: every arm and every comparison, in the numbers that answer what was asked."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from mifo_verl.tools.report.figures import GREY, INK, RL_BLUE, Figure, card, vertical
from mifo_verl.tools.statistics import Interval
from mifo_verl.tools.sweep.page import heading
from mifo_verl.tools.sweep.table import ArmDifference, Table, is_share

_ROW, _FRAME = 24, 110
"""Pixels of a row of a figure, and of all around its rows."""


def answers(table: Table) -> list[Figure]:
    """For every number that was named before the runs: the means of the arms, then the differences of the pairs.

    Shares are drawn in percent and points.
    """
    drawn = []
    for number in dict.fromkeys(one.number for one in table.primaries):
        drawn.append(_means(table, number))
        drawn.append(_differences([one for one in table.primaries if one.number == number], number, table.num_tests))
    return drawn


def _means(table: Table, number: str) -> Figure:
    rows = [(arm, own[number]) for arm, own in table.arms.items() if number in own]
    scale = 100.0 if is_share(number) else 1.0
    seeds = [(scale * value, label) for label, held in rows for value in held.by_seed.values()]
    data = [_bars("mean, 95 %", rows, scale, RL_BLUE), _dots("a seed", seeds, INK, 4)]
    note = "The mean over the seeds, with its 95 % interval."
    return _rows(f"By arm: {heading(number)}", note, data, "%" if is_share(number) else heading(number), len(rows))


def _differences(found: Sequence[ArmDifference], number: str, num_tests: int) -> Figure:
    labels = [f"{one.first} − {one.second}" for one in found]
    scale = 100.0 if is_share(number) else 1.0
    wide, plain = (
        [(label, getattr(one, level)) for label, one in zip(labels, found, strict=True)]
        for level in ("corrected", "paired")
    )
    data = [_bars(f"all {num_tests} tests together", wide, scale, GREY), _bars("95 %", plain, scale, RL_BLUE)]
    note = "Paired by seed. A claim holds among all tests of the plan if the wide bar leaves 0 out."
    if not all(one.corrected.has_width for one in found):
        note += " What has no bar claims nothing."
    unit = "points" if is_share(number) else heading(number)
    return _rows(f"Differences in {heading(number)}", note, data, unit, len(found), shapes=[vertical(0.0, INK)])


def _bars(name: str, rows: Sequence[tuple[str, Interval]], scale: float, color: str) -> dict[str, Any]:
    """Means with the halves of their intervals; none for a single seed, nor if all seeds are the same."""
    halves = [scale * one.half_width if one.half_width and one.has_width else None for _, one in rows]
    bars = {"type": "data", "array": halves, "color": color, "thickness": 2, "width": 4}
    return _dots(name, [(scale * one.mean, label) for label, one in rows], color, 9) | {"error_x": bars}


def _dots(name: str, points: Sequence[tuple[float, str]], color: str, size: int) -> dict[str, Any]:
    where = {"x": [x for x, _ in points], "y": [label for _, label in points]}
    return {"type": "scatter", "mode": "markers", "name": name, "marker": {"color": color, "size": size}} | where


def _rows(title: str, note: str, data: list[Any], unit: str, rows: int, **layout: Any) -> Figure:
    """A figure with a labelled row for every arm or pair, the first on top."""
    axis = {"autorange": "reversed", "type": "category"}
    return card(
        title, note, go.Figure(data), unit, "", yaxis=axis, height=_FRAME + _ROW * rows, showlegend=True, **layout
    )
