"""The figures of how a run went, as plain Plotly figures: timeline, accuracy, buffer, signals, time and memory."""

from typing import Any

from mifo_verl.report.groups import Group, curve, probe_curve
from mifo_verl.report.run import Run, mean_of, probes, split_seconds, step_seconds

RL_BLUE, SFT_ORANGE, GREY, INK = "#2563eb", "#ea580c", "#cbd5e1", "#334155"

_STAGE_COLORS = ("#1e3a8a", "#2563eb", "#60a5fa", "#94a3b8", "#0f766e", "#5eead4", "#7c3aed", "#c4b5fd", "#475569")

Figure = dict[str, Any]
"""``title``, ``note`` (what is to be seen, in words), ``data`` and ``layout`` of Plotly, ``wide``."""


def figure(title: str, note: str, data: list[Any], x: str, y: str, wide: bool = False, **layout: Any) -> Figure:
    """A figure with titled axes; ``layout`` goes over the page's own."""
    axes = {"xaxis": {"title": {"text": x}} | layout.pop("xaxis", {})}
    axes["yaxis"] = {"title": {"text": y}} | layout.pop("yaxis", {})
    return {"title": title, "note": note, "data": data, "layout": axes | layout, "wide": wide}


def timeline(run: Run) -> Figure:
    """RL, SFT and what is beside them, by the seconds of the records."""
    blocks: dict[str, list[tuple[float, float, str]]] = {"RL": [], "beside RL": [], "SFT": []}
    updates: dict[int, list[dict[str, Any]]] = {}
    for line in run.sft:
        updates.setdefault(line["step"], []).append(line)
    at = 0.0
    rl = {line["step"]: line for line in run.rl}
    for step in sorted({*rl, *updates}):
        own, beside = split_seconds(rl[step]) if step in rl else (0.0, 0.0)
        sft = sum(line["seconds"]["sft"] for line in updates.get(step, []))
        where = f"step {step}"
        for name, seconds in (("RL", own), ("SFT", sft), ("beside RL", beside)):
            if seconds:
                blocks[name].append((at, seconds, where + (f", {len(updates[step])} updates" if name == "SFT" else "")))
                at += seconds
    colors = {"RL": RL_BLUE, "SFT": SFT_ORANGE, "beside RL": GREY}
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [""] * len(parts),
            "base": [start for start, _, _ in parts],
            "x": [seconds for _, seconds, _ in parts],
            "customdata": [where for _, _, where in parts],
            "hovertemplate": f"{name}, %{{customdata}}: %{{x:.2f}} s<extra></extra>",
            "marker": {"color": colors[name], "line": {"width": 1.5 if name == "SFT" else 0, "color": colors[name]}},
        }
        for name, parts in blocks.items()
    ]
    note = "Every step in turn. Beside RL: probes, validation, weight sync, checkpoints."
    axes = {"yaxis": {"showticklabels": False, "showgrid": False}, "xaxis": {"range": [0, at]}}
    return figure("Phases", note, data, "seconds", "", wide=True, barmode="overlay", height=190, **axes)


def curves(groups: list[Group], name: str, title: str, note: str, y: str) -> Figure | None:
    """One number of the RL records by step: the mean of every group with its band, SFT phases marked for one run."""
    data = [trace for group in groups for trace in _with_band(group, *curve(group.runs, name))]
    if not data:
        return None
    alone = groups[0].runs[0] if len(groups) == 1 and len(groups[0].runs) == 1 else None
    return figure(title, note, data, "step", y, showlegend=alone is None, shapes=_sft_marks(alone))


def coupling_curves(groups: list[Group]) -> list[Figure]:
    """What a phase changed of every probed quantity, by interval, for every group."""
    found = {name: rows[0][0].upper() for one in groups for run in one.runs for name, rows in probes(run).items()}
    made = []
    for name, phase in found.items():
        data = [trace for group in groups for trace in _with_band(group, *probe_curve(group.runs, name))]
        words = name.replace("_", " ")
        note = f"After {phase} minus before it, by interval."
        made.append(figure(f"{phase}'s change of {words}", note, data, "interval", "change", showlegend=True))
    return made


def _with_band(group: Group, steps: list[int], means: list[float], bands: list[Any]) -> list[dict[str, Any]]:
    """The traces of a group's curve: the band where there is one, then the mean; none without a value."""
    if not steps:
        return []
    data: list[dict[str, Any]] = []
    banded = [(step, band) for step, band in zip(steps, bands, strict=True) if band is not None]
    if banded:
        x = [step for step, _ in banded]
        y = [high for _, (_, high) in banded] + [low for _, (low, _) in banded][::-1]
        area = {"fill": "toself", "fillcolor": group.color + "26", "line": {"width": 0}, "hoverinfo": "skip"}
        data.append({"type": "scatter", "mode": "lines", "x": x + x[::-1], "y": y, "showlegend": False} | area)
    label = f"{group.label} (n={len(group.runs)})" if len(group.runs) > 1 else group.label
    mode = {"mode": "lines"} if len(steps) > 2 else {"mode": "lines+markers", "marker": {"size": 8}}
    return [*data, _line(label, steps, means, group.color) | mode]


def accuracy(run: Run) -> Figure:
    """Accuracy of the rollouts, reward and validation by step, the SFT phases marked."""
    steps = [line["step"] for line in run.rl]
    data = [_line("rollout accuracy", steps, [line["accuracy"] for line in run.rl], RL_BLUE)]
    rewards = [line["reward"] for line in run.rl]
    if rewards != [line["accuracy"] for line in run.rl]:
        data.append(_line("reward", steps, rewards, "#93c5fd", dash="dot"))
    validated = [line for line in run.rl if mean_of(line.get("validation")) is not None]
    if validated:
        points = [(line["step"], line["validation"]["mean"]) for line in validated]
        start = mean_of((run.files.summary or {}).get("accuracy_start"))
        points = [(0, start), *points] if start is not None else points
        data.append(
            _line("validation", [x for x, _ in points], [y for _, y in points], INK)
            | {"mode": "lines+markers", "marker": {"size": 7}}
        )
    data.append(_mark_legend())
    note = "Orange lines: an SFT phase follows the RL of this step."
    if rewards == [line["accuracy"] for line in run.rl]:
        note += " The mean reward is the accuracy here: a reward is 1 or 0."
    return figure("Accuracy and reward", note, data, "step", "share correct", shapes=_sft_marks(run))


def buffer(run: Run) -> Figure:
    """How the buffer fills, and S."""
    steps, sizes = [line["step"] for line in run.rl], [line["buffer_size"] for line in run.rl]
    phases = {phase[0]["step"] for phase in run.phases()}
    data: list[Any] = []
    for name, color, sft in (("RL goes on", "#93c5fd", False), ("SFT follows", SFT_ORANGE, True)):
        own = [place for place, step in enumerate(steps) if (step in phases) == sft]
        bars = {"x": [steps[place] for place in own], "y": [sizes[place] for place in own]}
        data.append({"type": "bar", "name": name, "width": 0.85, "marker": {"color": color}} | bars)
    size = run.config["mifo"]["schedule"].get("size")
    if size and steps:
        data.append(_line(f"S = {size}", [steps[0] - 0.5, steps[-1] + 0.5], [size, size], INK, dash="dash"))
    note = "After the RL of each step; SFT trains on it and empties it."
    return figure("Buffer", note, data, "step", "hard prompts", barmode="overlay")


def coupling(run: Run) -> list[Figure]:
    """Every probed quantity just before and just after a phase: what one objective costs the other."""
    made = []
    for name, rows in probes(run).items():
        phase, color = rows[0][0].upper(), SFT_ORANGE if rows[0][0] == "sft" else RL_BLUE
        x = [value for _, interval, _, _ in rows for value in (interval, interval, None)]
        y = [value for _, _, before, after in rows for value in (before, after, None)]
        intervals = [interval for _, interval, _, _ in rows]
        links = _line("change", x, y, color) | {"showlegend": False, "hoverinfo": "skip"}
        before = _dots(f"before {phase}", intervals, [row[2] for row in rows], color, "circle-open")
        after = _dots(f"after {phase}", intervals, [row[3] for row in rows], color, "circle")
        title = f"{name.replace('_', ' ').capitalize()} around {phase}"
        note = f"One pair an interval, measured just before and just after its {phase} phase."
        made.append(
            figure(
                title, note, [links, before, after], "interval", name.replace("_", " "), xaxis=whole_numbers(intervals)
            )
        )
    return made


def stages(run: Run) -> Figure:
    """Seconds by stage of every step, stacked, the SFT phase among them."""
    table: dict[str, dict[int, float]] = {}
    for line in run.rl:
        for stage, seconds in step_seconds(line).items():
            table.setdefault(stage, {})[line["step"]] = seconds
    for line in run.sft:
        own = table.setdefault("sft", {})
        own[line["step"]] = own.get(line["step"], 0.0) + line["seconds"]["sft"]
    order = sorted(table, key=lambda stage: -sum(table[stage].values()))
    data = [
        {
            "type": "bar",
            "name": f"{stage.replace('_', ' ')} {sum(table[stage].values()):,.1f} s",
            "x": list(table[stage]),
            "y": list(table[stage].values()),
        }
        | {"marker": {"color": SFT_ORANGE if stage == "sft" else _STAGE_COLORS[place % len(_STAGE_COLORS)]}}
        for place, stage in enumerate(order)
    ]
    note = "The legend gives each stage's sum over the run."
    return figure("Seconds by stage", note, data, "step", "seconds", wide=True, barmode="stack", bargap=0.1, height=400)


def memory(run: Run) -> Figure | None:
    """Memory of the first rank's device and of its host by step; None where the run recorded none."""
    names = {
        "device_allocated": "device, peak allocated",
        "device_reserved": "device, peak reserved",
        "host_used": "host",
    }
    data = []
    for name, label in names.items():
        points = [(line["step"], value) for line in run.rl if (value := (line.get("memory_gb") or {}).get(name))]
        if points:
            data.append({"type": "scatter", "mode": "lines", "name": label} | _xy(points))
    if not data:
        return None
    return figure(
        "Memory", "What verl measures after an actor update.", data, "step", "GiB", yaxis={"rangemode": "tozero"}
    )


def losses(run: Run) -> list[Figure]:
    """Loss and gradient norm of the SFT updates."""
    made = []
    for name, title, y in (("loss", "SFT loss", "loss"), ("grad_norm", "SFT gradient norm", "norm after the mask")):
        places = list(range(1, len(run.sft) + 1))
        starts = [place for place, line in zip(places, run.sft, strict=True) if line["update"] == 1]
        shapes = [_vertical(start - 0.5, GREY) for start in starts[1:]]
        line = _line(title, places, [line[name] for line in run.sft], SFT_ORANGE) | {"mode": "lines+markers"}
        line["text"] = [f"interval {line['interval']}, update {line['update']}" for line in run.sft]
        made.append(
            figure(title, "Grey lines: a new interval.", [line], "SFT update", y, shapes=shapes, showlegend=False)
        )
    return made if run.sft else []


def whole_numbers(x: list[int]) -> dict[str, Any]:
    """An axis of intervals without fractions between them."""
    return {"dtick": 1} if len(set(x)) < 12 else {}


def _line(name: str, x: list[Any], y: list[Any], color: str, dash: str = "solid") -> dict[str, Any]:
    style = {"color": color, "dash": dash, "width": 2}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": style}


def _dots(name: str, x: list[int], y: list[float], color: str, symbol: str) -> dict[str, Any]:
    marker = {"color": color, "symbol": symbol, "size": 10, "line": {"width": 2, "color": color}}
    return {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": marker}


def _xy(points: list[tuple[int, float]]) -> dict[str, list[Any]]:
    return {"x": [x for x, _ in points], "y": [y for _, y in points]}


def _sft_marks(run: Run | None) -> list[dict[str, Any]]:
    """A vertical line at the step of every SFT phase."""
    return [] if run is None else [_vertical(phase[0]["step"], SFT_ORANGE + "99") for phase in run.phases()]


def _vertical(x: float, color: str) -> dict[str, Any]:
    line = {"color": color, "width": 1.5}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line}


def _mark_legend() -> dict[str, Any]:
    """An entry of the legend for the marks, which Plotly lists none for."""
    return _line("SFT phase", [None], [None], SFT_ORANGE)
