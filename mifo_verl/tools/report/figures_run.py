"""The figures of how one run went: its phases, its accuracy, its buffer, what each phase cost."""

from typing import Any

from mifo_verl.probes.coupling import KL
from mifo_verl.tools.report.figures import (
    GREY,
    INK,
    RL_BLUE,
    SFT_ORANGE,
    Figure,
    dots,
    figure,
    mark_legend,
    sft_marks,
    stroke,
    whole_numbers,
)
from mifo_verl.tools.report.run import Run, probes, split_seconds


def timeline(run: Run) -> Figure:
    """RL, SFT and what is beside them, by the seconds of the records."""
    blocks: dict[str, list[tuple[float, float, str]]] = {"RL": [], "beside": [], "SFT": []}
    updates: dict[int, list[dict[str, Any]]] = {}
    for line in run.sft:
        updates.setdefault(line["step"], []).append(line)
    at = 0.0
    rl = {line["step"]: line for line in run.rl}
    for step in sorted({*rl, *updates}):
        own, beside = split_seconds(rl[step]) if step in rl else (0.0, 0.0)
        sft_split = [split_seconds(line) for line in updates.get(step, [])]
        sft, beside = sum(one for one, _ in sft_split), beside + sum(other for _, other in sft_split)
        where = f"step {step}"
        for name, seconds in (("RL", own), ("SFT", sft), ("beside", beside)):
            if seconds:
                blocks[name].append((at, seconds, where + (f", {len(updates[step])} updates" if name == "SFT" else "")))
                at += seconds
    colors = {"RL": RL_BLUE, "SFT": SFT_ORANGE, "beside": GREY}
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
    note = "Every step in turn. Beside the phases: probes, validation, weight sync, checkpoints."
    axes = {"yaxis": {"showticklabels": False, "showgrid": False}, "xaxis": {"range": [0, at]}}
    return figure("Phases", note, data, "seconds", "", wide=True, barmode="overlay", height=190, **axes)


def accuracy(run: Run) -> Figure:
    """Accuracy of the rollouts, reward and validation by step, the SFT phases marked."""
    steps = [line["step"] for line in run.rl]
    data = [stroke("rollout accuracy", steps, [line["accuracy"] for line in run.rl], RL_BLUE)]
    rewards = [line["reward"] for line in run.rl]
    if rewards != [line["accuracy"] for line in run.rl]:
        data.append(stroke("reward", steps, rewards, "#93c5fd", dash="dot"))
    if points := run.validations():
        data.append(
            stroke("validation", [x for x, _ in points], [y for _, y in points], INK)
            | {"mode": "lines+markers", "marker": {"size": 7}}
        )
    data.append(mark_legend())
    note = "Orange lines: an SFT phase follows the RL of this step."
    if rewards == [line["accuracy"] for line in run.rl]:
        note += " The mean reward is the accuracy here: a reward is 1 or 0."
    return figure("Accuracy and reward", note, data, "step", "share correct", shapes=sft_marks(run))


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
        data.append(stroke(f"S = {size}", [steps[0] - 0.5, steps[-1] + 0.5], [size, size], INK, dash="dash"))
    note = "After the RL of each step; SFT trains on it and empties it."
    return figure("Buffer", note, data, "step", "hard prompts", barmode="overlay")


def coupling(run: Run) -> list[Figure]:
    """Every probed quantity just before and just after a phase: what one objective costs the other."""
    made = []
    for (kind, name), rows in probes(run).items():
        phase, color = kind.upper(), SFT_ORANGE if kind == "sft" else RL_BLUE
        x = [value for interval, _, _ in rows for value in (interval, interval, None)]
        y = [value for _, before, after in rows for value in (before, after, None)]
        intervals = [interval for interval, _, _ in rows]
        links = stroke("change", x, y, color) | {"showlegend": False, "hoverinfo": "skip"}
        before = dots(f"before {phase}", intervals, [row[1] for row in rows], color, "circle-open")
        after = dots(f"after {phase}", intervals, [row[2] for row in rows], color, "circle")
        title = f"{name.replace('_', ' ').capitalize()} around {phase}"
        note = f"One pair an interval, measured just before and just after its {phase} phase."
        made.append(
            figure(
                title, note, [links, before, after], "interval", name.replace("_", " "), xaxis=whole_numbers(intervals)
            )
        )
    return made


def shift(run: Run) -> Figure | None:
    """How far every SFT phase moved the policy on the rollouts made before it."""
    points = [(line["interval"], line[KL]) for line in run.sft if line.get(KL) is not None]
    if not points:
        return None
    intervals, values = [x for x, _ in points], [y for _, y in points]
    note = "KL(after‖before) of the next token, mean over the policy's own answers from before the phase."
    data = [stroke("KL", intervals, values, SFT_ORANGE) | {"mode": "lines+markers", "marker": {"size": 8}}]
    return figure("How far SFT moved the policy", note, data, "interval", "nats", xaxis=whole_numbers(intervals))
