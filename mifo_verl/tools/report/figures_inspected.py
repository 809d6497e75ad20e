"""The figures of what was frozen, by layer and by kind, and of which tokens were kept."""

from statistics import median
from typing import Any

import pandas as pd

from mifo_verl.tools.inspect.overlap import chance_jaccard, jaccard
from mifo_verl.tools.report.figures import (
    GREY,
    INK,
    PHASE_COLORS,
    RL_BLUE,
    SFT_ORANGE,
    Figure,
    bars,
    card,
    line,
    lines,
    vertical,
)
from mifo_verl.tools.report.run import Run

_SCALE = ["#1e40af", "#93c5fd", "#f8fafc", "#fdba74", "#c2410c"]
_MOST_CELLS_WITH_TEXT, _MOST_THIN_LINES = 12, 20
_TICKS = [0.0001, 0.001, 0.01, 0.1, 1, 10]


def mask_figures(run: Run) -> list[Figure]:
    """Every figure that the inspected intervals of a run allow."""
    layers = run.layers
    if layers.empty:
        return []
    made = [_norms(layers), _visible(layers)]
    if layers["frozen"].any():
        made = [_heat_map(layers, "layer"), _heat_map(run.kinds, "kind"), _overlap(layers), *made]
    return made


def _heat_map(masks: pd.DataFrame, by: str) -> Figure:
    """Share frozen of every layer, or kind of matrix, in every interval; white is the share of the whole model."""
    shares = masks.assign(share=masks["frozen"] / masks["coordinates"].where(masks["coordinates"] > 0))
    table = shares.pivot(index=by, columns="interval", values="share").reindex(masks[by].unique())
    white = float(masks["frozen"].sum() / masks["coordinates"].sum())
    places = (0.0, white / 2, white, (1 + white) / 2, 1.0)
    heat = {
        "type": "heatmap", "x": table.columns.tolist(), "y": table.index.tolist(), "z": table.to_numpy(),
        "zmin": 0, "zmax": 1, "colorscale": list(zip(places, _SCALE, strict=True)), "xgap": 1, "ygap": 1,
        "hovertemplate": f"interval %{{x}}, {by} %{{y}}: %{{z:.1%}} frozen<extra></extra>",
        "texttemplate": "%{z:.0%}" if table.shape[1] <= _MOST_CELLS_WITH_TEXT else "",
        "colorbar": {"title": {"text": "frozen"}, "tickformat": ".0%", "thickness": 12},
    }  # fmt: skip
    note = "Share of the coordinates. White is the share of the whole model; orange is frozen more, blue less."
    title = "Frozen, by layer" if by == "layer" else "Frozen, by kind of matrix"
    height = max(300, 110 + 22 * len(table)) if len(table) < 40 else 720
    axis = {"type": "category", "autorange": "reversed"}
    return card(title, note, [heat], "interval", by, height=height, yaxis=axis)


def _overlap(layers: pd.DataFrame) -> Figure:
    """Jaccard overlap of every mask with the one before, against chance."""
    rows = []
    for interval, own in layers.groupby("interval"):
        columns = [own[name].tolist() for name in ("coordinates", "frozen", "previous")]
        sizes = [sum(column) for column in columns]
        if sizes[2]:
            both = jaccard(sizes[1], sizes[2], own["frozen_and_previous"].sum())
            rows.append((interval, both, chance_jaccard(*([one] for one in sizes)), chance_jaccard(*columns)))
    names = ["masks", "chance", "chance, with each layer's share"]
    table = pd.DataFrame(rows, columns=["interval", *names])
    colors = dict(zip(names, (RL_BLUE, "#94a3b8", "#64748b"), strict=True))
    data = lines(table, "interval", names, colors, mode="lines+markers")
    note = "Jaccard: coordinates in both masks over those in either. With a history (α > 0) masks are meant to overlap."
    return card("Overlap with the mask before", note, data, "interval", "Jaccard", yaxis={"range": [0, 1]})


def _norms(layers: pd.DataFrame) -> Figure:
    """Update norms by layer: the mean over the intervals, each interval a thin line."""
    data = []
    last = sorted(layers["interval"].unique())[-_MOST_THIN_LINES:]
    for phase, color in PHASE_COLORS.items():
        table = layers.pivot(index="layer", columns="interval", values=f"{phase}_norm").reindex(
            layers["layer"].unique()
        )
        for interval in last if len(last) > 1 else ():
            thin: dict[str, Any] = {"line": {"width": 1}, "hoverinfo": "skip", "showlegend": False}
            data.append(line("", table.index, table[interval], color + "40", "lines", **thin))
        mean = table.mean(axis=1, skipna=False)
        data.append(line(phase.upper(), mean.index, mean, color, "lines+markers"))
    note = "L2 norm of an interval's update of the float32 weights; thick: the mean over intervals."
    axes: dict[str, Any] = {"xaxis": {"type": "category"}, "yaxis": {"rangemode": "tozero"}}
    return card("Size of the updates, by layer", note, data, "layer", "norm", **axes)


def _visible(layers: pd.DataFrame) -> Figure:
    """How much of what SFT changed RL had changed too, as a bfloat16 copy shows it, against chance.

    Chance is RL's share of the coordinates that are not frozen: of the others SFT changes none, and RL changed them
    most. Records of before these were counted have the share of all coordinates instead.
    """
    is_counted = "frozen_rl_visible" in layers and layers["frozen_rl_visible"].notna().all()
    sums = layers.groupby("interval").sum(numeric_only=True)
    size, rl = sums["coordinates"], sums["rl_visible"]
    if is_counted:
        size, rl = size - sums["frozen"], rl - sums["frozen_rl_visible"]
    of = "of the coordinates not frozen (chance)" if is_counted else "of all coordinates"
    met = "of what SFT changed, RL had changed"
    table = pd.DataFrame({met: sums["both_visible"] / sums["sft_visible"].where(sums["sft_visible"] > 0)})
    table[of] = rl / size.where(size > 0)
    colors = {met: SFT_ORANGE, of: "#64748b"}
    data = lines(table.reset_index(), "interval", [met, of], colors, mode="lines+markers")
    note = "Changes that a bfloat16 copy of the weights shows."
    if not is_counted:
        note += " Not chance under freezing, where SFT cannot change what RL changed most."
    axes: dict[str, Any] = {"yaxis": {"range": [0, 1.02], "tickformat": ".0%"}}
    return card("RL's and SFT's changes meet", note, data, "interval", "share", **axes)


def token_figures(run: Run) -> list[Figure]:
    """Entropy, position and tokens over all SFT phases; none if tokens were not inspected."""
    tables = [table for _, table in run.tokens]
    return [_entropy(tables), _thresholds(run), _position(tables), _top(tables)] if tables else []


def _entropy(tables: list[dict[str, Any]]) -> Figure:
    """Histogram of the response tokens' entropies, of all and of those kept."""
    edges = tables[0]["edges"]
    names = {"all response tokens": "entropy", "in the loss": "entropy_kept"}
    # the lower edges; the first bin's is 0, which a log axis lacks
    sums = pd.DataFrame({"nats": [edges[0] / 2, *edges]} | {name: _sum(tables, key) for name, key in names.items()})
    colors = {"all response tokens": "#94a3b8", "in the loss": SFT_ORANGE}
    data = lines(sums, "nats", list(names), colors, line={"shape": "hv"}, fill="tozeroy")
    shapes = []
    note = "Bins of a logarithmic axis; the first holds all below it."
    if medians := [table["threshold"]["median"] for table in tables if table["threshold"]]:
        middle = median(medians)
        shapes.append(vertical(max(middle, edges[0] / 2), INK, "dash"))
        note += f" Dashed: the median over phases of a demonstration's smallest kept entropy, {middle:.3g} nats."
    axis = {"type": "log", "tickvals": _TICKS, "ticktext": [f"{tick:g}" for tick in _TICKS]}
    title = "Entropy of the demonstrations' tokens"
    return card(title, note, data, "entropy (nats)", "tokens", xaxis=axis, shapes=shapes)


def _thresholds(run: Run) -> Figure:
    """The smallest kept entropy of a demonstration, by interval."""
    rows = [{"interval": interval} | table["threshold"] for interval, table in run.tokens if table["threshold"]]
    table = pd.DataFrame(rows, columns=["interval", "min", "median", "max"])
    above, below = table["max"] - table["median"], table["median"] - table["min"]
    error = {"type": "data", "array": above.tolist(), "arrayminus": below.tolist()}
    look = {"marker": {"color": SFT_ORANGE, "size": 8}, "error_y": error, "showlegend": False}
    data = [line("median", table["interval"], table["median"], SFT_ORANGE, "markers", **look)]
    note = (
        "The smallest entropy kept of a demonstration: median, smallest and largest over the demonstrations of a phase."
    )
    return card("Entropy threshold", note, data, "interval", "nats", yaxis={"rangemode": "tozero"})


def _position(tables: list[dict[str, Any]]) -> Figure:
    """Share of the tokens kept by position in the response."""
    whole, kept = pd.Series(_sum(tables, "position")), pd.Series(_sum(tables, "position_kept"))
    place, mean = (whole.index + 0.5) / len(whole), kept.sum() / whole.sum()
    data = [bars("kept", place, kept / whole.where(whole > 0), SFT_ORANGE)]
    data.append(line(f"all positions: {mean:.1%}", [0, 1], [mean, mean], GREY, "lines", line={"dash": "dash"}))
    look: dict[str, Any] = {"bargap": 0.1, "height": 360} | {axis: {"tickformat": ".0%"} for axis in ("xaxis", "yaxis")}
    return card("Kept, by position in the response", "", data, "position (start to end)", "share kept", **look)


def _top(tables: list[dict[str, Any]]) -> Figure:
    """The tokens that entered the loss most often."""
    rows = pd.DataFrame([row for table in tables for row in table["top_tokens"]], columns=["text", "kept", "in all"])
    top = rows.groupby("text")["kept"].sum().reset_index().sort_values(["kept", "text"], ascending=[False, True])[:15]
    top["text"] = top["text"].map(visible)
    data = [bars("", top["kept"][::-1], top["text"][::-1], SFT_ORANGE, orientation="h", showlegend=False)]
    note = "Sums over the phases' own lists of their 30 most often kept tokens; ␣ is a space, ⏎ a new line."
    look: dict[str, Any] = {"yaxis": {"type": "category"}, "height": 360}
    return card("Tokens kept most often", note, data, "times in the loss", "", **look)


def visible(text: str) -> str:
    """A token as something to be seen."""
    return text.replace("\n", "⏎").replace(" ", "␣").replace("\t", "⇥") or "∅"


def _sum(tables: list[dict[str, Any]], name: str) -> list[int]:
    return [sum(column) for column in zip(*(table[name] for table in tables), strict=True)]
