"""The figures of how runs went: phases, accuracy, buffer, what each phase cost the other, seconds, memory, losses.

They are made as Plotly's JSON: its Python classes would check every value and take a second a page.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mifo_verl.probes.coupling import KL
from mifo_verl.tools.parts import part_of
from mifo_verl.tools.report.groups import Group, curve, probe_curve
from mifo_verl.tools.report.run import Run

RL_BLUE, SFT_ORANGE, GREY, INK = "#2563eb", "#ea580c", "#cbd5e1", "#334155"
PHASE_COLORS = {"rl": RL_BLUE, "sft": SFT_ORANGE}
_STAGE_COLORS = (
    "#2563eb", "#16a34a", "#9333ea", "#dc2626", "#0891b2", "#a16207", "#db2777", "#65a30d", "#475569", "#14b8a6", "#7c2d12", "#1e1b4b"
)  # fmt: skip
_FEW_PLACES = 16
"""An axis of fewer steps has a tick for each."""
_FEW_POINTS = 30
"""Of so many or fewer every one is marked: a line through two is nothing to be seen."""


Trace = dict[str, Any]
"""What is drawn, in Plotly's JSON."""


@dataclass(frozen=True)
class Figure:
    """A Plotly figure as a card of the page; ``note`` says in words what is to be seen."""

    title: str
    note: str
    data: list[Trace]
    layout: dict[str, Any]
    wide: bool = False


def card(title: str, note: str, data: list[Trace], x: str, y: str, wide: bool = False, **layout: Any) -> Figure:
    """A figure with titled axes; ``layout`` goes over the page's own, which has the fonts and the margins."""
    axes: dict[str, dict[str, Any]] = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    if x in ("step", "interval"):
        places = {int(place) for trace in data for place in trace["x"] if place is not None and place == place}
        if places and max(places) - min(places) < _FEW_PLACES:
            axes["xaxis"]["dtick"] = 1  # else there are ticks between two whole numbers
    return Figure(title, note, data, layout | {name: axes[name] | layout.get(name, {}) for name in axes}, wide)


def line(name: str, x: Iterable[Any], y: Iterable[Any], color: str = "", mode: str = "", **look: Any) -> Trace:
    """A line in ``color``, or in Plotly's next; ``look`` goes over the rest of it, of its "line" over these."""
    xs = list(x)
    stroke = ({"color": color} if color else {}) | look.pop("line", {})
    mode = mode or ("lines+markers" if len(xs) <= _FEW_POINTS else "lines")
    return {"type": "scatter", "name": name, "x": xs, "y": list(y), "mode": mode, "line": stroke} | look


def lines(data: pd.DataFrame, x: str, names: Sequence[str], colors: Mapping[str, str], **look: Any) -> list[Trace]:
    """A line for each of the columns ``names``, named as it is."""
    return [line(name, data[x], data[name], colors.get(name, ""), showlegend=True, **look) for name in names]


def bars(name: str, x: Iterable[Any], y: Iterable[Any], color: str, **look: Any) -> Trace:
    """Bars that the legend names."""
    bar = {"type": "bar", "name": name, "x": list(x), "y": list(y), "marker": {"color": color}, "showlegend": True}
    return bar | look


def vertical(x: float, color: str, dash: str = "solid") -> dict[str, Any]:
    """A vertical line, for the ``shapes`` of a layout."""
    stroke = {"color": color, "width": 1.5, "dash": dash}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": stroke}


def timeline(run: Run) -> Figure:
    """RL, SFT and what is beside them, by the seconds of the records."""
    blocks = pd.Categorical(run.seconds["block"], ["start-up", "RL", "SFT", "beside"])
    table = run.seconds.assign(block=blocks).groupby(["step", "block"], observed=True)["seconds"].sum().reset_index()
    table = table[table["seconds"] > 0]
    table["start"] = table["seconds"].cumsum() - table["seconds"]
    colors = {"start-up": "#7c3aed", "RL": RL_BLUE, "SFT": SFT_ORANGE, "beside": GREY}
    data = []
    for block, own in table.groupby("block", sort=False, observed=True):
        look: dict[str, Any] = {"base": own["start"].tolist(), "orientation": "h", "customdata": own["step"].tolist()}
        edge = {"width": 1.5, "color": SFT_ORANGE} if block == "SFT" else {"width": 0}
        look |= {
            "marker": {"color": colors[str(block)], "line": edge},
            "hovertemplate": "step %{customdata}: %{x:.2f} s",
        }
        data.append(bars(str(block), own["seconds"], [""] * len(own), "", **look))
    axes = {"yaxis": {"showticklabels": False, "showgrid": False}, "xaxis": {"range": [0, table["seconds"].sum()]}}
    note = "Every step in turn. Beside the phases: probes, validation, weight sync, checkpoints, the end."
    return card("Phases", note, data, "seconds", "", wide=True, barmode="overlay", height=190, **axes)


def accuracy(run: Run) -> Figure:
    """Accuracy of the rollouts, reward and validation by step, the SFT phases marked."""
    table = pd.DataFrame([(line["step"], line["accuracy"], line["reward"]) for line in run.rl])
    table = table.set_axis(["step", "rollout accuracy", "reward"][: len(table.columns)], axis=1)
    note = "Orange lines: an SFT phase follows the RL of this step."
    if is_same := len(table) == 0 or bool((table["rollout accuracy"] == table["reward"]).all()):
        note += " The mean reward is the accuracy here: a reward is 1 or 0."
    shown = ["rollout accuracy"] if is_same else ["rollout accuracy", "reward"]
    colors = {"rollout accuracy": RL_BLUE, "reward": "#93c5fd"}
    data = lines(table, "step", shown, colors) if len(table) else []
    if points := run.validations:
        data.append(line("validation", points, points.values(), INK, "lines+markers"))
    data.append(line("SFT phase", [None], [None], SFT_ORANGE, "lines"))
    return card("Accuracy and reward", note, data, "step", "share correct", shapes=_sft_marks(run))


def buffer(run: Run) -> Figure:
    """How the buffer fills, and the size at which it is full."""
    phases = set(run.sft_steps)
    rows = [
        (line["step"], line["buffer_size"], "SFT follows" if line["step"] in phases else "RL goes on")
        for line in run.rl
    ]
    table = pd.DataFrame(rows, columns=["step", "size", "then"])
    colors = {"RL goes on": "#93c5fd", "SFT follows": SFT_ORANGE}
    then = table.groupby("then", sort=False)
    data = [bars(str(name), own["step"], own["size"], colors[str(name)]) for name, own in then]
    if (limit := getattr(part_of(run.config, "schedule"), "buffer_limit", None)) and rows:
        ends = [rows[0][0] - 0.5, rows[-1][0] + 0.5]
        data.append(line(f"S = {limit}", ends, [limit, limit], INK, "lines", line={"dash": "dash"}))
    note = "After the RL of each step; SFT trains on it and empties it."
    return card("Buffer", note, data, "step", "hard prompts", barmode="overlay")


def coupling(run: Run) -> list[Figure]:
    """Every probed quantity just before and just after a phase: what one objective costs the other."""
    made = []
    for (kind, name), rows in run.probes.groupby(["phase", "name"], sort=False):
        phase, color, words = kind.upper(), PHASE_COLORS[kind], name.replace("_", " ")
        x = [value for at in rows["interval"] for value in (at, at, None)]
        y = [value for pair in zip(rows["before"], rows["after"], strict=True) for value in (*pair, None)]
        data = [line("", x, y, color, "lines", showlegend=False, hoverinfo="skip")]
        for side, symbol in (("before", "circle-open"), ("after", "circle")):
            marker = {"color": color, "symbol": symbol, "size": 10, "line": {"width": 2, "color": color}}
            data.append(line(f"{side} {phase}", rows["interval"], rows[side], color, "markers", marker=marker))
        note = f"One pair an interval, measured just before and just after its {phase} phase."
        made.append(card(f"{words.capitalize()} around {phase}", note, data, "interval", words))
    return made


def shift(run: Run) -> Figure | None:
    """How far every SFT phase moved the policy on the rollouts made before it."""
    rows = [(line["interval"], line[KL]) for line in run.sft if line.get(KL) is not None]
    if not rows:
        return None
    x, y = zip(*rows, strict=True)
    data = [line("KL", x, y, SFT_ORANGE, "lines+markers")]
    note = "KL(after‖before) of the next token, mean over the policy's own answers from before the phase."
    return card("How far SFT moved the policy", note, data, "interval", "nats", showlegend=False)


def stages(run: Run) -> Figure:
    """Seconds by stage of every step, stacked, the SFT phase among them."""
    table = run.seconds.groupby(["stage", "step"], sort=False)["seconds"].sum().reset_index()
    sums = table.groupby("stage")["seconds"].sum().sort_values(ascending=False)
    names = {stage: f"{stage.replace('_', ' ')} {total:,.1f} s" for stage, total in sums.items()}
    colors = {names[stage]: _STAGE_COLORS[place % len(_STAGE_COLORS)] for place, stage in enumerate(names)}
    if "sft" in names:
        colors[names["sft"]] = SFT_ORANGE
    own = {str(stage): rows for stage, rows in table.groupby("stage")}
    data = [bars(name, own[stage]["step"], own[stage]["seconds"], colors[name]) for stage, name in names.items()]
    note = "The legend gives each stage's sum over the run."
    return card(
        "Seconds by stage", note, data, "step", "seconds", wide=True, barmode="relative", bargap=0.1, height=400
    )


def memory(run: Run) -> Figure | None:
    """Memory of the first rank's device and of its host by step; None if the run recorded none."""
    labels = {
        "device_allocated": "device, peak allocated",
        "device_reserved": "device, peak reserved",
        "host_used": "host",
    }
    table = pd.DataFrame(run.memory).rename(columns=labels)
    known = [name for name in labels.values() if name in table and table[name].notna().any()]
    if not known:
        return None
    data = lines(table, "step", known, {})
    note = "What verl measures after an actor update."
    return card("Memory", note, data, "step", "GiB", yaxis={"rangemode": "tozero"})


def losses(run: Run) -> list[Figure]:
    """Loss and gradient norm of the SFT updates."""
    places = range(1, len(run.sft) + 1)
    starts = [place for place, one in zip(places, run.sft, strict=True) if one["update"] == 1]
    shapes = [vertical(start - 0.5, GREY) for start in starts[1:]]
    where = [(one["interval"], one["update"]) for one in run.sft]
    look = {
        "customdata": where,
        "hovertemplate": "interval %{customdata[0]}, update %{customdata[1]}: %{y}<extra></extra>",
    }
    made = []
    for name, title, y in (("loss", "SFT loss", "loss"), ("grad_norm", "SFT gradient norm", "norm after the mask")):
        data = [line("", places, [one[name] for one in run.sft], SFT_ORANGE, "lines+markers", **look)]
        made.append(card(title, "Grey lines: a new interval.", data, "SFT update", y, shapes=shapes))
    return made if run.sft else []


def mixing(run: Run) -> Figure | None:
    """The weights of the losses of an update by step; None if the run mixed none."""
    rows = [{"step": line["step"]} | line["mixing"] for line in run.rl if isinstance(line.get("mixing"), dict)]
    table = pd.DataFrame(rows)
    names = [name for name in table.columns if name != "step" and pd.api.types.is_numeric_dtype(table[name])]
    if not names:
        return None
    note = "RL and SFT in the same update."
    return card("Weights of the losses", note, lines(table, "step", names, PHASE_COLORS), "step", "weight")


def policies(run: Run) -> list[Figure]:
    """Of a run whose base weights train beside an adapter: what it gains over a second policy, and all gradients."""
    rows = [{"step": line["step"], "grad_norm": line.get("grad_norm")} | line["policies"] for line in run.rl if line.get("policies")]  # fmt: skip
    table, made = pd.DataFrame(rows), []
    gain = "J_RL of the policy minus that of the second one, which RL alone trains beside the same adapter."
    for title, note, unit, names in (
        ("Cooperative gain", gain, "gain", {"cooperative_gain": "gain"}),
        (
            "Tokens clipped at the second policy",
            "Their ratio is outside the clip range.",
            "share",
            {"clip_share": "share"},
        ),
        (
            "Gradient norms of the policies",
            "Each before its own clip.",
            "norm",
            {"grad_norm": "base weights", "adapter_grad_norm": "adapter", "second_grad_norm": "second policy"},
        ),
    ):
        known = [name for name in names if name in table and table[name].notna().any()]
        if known:
            shown = table[["step", *known]].rename(columns=names)
            made.append(card(title, note, lines(shown, "step", [names[name] for name in known], {}), "step", unit))
    return made


def curves(groups: list[Group], name: str, title: str, note: str, y: str) -> Figure | None:
    """One number of the RL records by step: the mean of every group with its band, SFT phases marked for one run."""
    data = _with_bands([(group, curve(group, name)) for group in groups])
    alone = groups[0].runs[0] if len(groups) == 1 and len(groups[0].runs) == 1 else None
    marks: dict[str, Any] = {"showlegend": alone is None, "shapes": _sft_marks(alone) if alone else []}
    return card(title, note, data, "step", y, **marks) if data else None


def coupling_curves(groups: list[Group]) -> list[Figure]:
    """What a phase changed of every probed quantity, by interval, for every group."""
    probes = pd.concat([run.probes for group in groups for run in group.runs])
    made = []
    for phase, name in probes[["phase", "name"]].drop_duplicates().itertuples(index=False):
        data = _with_bands([(group, probe_curve(group, phase, name)) for group in groups])
        note = f"After {phase.upper()} minus before it, by interval."
        title = f"{phase.upper()}'s change of {name.replace('_', ' ')}"
        made.append(card(title, note, data, "interval", "change", showlegend=True))
    return made


def _with_bands(drawn: list[tuple[Group, pd.DataFrame]]) -> list[Trace]:
    """Every group's mean, over its band if it has one; a group without a value is left out."""
    data = []
    for group, table in drawn:
        if table.empty:
            continue
        band = table.dropna()
        if not band.empty:
            low, high = band["mean"] - band["half"], band["mean"] + band["half"]
            x, y = [*band.index, *band.index[::-1]], [*high, *low[::-1]]
            look: dict[str, Any] = {"fill": "toself", "fillcolor": group.color + "26", "line": {"width": 0}}
            data.append(line("", x, y, mode="lines", hoverinfo="skip", showlegend=False, **look))
        few, most = table["count"].min(), table["count"].max()
        number = f" (n={few if few == most else f'{few}–{most}'})" if len(group.runs) > 1 else ""
        stroke = {"dash": group.dash, "width": 2}
        data.append(line(group.label + number, table.index, table["mean"], group.color, line=stroke))
    return data


def _sft_marks(run: Run) -> list[dict[str, Any]]:
    """A vertical line at the step of every SFT phase."""
    return [vertical(step, SFT_ORANGE + "99") for step in run.sft_steps]
