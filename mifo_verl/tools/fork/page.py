"""What came out of a fork: ``fork.md`` and ``fork.html`` for people, ``fork.csv`` with every point of every arm."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mifo_verl.tools.fork.definition import Bed, Definition
from mifo_verl.tools.fork.numbers import (
    FEWEST,
    NUMBERS,
    Point,
    Test,
    at_gain,
    curve_of,
    most,
    planned_tests,
    predictions,
)
from mifo_verl.tools.fork.records import read_arm
from mifo_verl.tools.report.figures import Figure, Trace, card, line
from mifo_verl.tools.report.groups import COLORS, DASHES
from mifo_verl.tools.report.page import Section, render_sections
from mifo_verl.tools.statistics import Interval, t_interval
from mifo_verl.tools.tables import MISSING, markdown, print_frame

Curves = dict[str, dict[str, list[Point]]]
"""By arm and checkpoint."""
_SHARES = ("gain", "lost", "lost_prompts", "won_prompts")
_GRID = 20
"""Places of a curve at which its arms are averaged."""
_PREDICTION = "What tells how much is lost: rank correlation over all points of a checkpoint (exploratory)"
_RULES = (
    "An arm is told where it has gained {gain:.0%} of the questions that its demonstrations teach, by linear interpolation "
    "between two measurements; an arm that has not gained so much has no number there. A planned test compares two arms, "
    "checkpoint by checkpoint, at this gain or at the most that both reach; if that is below {fewest:.0%} of it, the "
    "checkpoint is left out. ± and the brackets are 95 % intervals over checkpoints (Student's t). A test is claimed if "
    "its p among all planned ones (Holm) is at most 0.05; everything else is exploratory."
)


def write_page(out: Path, definition: Definition, bed: Bed, command: str) -> None:
    """Write the three files from the records of ``out``, and print the table. Raises ValueError on a broken record."""
    curves, start = read_curves(out, list(definition.arms)), _at_start(out, list(definition.arms))
    table, tests = arms_table(curves, bed.gain), planned_tests(curves, definition.pairs, bed.gain, bed.number)
    planned, rules = tests_table(tests), start + _RULES.format(gain=bed.gain, fewest=FEWEST)
    (out / "fork.csv").write_text(points_of(curves).to_csv(index=False, lineterminator="\n"))
    heading = f"Planned tests in {NUMBERS[bed.number]}"
    text = f"# {definition.title}\n\n```bash\n{command}\n```\n\n{rules}\n\n## Arms\n\n{markdown(table)}"
    tables = {heading: planned} if tests else {}
    tables |= {_PREDICTION: predictions_table(found)} if (found := predictions(curves)) else {}
    (out / "fork.md").write_text(text + "".join(f"\n## {name}\n\n{markdown(made)}" for name, made in tables.items()))
    sections = [Section("The frontier", [rules], figures=[frontier(curves, bed.number)]), Section("Arms", table=table)]
    sections += [Section(name, table=made) for name, made in tables.items()]
    (out / "fork.html").write_text(render_sections(definition.title, sections))
    print_frame(table, definition.title)
    for name, made in tables.items():
        print_frame(made, name)


def _at_start(out: Path, arms: Sequence[str]) -> str:
    """What the checkpoints could before the phase."""
    files = {file.parent.name: file for arm in arms for file in sorted(out.glob(f"*/{arm}.jsonl"))}
    firsts = {checkpoint: read_arm(file).measured[0] for checkpoint, file in files.items()}
    own, gained = (
        _cell([sum(answers) / len(answers) for one in firsts.values() if (answers := getattr(one, name))], "gain")
        for name in ("own", "gained")
    )
    return f"Before the phase {own} % of the questions of the skill they had are right, of those that are taught {gained} %. "


def read_curves(out: Path, arms: Sequence[str]) -> Curves:
    """The curves of the arms' records, in the order of the arms file."""
    found: Curves = {}
    for arm in arms:
        for file in sorted(out.glob(f"*/{arm}.jsonl")):
            found.setdefault(arm, {})[file.parent.name] = curve_of(read_arm(file).measured)
    return found


def arms_table(curves: Curves, gain: float) -> pd.DataFrame:
    """A row for every arm: its numbers at a gain, means over the checkpoints that reach it."""
    rows = []
    for arm, own in curves.items():
        reached = [point for curve in own.values() if (point := at_gain(curve, gain)) is not None]
        row = {"arm": arm, f"reach {gain:.0%}": f"{len(reached)} of {len(own)}"}
        row |= {"largest gain": _cell([most(curve) for curve in own.values()], "gain")}
        row |= {"lost at the end": _cell([curve[-1]["lost"] for curve in own.values()], "lost")}
        row |= {name.replace("_", " "): _cell([one[name] for one in reached if name in one], name) for name in NUMBERS}
        rows.append(row)
    return pd.DataFrame(rows)


def _cell(values: Sequence[float], name: str) -> str:
    """The mean, and half of its interval; shares in points."""
    if not values:
        return MISSING
    is_share = name in _SHARES
    found = t_interval(values).scaled(100 if is_share else 1)
    form = ".1f" if is_share or name == "update" else ".3g"
    return f"{found.mean:{form}}" + ("" if found.half_width is None else f" ± {found.half_width:{form}}")


def tests_table(tests: Sequence[Test]) -> pd.DataFrame:
    """A row for every planned test."""
    rows = []
    for one in tests:
        row = {"pair": f"{one.first} − {one.second}", "difference": MISSING, "95 %": MISSING}
        if one.paired is not None:
            value = one.paired.scaled(100 if one.number in _SHARES else 1)
            row["difference"] = f"{value.mean:+.3g}" + (" points" if one.number in _SHARES else "")
            row["95 %"] = MISSING if value.low is None else f"[{value.low:+.3g}, {value.high:+.3g}]"
        count = 0 if one.paired is None else one.paired.num_values
        row |= {"checkpoints": str(count), "lowered": str(one.lowered), "left out": str(one.left_out)}
        row |= {"p": f"{one.p:.2g}", "p (Holm)": f"{one.p_holm:.2g}"}
        rows.append(row | {"claim": _claim(one)})
    return pd.DataFrame(rows)


def predictions_table(found: Mapping[str, Interval]) -> pd.DataFrame:
    """A row for every number that may tell what is lost."""
    rows = []
    for name, one in found.items():
        bounds = MISSING if one.low is None else f"[{one.low:+.2f}, {one.high:+.2f}]"
        row = {"number": name.replace("_", " "), "rank correlation": f"{one.mean:+.2f}", "95 %": bounds}
        rows.append(row | {"checkpoints": str(one.num_values)})
    return pd.DataFrame(rows)


def _claim(test: Test) -> str:
    if test.p_holm > 0.05 or test.paired is None:
        return "none"
    return "higher" if test.paired.mean > 0 else "lower"


def points_of(curves: Curves) -> pd.DataFrame:
    """Every measurement of every arm: arm, checkpoint, gain and the numbers; shares in [0, 1]."""
    rows = [
        {"arm": arm, "checkpoint": checkpoint} | point
        for arm, own in curves.items()
        for checkpoint, curve in own.items()
        for point in curve
    ]
    return pd.DataFrame(rows)


def frontier(curves: Mapping[str, Mapping[str, Sequence[Point]]], number: str = "lost") -> Figure:
    """This number of an arm by what it has gained: the mean over the checkpoints with its band, KL as colour.

    A curve ends where the first of its checkpoints gains no more.
    """
    bands: list[Trace] = []
    means: list[Trace] = []
    drawn, scale = [], 100 if number in _SHARES else 1
    for place, (arm, own) in enumerate(curves.items()):
        end = min(map(most, own.values()))
        gains = [end * number / _GRID for number in range(_GRID + 1)] if end > 0 else [0.0]
        reached = [[at_gain(curve, gain) for curve in own.values()] for gain in gains]
        found = [[point for point in each if point is not None] for each in reached]
        lost = [t_interval([point[number] for point in each]).scaled(scale) for each in found]
        kl = [sum(point["kl"] for point in each) / len(each) for each in found]
        x, color = [100 * gain for gain in gains], COLORS[place % len(COLORS)]
        if all(one.low is not None for one in lost):
            band = [*(one.high for one in lost), *(one.low for one in reversed(lost))]
            look: dict[str, Any] = {"fill": "toself", "fillcolor": color + "1f", "line": {"width": 0}}
            look |= {"hoverinfo": "skip", "showlegend": False, "legendgroup": arm}
            bands.append(line("", [*x, *x[::-1]], band, mode="lines", **look))
        drawn.append((arm, x, [one.mean for one in lost], kl, color))
    highest = max((value for *_, kl, _ in drawn for value in kl), default=0.0)
    for place, (arm, x, y, kl, color) in enumerate(drawn):
        marker = {"color": kl, "cmin": 0, "cmax": highest, "colorscale": "Viridis", "size": 8, "showscale": place == 0}
        marker |= {"colorbar": {"title": {"text": "KL, nats"}}, "line": {"width": 1, "color": color}}
        look = {"marker": marker, "legendgroup": arm}
        look |= {"line": {"width": 2, "dash": DASHES[place // len(COLORS) % len(DASHES)]}}
        look |= {"hovertemplate": "gain %{x:.1f}, " + number.replace("_", " ") + " %{y:.1f}, KL %{marker.color:.3f}"}
        means.append(line(arm, x, y, color, "lines+markers", **look))
    way = "To the lower right: more gained, less lost. " if number in ("lost", "lost_prompts") else ""
    note = f"{way}The band is the 95 % interval of the mean over checkpoints."
    return card(
        "What was lost for what was gained",
        note,
        bands + means,
        "gained, points",
        f"{NUMBERS[number]}, points" if number in _SHARES else NUMBERS[number],
        wide=True,
        height=560,
    )
