"""The figures of what was frozen, by layer and by kind, and of which tokens were kept."""

from statistics import median
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from mifo_verl.tools.inspect.overlap import chance_jaccard, jaccard
from mifo_verl.tools.report.figures import GREY, PHASE_COLORS, RL_BLUE, SFT_ORANGE, Figure, card, lines
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
    figure = px.imshow(
        table,
        zmin=0,
        zmax=1,
        color_continuous_scale=_SCALE,
        color_continuous_midpoint=masks["frozen"].sum() / masks["coordinates"].sum(),
        text_auto=".0%" if table.shape[1] <= _MOST_CELLS_WITH_TEXT else False,
        aspect="auto",
    )
    hover = f"interval %{{x}}, {by} %{{y}}: %{{z:.1%}} frozen<extra></extra>"
    figure.update_traces(hovertemplate=hover, xgap=1, ygap=1)
    figure.update_layout(yaxis={"type": "category", "autorange": "reversed"})
    figure.update_coloraxes(colorbar={"title": {"text": "frozen"}, "tickformat": ".0%", "thickness": 12})
    note = "Share of the coordinates. White is the share of the whole model; orange is frozen more, blue less."
    title = "Frozen, by layer" if by == "layer" else "Frozen, by kind of matrix"
    height = max(300, 110 + 22 * len(table)) if len(table) < 40 else 720
    return card(title, note, figure, "interval", by, height=height)


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
    figure = lines(
        table, "interval", names, dict(zip(names, (RL_BLUE, "#94a3b8", "#64748b"), strict=True)), markers=True
    )
    note = "Jaccard: coordinates in both masks over those in either. With a history (α > 0) masks are meant to overlap."
    axes = {"yaxis_range": [0, 1]}
    return card("Overlap with the mask before", note, figure, "interval", "Jaccard", **axes)


def _norms(layers: pd.DataFrame) -> Figure:
    """Update norms by layer: the mean over the intervals, each interval a thin line."""
    figure = go.Figure()
    last = sorted(layers["interval"].unique())[-_MOST_THIN_LINES:]
    for phase, color in PHASE_COLORS.items():
        table = layers.pivot(index="layer", columns="interval", values=f"{phase}_norm").reindex(
            layers["layer"].unique()
        )
        for interval in last if len(last) > 1 else ():
            thin: dict[str, Any] = {"line": {"color": color + "40", "width": 1}, "hoverinfo": "skip"}
            figure.add_scatter(x=table.index, y=table[interval], mode="lines", showlegend=False, **thin)
        mean = table.mean(axis=1, skipna=False)
        figure.add_scatter(name=phase.upper(), x=mean.index, y=mean, mode="lines+markers", line_color=color)
    note = "L2 norm of an interval's update of the float32 weights; thick: the mean over intervals."
    axes: dict[str, Any] = {"xaxis_type": "category", "yaxis_rangemode": "tozero"}
    return card("Size of the updates, by layer", note, figure, "layer", "norm", **axes)


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
    figure = lines(table.reset_index(), "interval", [met, of], {met: SFT_ORANGE, of: "#64748b"}, markers=True)
    note = "Changes that a bfloat16 copy of the weights shows."
    if not is_counted:
        note += " Not chance under freezing, where SFT cannot change what RL changed most."
    axes = {"yaxis": {"range": [0, 1.02], "tickformat": ".0%"}}
    return card("RL's and SFT's changes meet", note, figure, "interval", "share", **axes)


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
    figure = lines(sums, "nats", list(names), colors, line_shape="hv", log_x=True)
    figure.update_traces(fill="tozeroy")
    note = "Bins of a logarithmic axis; the first holds all below it."
    if medians := [table["threshold"]["median"] for table in tables if table["threshold"]]:
        middle = median(medians)
        figure.add_vline(max(middle, edges[0] / 2), line_dash="dash", line_width=1.5)
        note += f" Dashed: the median over phases of a demonstration's smallest kept entropy, {middle:.3g} nats."
    axis = {"type": "log", "tickvals": _TICKS, "ticktext": [f"{tick:g}" for tick in _TICKS]}
    return card("Entropy of the demonstrations' tokens", note, figure, "entropy (nats)", "tokens", xaxis=axis)


def _thresholds(run: Run) -> Figure:
    """The smallest kept entropy of a demonstration, by interval."""
    rows = [{"interval": interval} | table["threshold"] for interval, table in run.tokens if table["threshold"]]
    table = pd.DataFrame(rows, columns=["interval", "min", "median", "max"])
    above, below = table["max"] - table["median"], table["median"] - table["min"]
    figure = px.scatter(table, x="interval", y="median", error_y=above, error_y_minus=below, render_mode="svg")
    figure.update_traces(marker={"color": SFT_ORANGE, "size": 8})
    note = (
        "The smallest entropy kept of a demonstration: median, smallest and largest over the demonstrations of a phase."
    )
    axes = {"yaxis_rangemode": "tozero"}
    return card("Entropy threshold", note, figure, "interval", "nats", **axes)


def _position(tables: list[dict[str, Any]]) -> Figure:
    """Share of the tokens kept by position in the response."""
    whole, kept = pd.Series(_sum(tables, "position")), pd.Series(_sum(tables, "position_kept"))
    place, mean = (whole.index + 0.5) / len(whole), kept.sum() / whole.sum()
    figure = px.bar(x=place, y=kept / whole.where(whole > 0), color_discrete_sequence=[SFT_ORANGE])
    figure.update_traces(name="kept", showlegend=True)
    dashed = {"color": GREY, "dash": "dash"}
    figure.add_scatter(name=f"all positions: {mean:.1%}", x=[0, 1], y=[mean, mean], mode="lines", line=dashed)
    axes = {"yaxis_tickformat": ".0%", "xaxis_tickformat": ".0%", "bargap": 0.1, "height": 360}
    return card("Kept, by position in the response", "", figure, "position (start to end)", "share kept", **axes)


def _top(tables: list[dict[str, Any]]) -> Figure:
    """The tokens that entered the loss most often."""
    rows = pd.DataFrame([row for table in tables for row in table["top_tokens"]], columns=["text", "kept", "in all"])
    top = rows.groupby("text")["kept"].sum().reset_index().sort_values(["kept", "text"], ascending=[False, True])[:15]
    top["text"] = top["text"].map(visible)
    figure = px.bar(top[::-1], x="kept", y="text", orientation="h", color_discrete_sequence=[SFT_ORANGE])
    note = "Sums over the phases' own lists of their 30 most often kept tokens; ␣ is a space, ⏎ a new line."
    return card("Tokens kept most often", note, figure, "times in the loss", "", yaxis_type="category", height=360)


def visible(text: str) -> str:
    """A token as something to be seen."""
    return text.replace("\n", "⏎").replace(" ", "␣").replace("\t", "⇥") or "∅"


def _sum(tables: list[dict[str, Any]], name: str) -> list[int]:
    return [sum(column) for column in zip(*(table[name] for table in tables), strict=True)]
