"""What every figure is made of: plain Plotly figures with titled axes, lines, dots and marks."""

from typing import Any

from mifo_verl.tools.report.run import Run

RL_BLUE, SFT_ORANGE, GREY, INK = "#2563eb", "#ea580c", "#cbd5e1", "#334155"

Figure = dict[str, Any]
"""``title``, ``note`` (what is to be seen, in words), ``data`` and ``layout`` of Plotly, ``wide``."""


def figure(title: str, note: str, data: list[Any], x: str, y: str, wide: bool = False, **layout: Any) -> Figure:
    """A figure with titled axes; ``layout`` goes over the page's own."""
    axes = {"xaxis": {"title": {"text": x}} | layout.pop("xaxis", {})}
    axes["yaxis"] = {"title": {"text": y}} | layout.pop("yaxis", {})
    return {"title": title, "note": note, "data": data, "layout": axes | layout, "wide": wide}


def whole_numbers(x: list[int]) -> dict[str, Any]:
    """An axis of intervals without fractions between them."""
    return {"dtick": 1} if len(set(x)) < 12 else {}


def stroke(name: str, x: list[Any], y: list[Any], color: str, dash: str = "solid") -> dict[str, Any]:
    style = {"color": color, "dash": dash, "width": 2}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": style}


def dots(name: str, x: list[int], y: list[float], color: str, symbol: str) -> dict[str, Any]:
    marker = {"color": color, "symbol": symbol, "size": 10, "line": {"width": 2, "color": color}}
    return {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": marker}


def xy(points: list[tuple[int, float]]) -> dict[str, list[Any]]:
    return {"x": [x for x, _ in points], "y": [y for _, y in points]}


def sft_marks(run: Run | None) -> list[dict[str, Any]]:
    """A vertical line at the step of every SFT phase."""
    return [] if run is None else [vertical(phase[0]["step"], SFT_ORANGE + "99") for phase in run.phases()]


def vertical(x: float, color: str) -> dict[str, Any]:
    line = {"color": color, "width": 1.5}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line}


def mark_legend() -> dict[str, Any]:
    """An entry of the legend for the marks, which Plotly lists none for."""
    return stroke("SFT phase", [None], [None], SFT_ORANGE)
