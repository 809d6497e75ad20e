"""Results for people and for other programs: a table on the console, results.json, results.csv, pass_at_k.html."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

FORMAT = 1
RESULTS = "results.json"


def write_results(tables: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write results.json, results.csv and pass_at_k.html of the models' tables, and print the console's table."""
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULTS).write_text(json.dumps({"format": FORMAT, "models": list(tables)}, indent=1) + "\n")
    with open(out / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(_COLUMNS))
        writer.writeheader()
        writer.writerows(_csv_rows(tables))
    print_table(tables, wide_console())
    from mifo_verl.tools.evaluate.plot import write_plot

    write_plot(tables, out / "pass_at_k.html")
    print(f"results in {out}: {RESULTS}, results.csv, pass_at_k.html; every response in generations/")


_COLUMNS = ("model", "benchmark", "metric", "mean", "low", "high", "questions", "samples", "mean_tokens", "truncated")


def _csv_rows(tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a model, benchmark and metric; the average has no lengths."""
    rows = []
    for table in tables:
        for benchmark, result in table["benchmarks"].items():
            about = {"questions": result["num_questions"], "samples": result["num_samples"]}
            about |= {"mean_tokens": result["mean_tokens"], "truncated": result["truncated_share"]}
            for metric, value in result["metrics"].items():
                rows.append({"model": table["name"], "benchmark": benchmark, "metric": metric, **value, **about})
        for metric, value in table["average"].items():
            rows.append({"model": table["name"], "benchmark": "average", "metric": metric, **value})
    return rows


def wide_console() -> Console:
    """The terminal, or 140 columns where the output goes to a file: tables would fold there."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 140))


def print_table(tables: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Percent with 95 % intervals, benchmark by benchmark, the models below one another, then the averages."""
    metrics = _shown(tables)
    table = Table(title="percent correct [95 % bootstrap interval over questions]")
    for column in ("benchmark", "model", "questions", "samples"):
        table.add_column(column, overflow="fold")
    for column in (*metrics, "tokens", "cut %"):
        table.add_column(column, justify="right")
    benchmarks = list(dict.fromkeys(name for model in tables for name in model["benchmarks"]))
    for name in benchmarks:
        for model in tables:
            result = model["benchmarks"][name]
            cells = [_cell(result["metrics"].get(metric)) for metric in metrics]
            sizes = [str(result["num_questions"]), str(result["num_samples"])]
            lengths = [f"{result['mean_tokens']:.0f}", f"{100 * result['truncated_share']:.1f}"]
            table.add_row(name, model["name"], *sizes, *cells, *lengths)
        table.add_section()
    if len(benchmarks) > 1:
        for model in tables:
            table.add_row("average", model["name"], "", "", *(_cell(model["average"].get(m)) for m in metrics), "", "")
    console.print(table)


def _shown(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics of the table: pass@1 is avg over again, and of many ks the largest says most."""
    found = list(
        dict.fromkeys(
            metric for model in tables for result in model["benchmarks"].values() for metric in result["metrics"]
        )
    )
    largest = {
        kind: max((int(metric.partition("@")[2]) for metric in found if metric.startswith(f"{kind}@")), default=1)
        for kind in ("pass", "maj")
    }
    return ["avg", *(f"{kind}@{k}" for kind, k in largest.items() if k > 1)]


def _cell(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value['mean']:.1f} \\[{100 * value['low']:.1f}, {100 * value['high']:.1f}]"
