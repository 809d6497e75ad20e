"""The figures of what was frozen: by layer and by kind, against the mask before, and where both phases moved."""

from typing import Any

from mifo_verl.tools.inspect.overlap import chance_jaccard, jaccard
from mifo_verl.tools.report.figures import RL_BLUE, SFT_ORANGE, Figure, figure, whole_numbers
from mifo_verl.tools.report.run import Run

_SCALE = [[0, "#1e40af"], [0.25, "#93c5fd"], [0.5, "#f8fafc"], [0.75, "#fdba74"], [1, "#c2410c"]]
_MOST_CELLS_WITH_TEXT = 12


def mask_figures(run: Run) -> list[Figure]:
    """Every figure that the inspected intervals of a run allow."""
    lines = [line for line in run.inspection if line.get("mask")]
    if not lines:
        return []
    made = [_norms(lines), _visible(lines)]
    if any(sum(line["mask"]["by_layer"]["frozen"]) for line in lines):
        made = [heat_map(lines, "layer"), heat_map(lines, "kind"), _overlap(lines), *made]
    return made


def heat_map(lines: list[dict[str, Any]], by: str) -> Figure:
    """Share frozen of every layer, or kind of matrix, in every interval; white is the share of the whole model."""
    tables = [line["mask"][f"by_{by}"] for line in lines]
    names = tables[0][by]
    shares = [
        [table["frozen"][row] / table["coordinates"][row] if table["coordinates"][row] else None for table in tables]
        for row in range(len(names))
    ]
    data = {
        "type": "heatmap",
        "x": [line["interval"] for line in lines],
        "y": names,
        "z": shares,
        "zmin": 0,
        "zmid": sum(map(sum, (table["frozen"] for table in tables)))
        / sum(map(sum, (table["coordinates"] for table in tables))),
        "zmax": 1,
        "texttemplate": "%{z:.0%}" if len(lines) <= _MOST_CELLS_WITH_TEXT else "",
        "colorscale": _SCALE,
        "colorbar": {"title": {"text": "frozen"}, "tickformat": ".0%", "thickness": 12},
        "hovertemplate": f"interval %{{x}}, {by} %{{y}}: %{{z:.1%}} frozen<extra></extra>",
        "xgap": 1,
        "ygap": 1,
    }
    axis = {"type": "category", "autorange": "reversed"}
    title = "Frozen, by layer" if by == "layer" else "Frozen, by kind of matrix"
    height = max(300, 110 + 22 * len(names)) if len(names) < 40 else 720
    x = whole_numbers([line["interval"] for line in lines])
    return figure(
        title,
        "Share of the coordinates. White is the share of the whole model; orange is frozen more, blue less.",
        [data],
        "interval",
        by,
        yaxis=axis,
        height=height,
        xaxis=x,
    )


def _overlap(lines: list[dict[str, Any]]) -> Figure:
    """Jaccard overlap of every mask with the one before, against chance."""
    with_previous = [line for line in lines if sum(line["mask"]["by_layer"]["previous"])]
    x, own, chance, within = [], [], [], []
    for line in with_previous:
        table = line["mask"]["by_layer"]
        columns = [table[name] for name in ("coordinates", "frozen", "previous")]
        sums = [sum(column) for column in columns]
        x.append(line["interval"])
        own.append(jaccard(sums[1], sums[2], sum(table["frozen_and_previous"])))
        chance.append(chance_jaccard(*([number] for number in sums)))
        within.append(chance_jaccard(*columns))
    data = [
        _points("masks", x, own, RL_BLUE),
        _points("chance", x, chance, "#94a3b8", "dash"),
        _points("chance, with each layer's share", x, within, "#64748b", "dot"),
    ]
    note = "Jaccard: coordinates in both masks over those in either. With a history (α > 0) masks are meant to overlap."
    ranges = {"range": [0, 1]}
    return figure(
        "Overlap with the mask before", note, data, "interval", "Jaccard", yaxis=ranges, xaxis=whole_numbers(x)
    )


def _norms(lines: list[dict[str, Any]]) -> Figure:
    """Update norms by layer: the mean over the intervals, each interval a thin line."""
    data: list[dict[str, Any]] = []
    for phase, color in (("rl", RL_BLUE), ("sft", SFT_ORANGE)):
        tables = [line["mask"]["by_layer"] for line in lines]
        layers = tables[0]["layer"]
        columns = [table[f"{phase}_norm"] for table in tables]
        for column in columns[-20:] if len(columns) > 1 else []:
            thin = _points("", layers, column, color + "40") | {
                "showlegend": False,
                "hoverinfo": "skip",
                "mode": "lines",
            }
            data.append(thin | {"line": {"color": color + "40", "width": 1}})
        means = [sum(column[row] for column in columns) / len(columns) for row in range(len(layers))]
        data.append(_points(phase.upper(), layers, means, color))
    note = "L2 norm of an interval's update of the float32 weights; thick: the mean over intervals."
    x = {"type": "category"}
    return figure("Size of the updates, by layer", note, data, "layer", "norm", xaxis=x, yaxis={"rangemode": "tozero"})


def _visible(lines: list[dict[str, Any]]) -> Figure:
    """How much of what SFT changed RL had changed too, as a bfloat16 copy shows it, against chance.

    Chance is RL's share of the coordinates that are not frozen: of the others SFT changes none, and RL changed them
    most. Records of before these were counted have the share of all coordinates instead.
    """
    x, own, chance = [], [], []
    is_counted = all("frozen_rl_visible" in line["mask"]["by_layer"] for line in lines)
    for line in lines:
        sums = {name: sum(column) for name, column in line["mask"]["by_layer"].items() if name != "layer"}
        x.append(line["interval"])
        own.append(sums["both_visible"] / sums["sft_visible"] if sums["sft_visible"] else None)
        size, rl = sums["coordinates"], sums["rl_visible"]
        if is_counted:
            size, rl = size - sums["frozen"], rl - sums["frozen_rl_visible"]
        chance.append(rl / size if size else None)
    of = "of the coordinates not frozen (chance)" if is_counted else "of all coordinates"
    data = [
        _points("of what SFT changed, RL had changed", x, own, SFT_ORANGE),
        _points(of, x, chance, "#64748b", "dash"),
    ]
    note = "Changes that a bfloat16 copy of the weights shows."
    if not is_counted:
        note += " Not chance under freezing, where SFT cannot change what RL changed most."
    ranges = {"range": [0, 1.02], "tickformat": ".0%"}
    return figure("RL's and SFT's changes meet", note, data, "interval", "share", yaxis=ranges, xaxis=whole_numbers(x))


def _points(name: str, x: list[Any], y: list[Any], color: str, dash: str = "solid") -> dict[str, Any]:
    style = {"color": color, "dash": dash, "width": 2}
    marker = {"size": 6, "color": color}
    return {"type": "scatter", "mode": "lines+markers", "name": name, "x": x, "y": y, "line": style, "marker": marker}
