"""Results for people and for other programs: a table on the console, results.json, results.csv, pass_at_k.html."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.express as px

from mifo_verl.tools.evaluate.results import AVG
from mifo_verl.tools.tables import print_frame

FORMAT = 1
RESULTS = "results.json"
AVERAGE = "average"
_PANELS_A_ROW = 3


def write_results(tables: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write results.json, results.csv and pass_at_k.html of the models' tables, and print the console's table."""
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULTS).write_text(json.dumps({"format": FORMAT, "models": list(tables)}, indent=1) + "\n")
    frame = metrics_frame(tables)
    frame.to_csv(out / "results.csv", index=False)
    print_frame(shown(frame), "percent correct [95 % bootstrap interval over questions]", keys=2)
    write_plot(frame, out / "pass_at_k.html")
    print(f"results in {out}: {RESULTS}, results.csv, pass_at_k.html; every response in generations/")


def metrics_frame(tables: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row for every model, benchmark and metric; the average has no lengths, and one benchmark no average."""
    rows = []
    for table in tables:
        for name, result in table["benchmarks"].items():
            about = {"questions": result["num_questions"], "samples": result["num_samples"]}
            about |= {"mean_tokens": result["mean_tokens"], "truncated": result["truncated_share"]}
            if result["cross_entropy"] is not None:
                about["cross_entropy"] = result["cross_entropy"]
            rows += [_row(table["name"], name, metric, value) | about for metric, value in result["metrics"].items()]
        rows += [_row(table["name"], AVERAGE, metric, value) for metric, value in table["average"].items()]
    return pd.DataFrame(rows).astype({"questions": "Int64", "samples": "Int64"})


def _row(model: str, benchmark: str, metric: str, value: Mapping[str, float]) -> dict[str, Any]:
    return {"model": model, "benchmark": benchmark, "metric": metric, **value}


def cell(value: Mapping[str, Any]) -> str:
    """A share and its interval in percent."""
    return f"{100 * value['mean']:.1f} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """Benchmark by benchmark, the models below one another. pass@1 is avg over again; of many ks the largest is shown."""
    found = _several(frame)
    has_loss = "cross_entropy" in found
    largest = {AVG: 1} | {kind: 1 for kind in ("pass", "maj")}
    for kind, _, k in (metric.partition("@") for metric in found.metric.unique()):
        largest[kind] = max(largest[kind], int(k or 1))
    metrics = [AVG, *(f"{kind}@{k}" for kind, k in largest.items() if k > 1)]
    rows = []
    for (benchmark, model), own in found.groupby(["benchmark", "model"], sort=False):
        sizes = {"questions": "", "samples": ""}
        lengths = {"tokens": "", "cut %": ""} | ({"cross-entropy": ""} if has_loss else {})
        if benchmark != AVERAGE:
            sizes = {name: str(own[name].iloc[0]) for name in sizes}
            lengths |= {"tokens": f"{own.mean_tokens.iloc[0]:.0f}", "cut %": f"{100 * own.truncated.iloc[0]:.1f}"}
            if has_loss and pd.notna(own.cross_entropy.iloc[0]):
                lengths["cross-entropy"] = f"{own.cross_entropy.iloc[0]:.4f}"
        cells = {row["metric"]: cell(row) for row in own.to_dict("records")}
        rows.append(
            {"benchmark": benchmark, "model": model} | sizes | {m: cells.get(m, "-") for m in metrics} | lengths
        )
    return pd.DataFrame(rows)


def _several(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame, benchmark by benchmark and the average last, or without it if it is that of one."""
    order = [name for name in frame.benchmark.unique() if name != AVERAGE]
    order += [AVERAGE] * (len(order) > 1)
    return pd.concat([frame[frame.benchmark == name] for name in order])


def write_plot(frame: pd.DataFrame, path: Path) -> None:
    """Accuracy against k of every model, a panel a benchmark; plotly's script goes beside the page, once."""
    found = _several(frame)
    named = found.metric.str.extract(r"(?P<kind>\w+@)(?P<k>\d+)")
    found = found.assign(kind=named.kind + "k", k=pd.to_numeric(named.k)).dropna(subset="k")
    percent = {"mean": 100 * found["mean"], "up": 100 * (found.high - found["mean"])}
    found = found.assign(**percent, down=100 * (found["mean"] - found.low)).sort_values("k", kind="stable")
    figure = px.line(
        found,
        x="k",
        y="mean",
        error_y="up",
        error_y_minus="down",
        color="model",
        line_dash="kind",
        facet_col="benchmark",
        facet_col_wrap=_PANELS_A_ROW,
        markers=True,
        log_x=True,
        labels={"mean": "accuracy, %"},
        title="pass@k and maj@k, 95 % bootstrap intervals",
    )
    figure.update_xaxes(dtick=0.30103).update_yaxes(rangemode="tozero", matches=None, showticklabels=True)
    figure.update_layout(height=120 + 340 * -(-found.benchmark.nunique() // _PANELS_A_ROW))
    figure.write_html(path, include_plotlyjs="directory")
