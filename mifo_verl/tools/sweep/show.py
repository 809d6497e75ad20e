"""A sweep's table for a terminal and as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from mifo_verl.tools.sweep.claims import is_share
from mifo_verl.tools.sweep.numbers import ACCURACY
from mifo_verl.tools.sweep.statistics import Interval

_COSTS = ("flops", "rl_tokens", "generated_tokens", "sft_tokens", "loss_tokens", "rl_steps", "sft_phases", "seconds")

_LOG_WIDTH = 240


def columns(table: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """(accuracies, what phases changed, what it cost): the numbers that are shown."""
    known = list(dict.fromkeys(number for arm in table["arms"] for number in arm["numbers"]))
    accuracies = [ACCURACY, "gain", *sorted(number for number in known if number.startswith(f"{ACCURACY}/"))]
    changes = sorted(number for number in known if number.startswith(("sft/", "rl/")))
    return accuracies, changes, [number for number in _COSTS if number in known]


def to_csv(table: Mapping[str, Any]) -> str:
    """A line for every arm and number: mean, both ends, and the values of the seeds."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(("arm", "number", "num_seeds", "mean", "low", "high", "by_seed"))
    for arm in table["arms"]:
        for number, held in arm["numbers"].items():
            seeds = " ".join(f"{seed}:{value!r}" for seed, value in held["by_seed"].items())
            lines.writerow((arm["arm"], number, held["num_seeds"], held["mean"], held["low"], held["high"], seeds))
    return out.getvalue()


def print_table(table: Mapping[str, Any]) -> None:
    """Means with intervals, then what can be claimed against the baseline."""
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=_LOG_WIDTH)
    for title, names in parts(table):
        shown = Table(title=title, title_justify="left")
        for one in ("arm", "seeds", *map(heading, names)):
            shown.add_column(one, overflow="fold")
        for row in rows(table, names):
            shown.add_row(*row)
        console.print(shown)
    for line in claims(table["differences"]):
        console.print(line, markup=False)
    if table["missing"]:
        console.print(not_finished(table), markup=False)


def not_finished(table: Mapping[str, Any]) -> str:
    """The planned runs that the table is without."""
    return f"Not finished: {', '.join(table['missing'])}."


def claims(differences: Sequence[Mapping[str, Any]]) -> list[str]:
    """The words on the primary numbers, and one line on all others."""
    told = [one["claim"] for one in differences if one["is_primary"]]
    others = [Interval(**one["paired"]) for one in differences if is_explored(one)]
    if not others:
        return told
    hits = sum(one.excludes_zero() for one in others)
    return [
        *told,
        f"exploratory: {len(others)} other differences, of which {hits} have an interval without 0, where "
        f"{0.05 * len(others):.1f} would if nothing differed; none of them is a claim.",
    ]


def primaries(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Every planned test that has runs, once, whichever comparison names it and whichever way round."""
    found: dict[tuple[frozenset[str], str], Mapping[str, Any]] = {}
    for one in [*table["differences"], *(one for question in table["questions"] for one in question["differences"])]:
        if one["is_primary"]:
            found.setdefault((frozenset((one["first"], one["second"])), one["number"]), one)
    return list(found.values())


def is_explored(one: Mapping[str, Any]) -> bool:
    """Whether a difference is listed as exploratory: one that scatters. ``gain``, paired, is the same as accuracy."""
    shown = one["number"] == ACCURACY or one["number"].startswith(("sft/", "rl/"))
    return shown and not one["is_primary"] and Interval(**one["paired"]).has_width


def parts(table: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """(title, numbers) of every table of means."""
    accuracies, changes, costs = columns(table)
    titled = (
        ("Validation accuracy at the end", accuracies),
        ("What a phase changed, mean over the phases of a run", changes),
        ("What it cost", costs),
    )
    return [(title, names) for title, names in titled if names]


def rows(table: Mapping[str, Any], names: Sequence[str]) -> list[list[str]]:
    """A row of cells for every arm; one of fewer seeds than the arm's says how many."""
    found = []
    for arm in table["arms"]:
        seeds = max((held["num_seeds"] for held in arm["numbers"].values()), default=0)
        found.append([arm["arm"], str(seeds), *(_cell(arm["numbers"].get(name), name, seeds) for name in names)])
    return found


def _cell(held: Mapping[str, Any] | None, name: str, seeds: int) -> str:
    if held is None:
        return "–"
    signed = "+" if name.startswith(("sft/", "rl/")) else ""
    form = f"{signed}.4f" if signed or is_share(name) else ",.4g" if name.endswith("flops") else ",.1f"
    text = f"{held['mean']:{form}}"
    text += "" if held["low"] is None else f" ± {(held['high'] - held['low']) / 2:{form.lstrip('+')}}"
    return text if held["num_seeds"] == seeds else f"{text} (n={held['num_seeds']})"


def heading(name: str) -> str:
    """``sft/accuracy`` is shown as 'SFT: accuracy'."""
    phase, slash, probed = name.partition("/")
    return f"{phase.upper()}: {probed}" if slash and phase in ("sft", "rl") else name.replace("_", " ")
