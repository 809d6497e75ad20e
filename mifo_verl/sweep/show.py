"""A sweep's table for a terminal, as CSV and as Markdown."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from mifo_verl.sweep.numbers import ACCURACY
from mifo_verl.sweep.table import is_share

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
    for title, names in _parts(table):
        shown = Table(title=title, title_justify="left")
        for head in ("arm", "seeds", *(_head(name) for name in names)):
            shown.add_column(head, overflow="fold")
        for row in _rows(table, names):
            shown.add_row(*row)
        console.print(shown)
    for line in claims(table["differences"]):
        console.print(line, markup=False)


def claims(differences: Sequence[Mapping[str, Any]]) -> list[str]:
    """The words on the primary numbers, and one line on all others."""
    told = [one["claim"] for one in differences if one["is_primary"]]
    others = [one["paired"] for one in differences if _is_explored(one)]
    if not others:
        return told
    hits = sum(
        one["low"] is not None and one["low"] < one["high"] and not one["low"] <= 0 <= one["high"] for one in others
    )
    return [
        *told,
        f"exploratory: {len(others)} differences in other numbers, of which {hits} have an interval without 0, where "
        f"{0.05 * len(others):.1f} would if nothing differed; none of them is a claim.",
    ]


def _is_explored(one: Mapping[str, Any]) -> bool:
    shown = one["number"] in (ACCURACY, "gain") or one["number"].startswith(("sft/", "rl/"))
    return shown and not one["is_primary"]


_HOW_TO_READ = """Mean over the seeds ({seeds}) ± half of the 95 % interval (Student's t). Differences are paired by
seed.

Every comparison names before the runs one or two numbers that answer it. A difference in these is called higher or
lower where its 95 % interval leaves 0 out; what has 0 inside at 1 − 5 %/m (Bonferroni), m = {m} being the distinct
pairs of arms on this page, is said to hold only read alone. That corrects for pairs, not for numbers: two primary
numbers are two chances, and all other numbers are exploratory. Of these no claim is made, whatever their intervals:
they say what to ask in the next runs (`docs/sweep.md`).
"""


def to_markdown(table: Mapping[str, Any], title: str, command: str) -> str:
    """A page that is made anew by the same command."""
    seeds = sorted({int(s) for arm in table["arms"] for held in arm["numbers"].values() for s in held["by_seed"]})
    parts = [
        f"# {title or 'A sweep'}\n",
        f"Made by the command below from the records of the runs; nothing here is written by hand.\n\n"
        f"```bash\n{command}\n```\n",
        _HOW_TO_READ.format(seeds=", ".join(map(str, seeds)), m=table["num_comparisons"]),
    ]
    for heading, names in _parts(table):
        parts.append(f"## {heading}\n\n{_markdown(('arm', 'seeds', *map(_head, names)), _rows(table, names))}")
    if rows := _traded(table):
        parts.append(f"## What SFT lost on solved prompts for each point gained on hard ones\n\n{rows}")
    if table["baseline"]:
        parts.append(f"## Against {table['baseline']}\n\n{_list(claims(table['differences']))}")
    for question in table["questions"]:
        missing = [f"{first} - {second}: no runs to compare yet." for first, second in question["missing"]]
        named = f"Answered by: {', '.join(map(_head, question['numbers']))}.\n\n"
        parts.append(f"## {question['ask']}\n\n{named}{_list([*claims(question['differences']), *missing])}")
    if rows := _explored(table):
        parts.append(f"## Exploratory differences\n\nNo claims (see the top).\n\n{rows}")
    return "\n".join(parts)


def _explored(table: Mapping[str, Any]) -> str:
    """Every exploratory difference of the page once."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for one in [*table["differences"], *(one for question in table["questions"] for one in question["differences"])]:
        if _is_explored(one):
            value, form = one["paired"], "+.4f" if is_share(one["number"]) else "+.4g"
            ends = "–" if value["low"] is None else f"[{value['low']:{form}}, {value['high']:{form}}]"
            pair = f"{one['first']} - {one['second']}"
            cells = [pair, _head(one["number"]), f"{value['mean']:{form}}", ends, str(value["num_seeds"])]
            rows[one["number"], *sorted((one["first"], one["second"]))] = cells
    return _markdown(("pair", "number", "difference", "95 % interval", "seeds"), rows.values()) if rows else ""


def _traded(table: Mapping[str, Any]) -> str:
    """Ratios of the means over the seeds, for arms whose runs have probed both; a ratio has no interval here."""
    rows = []
    for arm in table["arms"]:
        solved, hard = (arm["numbers"].get(f"sft/{name}_accuracy") for name in ("solved", "hard"))
        if solved is not None and hard is not None:
            gained = hard["mean"] > 0
            ratio = f"{-solved['mean'] / hard['mean']:.2f}" if gained else "nothing was gained"
            rows.append([arm["arm"], f"{-solved['mean']:+.4f}", f"{hard['mean']:+.4f}", ratio])
    head = ("arm", "lost on solved", "gained on hard", "lost / gained (of the means, no interval)")
    return _markdown(head, rows) if rows else ""


def _parts(table: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    accuracies, changes, costs = columns(table)
    titled = (
        ("Validation accuracy at the end", accuracies),
        ("What a phase changed, mean over the phases of a run", changes),
        ("What it cost", costs),
    )
    return [(title, names) for title, names in titled if names]


def _rows(table: Mapping[str, Any], names: Sequence[str]) -> list[list[str]]:
    return [
        [arm["arm"], str(max((held["num_seeds"] for held in arm["numbers"].values()), default=0))]
        + [_cell(arm["numbers"].get(name), name) for name in names]
        for arm in table["arms"]
    ]


def _cell(held: Mapping[str, Any] | None, name: str) -> str:
    if held is None:
        return "–"
    signed = "+" if name.startswith(("sft/", "rl/")) else ""
    form = f"{signed}.4f" if signed or is_share(name) else ",.4g" if name.endswith("flops") else ",.1f"
    text = f"{held['mean']:{form}}"
    return text if held["low"] is None else f"{text} ± {(held['high'] - held['low']) / 2:{form.lstrip('+')}}"


def _head(name: str) -> str:
    """``sft/accuracy`` is shown as 'SFT: accuracy'."""
    phase, slash, probed = name.partition("/")
    return f"{phase.upper()}: {probed}" if slash and phase in ("sft", "rl") else name.replace("_", " ")


def _markdown(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *[list(row) for row in rows]]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _list(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines) or "Nothing to compare yet.\n"
