"""The figures of what a run cost: seconds by stage, memory, and the updates of SFT."""

from mifo_verl.run.journal import step_seconds
from mifo_verl.tools.report.figures import GREY, SFT_ORANGE, Figure, figure, stroke, vertical, xy
from mifo_verl.tools.report.run import Run

_STAGE_COLORS = ("#1e3a8a", "#2563eb", "#60a5fa", "#94a3b8", "#0f766e", "#5eead4", "#7c3aed", "#c4b5fd", "#475569")


def stages(run: Run) -> Figure:
    """Seconds by stage of every step, stacked, the SFT phase among them."""
    table: dict[str, dict[int, float]] = {}
    for line in run.rl + run.sft:
        for stage, seconds in step_seconds(line).items():
            own = table.setdefault(stage, {})
            own[line["step"]] = own.get(line["step"], 0.0) + seconds
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
        points = [(line["step"], value) for line in run.memory if (value := line.get(name))]
        if points:
            data.append({"type": "scatter", "mode": "lines", "name": label} | xy(points))
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
        shapes = [vertical(start - 0.5, GREY) for start in starts[1:]]
        line = stroke(title, places, [line[name] for line in run.sft], SFT_ORANGE) | {"mode": "lines+markers"}
        line["text"] = [f"interval {line['interval']}, update {line['update']}" for line in run.sft]
        made.append(
            figure(title, "Grey lines: a new interval.", [line], "SFT update", y, shapes=shapes, showlegend=False)
        )
    return made if run.sft else []
