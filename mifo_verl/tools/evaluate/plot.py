"""Accuracy against k: pass@k and maj@k of every model, one panel a benchmark, as an HTML page that needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.colors
import plotly.graph_objects as go
from plotly.subplots import make_subplots

_PANELS_A_ROW = 3
_DASHES = {"pass": "solid", "maj": "dot"}


def write_plot(tables: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the page; plotly's script goes beside it, once."""
    benchmarks = list(dict.fromkeys(name for table in tables for name in table["benchmarks"]))
    panels = benchmarks + ["average"] * (len(benchmarks) > 1)
    columns = min(_PANELS_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    figure = make_subplots(rows, columns, subplot_titles=panels)
    colors = plotly.colors.qualitative.D3
    for panel, name in enumerate(panels):
        place = {"row": panel // columns + 1, "col": panel % columns + 1}
        for number, table in enumerate(tables):
            metrics = table["average"] if name == "average" else table["benchmarks"][name]["metrics"]
            for kind in _DASHES:
                trace = _line(f"{table['name']} {kind}@k", kind, metrics, colors[number % len(colors)], panel == 0)
                if trace is not None:
                    figure.add_trace(trace, **place)
    figure.update_xaxes(type="log", dtick=0.30103, title_text="k")
    figure.update_yaxes(title_text="accuracy, %", rangemode="tozero")
    figure.update_layout(height=120 + 340 * rows, title="pass@k (solid) and maj@k (dotted), 95 % bootstrap intervals")
    figure.write_html(path, include_plotlyjs="directory")


def _line(name: str, kind: str, metrics: Mapping[str, Any], color: str, in_legend: bool) -> go.Scatter | None:
    points = {int(metric[len(kind) + 1 :]): value for metric, value in metrics.items() if metric.startswith(f"{kind}@")}
    if not points:
        return None
    ks = sorted(points)
    return go.Scatter(
        x=ks,
        y=[100 * points[k]["mean"] for k in ks],
        error_y={
            "symmetric": False,
            "array": [100 * (points[k]["high"] - points[k]["mean"]) for k in ks],
            "arrayminus": [100 * (points[k]["mean"] - points[k]["low"]) for k in ks],
        },
        name=name,
        legendgroup=name,
        showlegend=in_legend,
        mode="lines+markers",
        line={"color": color, "dash": _DASHES[kind]},
    )
