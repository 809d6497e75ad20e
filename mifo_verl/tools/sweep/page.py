"""A sweep's table for people: on a terminal, as Markdown (``page.md.j2``), as CSV, and as figures of a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mifo_verl.tools.report.figures import GREY, INK, RL_BLUE, Figure, card, vertical
from mifo_verl.tools.statistics import Interval
from mifo_verl.tools.sweep.numbers import ACCURACY
from mifo_verl.tools.sweep.table import ArmDifference, Mean, Table, is_share
from mifo_verl.tools.tables import MISSING, markdown, print_frame, say

_COSTS = (
    "flops", "rl_tokens", "generated_tokens", "sft_tokens", "loss_tokens", "rl_steps", "sft_phases", "seconds", "peak_memory_gb"
)  # fmt: skip
_PHASES = ("sft/", "rl/")
_ROW, _FRAME = 24, 110
"""Pixels of a row of a figure, and of all around its rows."""


@dataclass(frozen=True)
class Origin:
    """Where a table comes from: what was asked for, which runs it is of and which are not there, by which code."""

    title: str
    command: str
    runs: list[str]
    missing: list[str]
    planned: str
    """Arms and seeds asked for before a run had started."""
    added: str
    """Those that came later."""
    code: dict[str, list[str]]
    """The runs by the digests of the package's sources."""


def to_markdown(table: Table, origin: Origin, picture: str | None = None) -> str:
    """A page that is made anew by the same command; ``picture``: the name of a picture of the report beside it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"markdown": markdown, "heading": heading}
    alone, together = (
        sum(getattr(one, level).excludes_zero() for one in table.primaries) for level in ("paired", "corrected")
    )
    return environment.get_template("page.md.j2").render(
        table=table,
        origin=origin,
        picture=picture,
        seeds=sorted({seed for own in table.arms.values() for one in own.values() for seed in one.by_seed}),
        together=together,
        more=alone - together,
        parts=means(table),
        claims=claims,
        explored=_explored(table),
    )


def print_table(table: Table, origin: Origin) -> None:
    """Means with intervals, then what can be claimed of what was asked."""
    for title, frame in means(table):
        print_frame(frame, title)
    for one in table.questions:
        for line in (one.ask, *(f"  {line}" for line in claims(one.differences))):
            say(line)
    if origin.missing:
        say(f"Not finished: {', '.join(origin.missing)}.")


def to_csv(table: Table) -> str:
    """A line for every arm and number: mean, both ends, and the values of the seeds."""
    rows = [
        {"arm": arm, "number": number, "num_seeds": one.num_values, "mean": one.mean, "low": one.low, "high": one.high}
        | {"by_seed": " ".join(f"{seed}:{value}" for seed, value in one.by_seed.items())}
        for arm, own in table.arms.items()
        for number, one in own.items()
    ]
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def means(table: Table) -> list[tuple[str, pd.DataFrame]]:
    """(title, cells) of every table of means: a row for every arm; a cell of fewer seeds than the arm's says so."""
    known = dict.fromkeys(number for own in table.arms.values() for number in own)
    titled = {
        "Validation accuracy at the end": [ACCURACY, "gain", *sorted(n for n in known if n.startswith(f"{ACCURACY}/"))],
        "What a phase changed, mean over the phases of a run": sorted(n for n in known if n.startswith(_PHASES)),
        "What it cost": [number for number in _COSTS if number in known],
    }
    frames = []
    for title, names in titled.items():
        rows = []
        for arm, own in table.arms.items():
            seeds = max(one.num_values for one in own.values())
            rows.append({"arm": arm, "seeds": str(seeds)} | {heading(n): _cell(own.get(n), n, seeds) for n in names})
        frames += [(title, pd.DataFrame(rows))] if names else []
    return frames


def _cell(one: Mean | None, name: str, seeds: int) -> str:
    if one is None:
        return MISSING
    signed = "+" if name.startswith(_PHASES) else ""
    form = f"{signed}.4f" if signed or is_share(name) else ",.4g" if name.endswith(("flops", "_gb")) else ",.1f"
    half = "" if one.half_width is None else f" ± {one.half_width:{form.lstrip('+')}}"
    return f"{one.mean:{form}}{half}" + ("" if one.num_values == seeds else f" (n={one.num_values})")


def heading(name: str) -> str:
    """``sft/accuracy`` is shown as 'SFT: accuracy'."""
    phase, slash, probed = name.partition("/")
    return f"{phase.upper()}: {probed}" if slash and phase in ("sft", "rl") else name.replace("_", " ")


def claims(differences: Sequence[ArmDifference]) -> list[str]:
    told = [one.claim for one in differences if one.is_primary]
    others = [one.paired for one in differences if one.is_explored]
    if others:
        hits, chance = sum(one.excludes_zero() for one in others), 0.05 * len(others)
        told.append(
            f"exploratory: {len(others)} other differences, of which {hits} have an interval without 0, where "
            f"{chance:.1f} would if nothing differed; none of them is a claim."
        )
    return told


def _explored(table: Table) -> pd.DataFrame:
    """Every exploratory difference of the page once."""
    found: dict[Any, dict[str, str]] = {}
    for one in table.differences:
        if one.is_explored:
            value, form = one.paired, "+.4f" if is_share(one.number) else "+.4g"
            row = {
                "pair": f"{one.first} - {one.second}",
                "number": heading(one.number),
                "difference": f"{value.mean:{form}}",
            }
            row["95 % interval"] = f"[{value.low:{form}}, {value.high:{form}}]"
            found[one.number, one.pair] = row | {"seeds": str(value.num_values)}
    return pd.DataFrame(found.values())


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
    return card(title, note, data, unit, "", yaxis=axis, height=_FRAME + _ROW * rows, showlegend=True, **layout)
