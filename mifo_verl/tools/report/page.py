"""The page: words first, then figures and tables; plotly.js, styles and data inside, so that it needs no network.

plotly.js comes from the installed plotly package, compressed; the browser unpacks it (DecompressionStream, in every
browser since 2023).
"""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mifo_verl.probes.coupling import coupling
from mifo_verl.run.flatten import flatten
from mifo_verl.run.journal import CONFIG, only_finite
from mifo_verl.tools.parts import described
from mifo_verl.tools.report import figures as how
from mifo_verl.tools.report import rows
from mifo_verl.tools.report.figures import RL_BLUE, Figure
from mifo_verl.tools.report.figures_inspected import mask_figures, token_figures
from mifo_verl.tools.report.groups import Group, group
from mifo_verl.tools.report.numbers import numbers
from mifo_verl.tools.report.run import Run

_HERE = Path(__file__).parent
_DETAILED = 6
"""Runs of a comparison that get figures of their own; the rest is in the overlaid curves and the table."""
_MOST_EXAMPLES = 4
_SIGNALS = (
    ("accuracy", "Rollout accuracy", "", "share correct"),
    ("reward", "Reward", "", "mean reward"),
    ("validation", "Validation accuracy", "", "share correct"),
    ("buffer_size", "Buffer", "", "hard prompts"),
    ("entropy", "Entropy", "Of the policy on its own rollouts, mean over tokens.", "nats"),
    ("kl_to_start", "KL to the interval's start", "On the rollouts, mean over tokens.", "nats"),
    ("response_length", "Response length", "", "tokens"),
    ("grad_norm", "RL gradient norm", "Before the clip.", "norm"),
    ("prefix_tokens", "Tokens given", "Tokens of demonstrations that rollouts began with.", "tokens"),
    (
        "members",
        "Members from demonstrations",
        "Whole demonstrations beside the rollouts of their question.",
        "members",
    ),
)


class _Cards:
    """Collects the figures that the page refers to by number."""

    def __init__(self) -> None:
        self.figures: list[dict[str, Any]] = []

    def add(self, *figures: Figure | None) -> list[dict[str, Any]]:
        """The cards of figures, each with its number."""
        cards = []
        for one in figures:
            if one is None:
                continue
            cards.append(
                {"title": one.title, "note": one.note, "wide": one.wide, "height": one.layout.get("height", 300)}
                | {"number": len(self.figures)}
            )
            self.figures.append({"data": one.data, "layout": one.layout})
        return cards

    def json(self) -> Markup:
        """For a script element of the page."""
        text = json.dumps(only_finite(_plain(self.figures)), separators=(",", ":"), allow_nan=False)
        return Markup(text.replace("</", "<\\/"))


def render(runs: list[Run], first: Mapping[str, Sequence[Figure]] | None = None, missing: Sequence[str] = ()) -> str:
    """The HTML of a report. Deterministic: it depends on the files of the runs alone.

    ``first``: sections of figures that come before all others, by their titles; ``missing``: arms of a sweep that have
    no run here.
    """
    cards = _Cards()
    begins = {heading: cards.add(*figures) for heading, figures in (first or {}).items()}
    if len(runs) == 1:
        found: dict[str, Any] = {"title": runs[0].label, "groups": [], "views": [_view(runs[0], cards, True)]}
    else:
        found = {"title": f"{len(runs)} runs", "missing": missing} | _several(runs, cards)
    page = _environment().get_template("page.html")
    return page.render(found, first=begins, figures=cards.json(), library=_library()) + "\n"


@dataclass(frozen=True)
class Section:
    """A part of a page: words, then a table, then figures."""

    heading: str
    words: Sequence[str] = ()
    table: Any = None
    """A data frame of cells."""
    figures: Sequence[Figure] = ()


def render_sections(title: str, sections: Sequence[Section]) -> str:
    """The HTML of a page that is no report of runs."""
    cards = _Cards()
    shown = [(one, cards.add(*one.figures)) for one in sections]
    page = _environment().get_template("page.html")
    return page.render(title=title, sections=shown, first={}, figures=cards.json(), library=_library()) + "\n"


def _view(run: Run, cards: _Cards, has_signals: bool) -> dict[str, Any]:
    """What the template of one run reads; ``has_signals``: with the curves that a comparison overlays."""
    n = numbers(run)
    if n["accuracy_start"] is not None and n["accuracy_end"] is not None:
        n["accuracy_change"] = n["accuracy_end"] - n["accuracy_start"]
    alone = [Group(run.label, RL_BLUE, "solid", [run])]
    signals = [how.curves(alone, *signal) for signal in _SIGNALS[4:]] if has_signals else []
    examples = [(interval, tokens["examples"]) for interval, tokens in run.tokens if tokens["examples"]]
    found = coupling(run.rl + run.sft)
    settings = list(rows.settings(run))
    return {
        "run": run,
        "n": n,
        "show": lambda name, form=",d": rows.shown(name, n.get(name), form),
        "planned": run.config["trainer"].get("total_training_steps"),
        "follows_rl": set(run.sft_steps) <= {line["step"] for line in run.rl},
        "buffers": [phase[0]["buffer_size"] for phase in run.phases],
        "of_hard_prompts": all(use["num_rollouts"] is not None for use in run.files.in_loss) and not n["members"],
        "described": described(run.config),
        "kinds": rows.kinds(run),
        "phases": [rows.phase(lines) for lines in run.phases],
        "coupling": found,
        "coupling_head": ("interval", *(title for _, title, *_ in rows.COUPLING)),
        "coupling_rows": rows.couplings(found),
        "examples": [(at, one) for at, own in examples[:1] + examples[1:][-1:] for one in own][:_MOST_EXAMPLES],
        "questions": rows.questions(run),
        "data": rows.account(run, n),
        "settings": settings,
        "num_different": sum("<mark>" in row[2] for row in settings),
        "config": (run.files.folder / CONFIG).read_text(errors="replace"),
        "cards": {
            "phases": cards.add(how.timeline(run)),
            "progress": cards.add(how.accuracy(run), how.buffer(run)),
            "coupling": cards.add(*how.coupling(run), how.shift(run)),
            "masks": cards.add(*mask_figures(run)),
            "tokens": cards.add(*token_figures(run)),
            "signals": cards.add(
                *signals, *([how.mixing(run)] if has_signals else []), *how.policies(run), *how.losses(run)
            ),
            "cost": cards.add(how.stages(run), how.memory(run)),
        },
    }


def _several(runs: list[Run], cards: _Cards) -> dict[str, Any]:
    """What the template of a comparison reads."""
    groups = group(runs)
    configs = [flatten(run.config) for run in runs]
    keys = sorted({key for one in configs for key in one if len({str(other.get(key)) for other in configs}) > 1})
    return {
        "num_runs": len(runs),
        "groups": groups,
        "unfinished": [run.label for run in runs if not run.is_finished],
        "comparison_head": ("method", "runs", *(title for title, _, _ in rows.COMPARED)),
        "comparison": [rows.compared(place, one) for place, one in enumerate(groups)],
        "overlaid": cards.add(*(how.curves(groups, *signal) for signal in _SIGNALS), *how.coupling_curves(groups)),
        "differences_head": ("setting", *(run.label for run in runs)),
        "differences": [(key, *(one.get(key, "–") for one in configs)) for key in keys],
        "views": [_view(run, cards, False) for run in runs[:_DETAILED]],
    }


def _plain(value: Any) -> Any:
    """Arrays as lists, and numpy's numbers as Python's."""
    if isinstance(value, dict):
        return {key: _plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    return value.tolist() if hasattr(value, "tolist") else value


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=lambda name: bool(name) and not str(name).endswith((".css", ".js")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"shown": rows.shown, "zip": partial(zip, strict=True)}
    return made


@cache
def _library() -> str:
    """plotly.js, gzip and base64; the same bytes every time."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), compresslevel=9, mtime=0)).decode()
