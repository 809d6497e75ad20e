"""The analyses as tables on a terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

Groups = dict[str, dict[str, dict[str, Any]]]


def updates(found: Groups, ends: list[str]) -> None:
    """Norm and relative norm of every end's update."""
    for title, groups in _titled(found):
        table = Table(title, "coordinates", title="norm of the update (and over the norm of the start)")
        for end in ends:
            table.add_column(end)
        for group, sums in groups.items():
            own = [sums["ends"][end] for end in ends]
            over = ["-" if one["relative"] is None else f"{one['relative']:.2e}" for one in own]
            cells = [f"{one['norm']:.4g} ({relative})" for one, relative in zip(own, over, strict=True)]
            table.add_row(group, f"{sums['coordinates']:,.0f}", *cells)
        Console().print(table)


def overlap(found: Groups) -> None:
    """Shares changed, and the overlap against chance."""
    for title, groups in _titled(found):
        table = Table(title, "coordinates", "A changed", "B changed", "both", "Jaccard", "chance", title="supports")
        for group, sums in groups.items():
            size = sums["coordinates"] or 1
            shares = (f"{sums[name] / size:.2%}" for name in ("first", "second", "both"))
            table.add_row(group, f"{sums['coordinates']:,.0f}", *shares, *_three(sums["jaccard"], sums["chance"]))
        Console().print(table)


def subspace(rows: list[dict[str, Any]], rank: int) -> None:
    """Means over the matrices of every layer and of every kind; the largest angle of each group."""
    for by in ("layer", "kind"):
        table = Table(by, "matrices", "left, mean", "left, max", "right, mean", "right, max", "values")
        table.title = f"angles (degrees) of the {rank} leading singular vectors; relative change of the values"
        for group in dict.fromkeys(row[by] for row in rows):
            own = [row for row in rows if row[by] == group]
            cells = [_mean(row["left_mean"] for row in own), max(row["left_max"] for row in own)]
            cells += [_mean(row["right_mean"] for row in own), max(row["right_max"] for row in own)]
            values = _mean(row["values"] for row in own)
            table.add_row(group, str(len(own)), *(f"{cell:.2f}" for cell in cells), f"{values:.2e}")
        Console().print(table)


def pruned(by_rate: Mapping[str, dict[str, Any]]) -> None:
    """Accuracy with its 95 % interval by rate and benchmark, from the tables of an evaluation."""
    benchmarks = list(dict.fromkeys(name for model in by_rate.values() for name in model["benchmarks"]))
    table = Table("rate", *benchmarks, "average", title="percent correct [95 % interval] of the pruned update")
    for rate, model in by_rate.items():
        found = [model["benchmarks"][name]["metrics"]["avg"] for name in benchmarks] + [model["average"]["avg"]]
        cells = (f"{100 * one['mean']:.1f} \\[{100 * one['low']:.1f}, {100 * one['high']:.1f}]" for one in found)
        table.add_row(rate, *cells)
    Console().print(table)


def _titled(found: Groups) -> Iterable[tuple[str, dict[str, dict[str, Any]]]]:
    yield "layer", found["by_layer"] | found["total"]
    yield "kind", found["by_kind"]


def _mean(values: Iterable[float]) -> float:
    held = list(values)
    return sum(held) / len(held)


def _three(*values: float | None) -> list[str]:
    return ["-" if value is None else f"{value:.3f}" for value in values]
