"""The curves that several runs share: means over the seeds of a method, with their bands."""

from typing import Any

from mifo_verl.tools.report.figures import Figure, figure, sft_marks, stroke
from mifo_verl.tools.report.groups import Curve, Group, curve, probe_curve
from mifo_verl.tools.report.run import probes


def curves(groups: list[Group], name: str, title: str, note: str, y: str) -> Figure | None:
    """One number of the RL records by step: the mean of every group with its band, SFT phases marked for one run."""
    data = [trace for group in groups for trace in _with_band(group, curve(group.runs, name))]
    if not data:
        return None
    alone = groups[0].runs[0] if len(groups) == 1 and len(groups[0].runs) == 1 else None
    return figure(title, note, data, "step", y, showlegend=alone is None, shapes=sft_marks(alone))


def coupling_curves(groups: list[Group]) -> list[Figure]:
    """What a phase changed of every probed quantity, by interval, for every group."""
    found = dict.fromkeys(key for one in groups for run in one.runs for key in probes(run))
    made = []
    for phase, name in found:
        data = [trace for group in groups for trace in _with_band(group, probe_curve(group.runs, phase, name))]
        words = name.replace("_", " ")
        note = f"After {phase.upper()} minus before it, by interval."
        made.append(figure(f"{phase.upper()}'s change of {words}", note, data, "interval", "change", showlegend=True))
    return made


def _with_band(group: Group, drawn: Curve) -> list[dict[str, Any]]:
    """The traces of a group's curve: the band where there is one, then the mean; none without a value."""
    if not drawn.at:
        return []
    data: list[dict[str, Any]] = []
    banded = [(step, band) for step, band in zip(drawn.at, drawn.bands, strict=True) if band is not None]
    if banded:
        x = [step for step, _ in banded]
        y = [high for _, (_, high) in banded] + [low for _, (low, _) in banded][::-1]
        area = {"fill": "toself", "fillcolor": group.color + "26", "line": {"width": 0}, "hoverinfo": "skip"}
        data.append({"type": "scatter", "mode": "lines", "x": x + x[::-1], "y": y, "showlegend": False} | area)
    few, most = min(drawn.counts), max(drawn.counts)
    label = f"{group.label} (n={few if few == most else f'{few}–{most}'})" if len(group.runs) > 1 else group.label
    mode = {"mode": "lines"} if len(drawn.at) > 2 else {"mode": "lines+markers", "marker": {"size": 8}}
    return [*data, stroke(label, drawn.at, drawn.means, group.color, group.dash) | mode]
