"""A sweep's table for people: on a terminal, as Markdown (``page.md.j2``), and as CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mifo_verl.tools.sweep.numbers import ACCURACY
from mifo_verl.tools.sweep.table import ArmDifference, Mean, Table, is_share
from mifo_verl.tools.tables import MISSING, markdown, print_frame, say

_COSTS = ("flops", "rl_tokens", "generated_tokens", "sft_tokens", "loss_tokens", "rl_steps", "sft_phases", "seconds")
_PHASES = ("sft/", "rl/")


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
    form = f"{signed}.4f" if signed or is_share(name) else ",.4g" if name.endswith("flops") else ",.1f"
    half = "" if one.half_width is None else f" ± {one.half_width:{form.lstrip('+')}}"
    return f"{one.mean:{form}}{half}" + ("" if one.num_values == seeds else f" (n={one.num_values})")


def heading(name: str) -> str:
    """``sft/accuracy`` is shown as 'SFT: accuracy'."""
    phase, slash, probed = name.partition("/")
    return f"{phase.upper()}: {probed}" if slash and phase in ("sft", "rl") else name.replace("_", " ")


def claims(differences: Sequence[ArmDifference]) -> list[str]:
    """The words on the primary numbers, and one line on all others."""
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
