"""The figures of which tokens were kept: entropies, positions, tokens; and demonstrations with the kept ones marked."""

from html import escape
from statistics import median as median_of
from typing import Any

from mifo_verl.tools.report.figures import GREY, SFT_ORANGE, Figure, figure, whole_numbers
from mifo_verl.tools.report.run import Run

_MOST_EXAMPLES = 4
_TICKS = [0.0001, 0.001, 0.01, 0.1, 1, 10]


def token_figures(run: Run) -> list[Figure]:
    """Entropy, position and tokens over all SFT phases; none where tokens were not inspected."""
    tables = [line["tokens"] for line in run.inspection if line.get("tokens")]
    if not tables:
        return []
    return [_entropy(tables), _thresholds(run), _position(tables), _top(tables)]


def _entropy(tables: list[dict[str, Any]]) -> Figure:
    """Histogram of the response tokens' entropies, of all and of those kept."""
    edges = tables[0]["edges"]
    x = [edges[0] / 2, *edges]  # the lower edges; the first bin's is 0, which a log axis lacks
    data = [
        _steps("all response tokens", x, _sum(tables, "entropy"), "#94a3b8"),
        _steps("in the loss", x, _sum(tables, "entropy_kept"), SFT_ORANGE),
    ]
    axis = {"type": "log", "tickvals": _TICKS, "ticktext": [f"{tick:g}" for tick in _TICKS]}
    medians = [table["threshold"]["median"] for table in tables if table["threshold"]]
    shapes = []
    note = "Bins of a logarithmic axis; the first holds all below it."
    if medians:
        middle = median_of(medians)
        line = {"color": "#0f172a", "width": 1.5, "dash": "dash"}
        place = max(middle, edges[0] / 2)
        shapes = [
            {"type": "line", "xref": "x", "yref": "paper", "x0": place, "x1": place, "y0": 0, "y1": 1, "line": line}
        ]
        note += f" Dashed: the median over phases of a demonstration's smallest kept entropy, {middle:.3g} nats."
    return figure(
        "Entropy of the demonstrations' tokens",
        note,
        data,
        "entropy (nats)",
        "tokens",
        xaxis=axis,
        shapes=shapes,
    )


def _thresholds(run: Run) -> Figure:
    """The smallest kept entropy of a demonstration, by interval."""
    rows = [(line["interval"], line["tokens"]["threshold"]) for line in run.inspection if line.get("tokens")]
    rows = [(interval, spread) for interval, spread in rows if spread]
    x = [interval for interval, _ in rows]
    median = [spread["median"] for _, spread in rows]
    error = {
        "type": "data",
        "symmetric": False,
        "array": [spread["max"] - spread["median"] for _, spread in rows],
        "arrayminus": [spread["median"] - spread["min"] for _, spread in rows],
        "thickness": 1.5,
    }
    marker = {"color": SFT_ORANGE, "size": 8}
    data = {"type": "scatter", "mode": "markers", "x": x, "y": median, "error_y": error, "marker": marker}
    note = (
        "The smallest entropy kept of a demonstration: median, smallest and largest over the demonstrations of a phase."
    )
    axes: dict[str, Any] = {"xaxis": whole_numbers(x), "yaxis": {"rangemode": "tozero"}}
    return figure(
        "Entropy threshold", note, [data | {"name": "threshold"}], "interval", "nats", showlegend=False, **axes
    )


def _position(tables: list[dict[str, Any]]) -> Figure:
    """Share of the tokens kept by position in the response."""
    whole, kept = _sum(tables, "position"), _sum(tables, "position_kept")
    x = [(place + 0.5) / len(whole) for place in range(len(whole))]
    shares = [part / number if number else None for part, number in zip(kept, whole, strict=True)]
    bars = {"type": "bar", "name": "kept", "x": x, "y": shares, "marker": {"color": SFT_ORANGE}}
    mean = sum(kept) / sum(whole)
    line = {"type": "scatter", "mode": "lines", "name": f"all positions: {mean:.1%}", "x": [0, 1], "y": [mean, mean]}
    data = [bars, line | {"line": {"color": GREY, "dash": "dash"}}]
    axes: dict[str, Any] = {
        "yaxis": {"tickformat": ".0%"},
        "xaxis": {"tickformat": ".0%"},
        "bargap": 0.1,
        "height": 360,
    }
    return figure("Kept, by position in the response", "", data, "position (start to end)", "share kept", **axes)


def _top(tables: list[dict[str, Any]]) -> Figure:
    """The tokens that entered the loss most often."""
    kept: dict[str, int] = {}
    for table in tables:
        for text, number, _ in table["top_tokens"]:
            kept[text] = kept.get(text, 0) + number
    top = sorted(kept.items(), key=lambda pair: (-pair[1], pair[0]))[:15][::-1]
    data = {
        "type": "bar",
        "orientation": "h",
        "x": [number for _, number in top],
        "y": [visible(text) for text, _ in top],
        "marker": {"color": SFT_ORANGE},
    }
    note = "Sums over the phases' own lists of their 30 most often kept tokens; ␣ is a space, ⏎ a new line."
    axis = {"type": "category"}
    return figure(
        "Tokens kept most often", note, [data], "times in the loss", "", yaxis=axis, showlegend=False, height=360
    )


def visible(text: str) -> str:
    """A token as something to be seen."""
    return text.replace("\n", "⏎").replace(" ", "␣").replace("\t", "⇥") or "∅"


def examples(run: Run) -> str:
    """Demonstrations of the first and the last phase as HTML, kept tokens marked, entropy as a shade and a tooltip."""
    lines = [line for line in run.inspection if (line.get("tokens") or {}).get("examples")]
    chosen = [
        (line["interval"], example) for line in lines[:1] + lines[1:][-1:] for example in line["tokens"]["examples"]
    ]
    return "".join(_example(interval, example) for interval, example in chosen[:_MOST_EXAMPLES])


def _example(interval: int, example: dict[str, Any]) -> str:
    spans = []
    for text, entropy, kept in zip(example["tokens"], example["entropy"], example["kept"], strict=True):
        shade = f"--h:{min(entropy / 2, 1):.2f}"
        shown = escape(text).replace("\n", "⏎\n") or "∅"
        spans.append(f'<span class="t{" kept" * bool(kept)}" style="{shade}" title="{entropy:.3f} nats">{shown}</span>')
    cut = example["num_tokens"] - len(example["tokens"])
    more = f" <em>and {cut} tokens more</em>" if cut else ""
    count = sum(example["kept"])
    return (
        f'<article class="example"><h4>Interval {interval}, {escape(example["prompt_id"])}: {count} of '
        f"{len(example['tokens'])} tokens shown are in the loss</h4>"
        f'<pre class="prompt">{escape(example["prompt"])}</pre>'
        f'<pre class="response">{"".join(spans)}</pre>{more}</article>'
    )


def _sum(tables: list[dict[str, Any]], name: str) -> list[int]:
    return [sum(column) for column in zip(*(table[name] for table in tables), strict=True)]


def _steps(name: str, x: list[float], y: list[int], color: str) -> dict[str, Any]:
    line = {"shape": "hv", "color": color, "width": 1.5}
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": x,
        "y": y,
        "line": line,
        "fill": "tozeroy",
        "fillcolor": color + "66",
    }
