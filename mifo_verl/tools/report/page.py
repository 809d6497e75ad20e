"""The page: words first, then figures and tables; plotly.js, styles and data inside, so that it needs no network.

plotly.js comes from the installed plotly package, compressed; the browser unpacks it (DecompressionStream, in every
browser since 2023).
"""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path

from plotly.offline import get_plotlyjs

from mifo_verl.run.journal import only_finite
from mifo_verl.tools.report import figures_cost as cost
from mifo_verl.tools.report import figures_run as how
from mifo_verl.tools.report import tables
from mifo_verl.tools.report.figures import RL_BLUE, Figure
from mifo_verl.tools.report.figures_curves import coupling_curves, curves
from mifo_verl.tools.report.figures_mask import mask_figures
from mifo_verl.tools.report.figures_tokens import examples, token_figures
from mifo_verl.tools.report.groups import Group, group
from mifo_verl.tools.report.numbers import numbers
from mifo_verl.tools.report.run import Run
from mifo_verl.tools.report.words import shown, words

_HERE = Path(__file__).parent
_DETAILED = 6
"""Runs of a comparison that get figures of their own; the rest is in the overlaid curves and the table."""
_SIGNALS = (
    ("accuracy", "Rollout accuracy", "", "share correct"),
    ("reward", "Reward", "", "mean reward"),
    ("validation", "Validation accuracy", "", "share correct"),
    ("buffer_size", "Buffer", "", "hard prompts"),
    ("entropy", "Entropy", "Of the policy on its own rollouts, mean over tokens.", "nats"),
    ("kl_to_start", "KL to the interval's start", "On the rollouts, mean over tokens.", "nats"),
    ("response_length", "Response length", "", "tokens"),
    ("grad_norm", "RL gradient norm", "Before the clip.", "norm"),
)


class _Page:
    """Collects the figures that the HTML refers to."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def draw(self, *made: Figure | None) -> str:
        """The places of figures, in a grid."""
        cards = []
        for one in made:
            if one is None:
                continue
            self.figures.append({"data": one["data"], "layout": one["layout"]})
            note = f"<p>{escape(one['note'])}</p>" if one["note"] else ""
            height = one["layout"].get("height", 300)
            wide = " wide" if one["wide"] else ""
            cards.append(
                f'<figure class="card{wide}"><figcaption><h3>{escape(one["title"])}</h3>{note}</figcaption>'
                f'<div class="plot" style="height:{height}px" data-figure="{len(self.figures) - 1}"></div></figure>'
            )
        return f'<div class="grid">{"".join(cards)}</div>' if cards else ""


def render(runs: list[Run], first: Mapping[str, Sequence[Figure]] | None = None) -> str:
    """The HTML of a report. Deterministic: it depends on the files of the runs alone.

    ``first``: sections of figures that come before all others, by their titles.
    """
    page = _Page()
    body = "".join(_section(heading, page.draw(*figures)) for heading, figures in (first or {}).items())
    body += _one(page, runs[0], signals=True) if len(runs) == 1 else _several(page, runs)
    title = runs[0].label if len(runs) == 1 else f"{len(runs)} runs"
    data = json.dumps(only_finite(page.figures), separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)} – mifo_verl</title><style>{_file('page.css')}</style></head><body>"
        f"<header><p>mifo_verl report</p><h1>{escape(title)}</h1></header><main>{body}</main>"
        f'<script type="application/json" id="figures">{data}</script>'
        f'<script type="text/plain" id="library">{_library()}</script>'
        f"<script>{_file('page.js')}</script></body></html>\n"
    )


def _one(page: _Page, run: Run, signals: bool) -> str:
    """Everything about one run; ``signals`` are the curves that a comparison overlays."""
    alone = [Group(run.label, RL_BLUE, "solid", [run])]
    known = [curves(alone, *signal) for signal in _SIGNALS[4:]] if signals else []
    parts = [
        _summary(run),
        page.draw(how.timeline(run)),
        page.draw(how.accuracy(run), how.buffer(run)),
        _section("SFT phases", tables.phases(run)),
        _section(
            "What one objective cost the other", tables.couplings(run) + page.draw(*how.coupling(run), how.shift(run))
        ),
        _section("What was frozen", page.draw(*mask_figures(run)) or _absent("mifo.inspect.mask")),
        _section("Which tokens were kept", page.draw(*token_figures(run)) or _absent("mifo.inspect.tokens")),
        _section("Demonstrations, as they were trained on", _examples(run)),
        _section("Signals", page.draw(*known, *cost.losses(run))),
        _section("Time and memory", page.draw(cost.stages(run), cost.memory(run))),
        _section("Data", tables.data(run)),
        _section("Settings", tables.settings(run) + tables.config(run)),
        _section("Versions", tables.versions(run)),
    ]
    return "".join(parts)


def _several(page: _Page, runs: list[Run]) -> str:
    groups = group(runs)
    label = ", ".join(f"{escape(one.label)} ({len(one.runs)})" for one in groups)
    text = (
        f"<p>{len(runs)} runs of {len(groups)} methods: {label}. ± and the bands are 95 % intervals of the mean over "
        "seeds (Student's t); a method is a config without its seed. (n=...) is how many runs have a value there.</p>"
    )
    if unfinished := ", ".join(escape(run.label) for run in runs if not run.is_finished):
        text += f"<p>Not finished, and in the curves alone: {unfinished}.</p>"
    overlaid = page.draw(*(curves(groups, *signal) for signal in _SIGNALS), *coupling_curves(groups))
    details = "".join(_folded(page, run) for run in runs[:_DETAILED])
    rest = len(runs) - _DETAILED
    more = f"<p>Figures of the {rest} other runs: give them to the command alone.</p>" if rest > 0 else ""
    return (
        _section("Methods", text + tables.comparison(groups))
        + _section("Curves", overlaid)
        + _section("Where the settings differ", tables.differences(runs))
        + _section("Runs", details + more)
    )


def _folded(page: _Page, run: Run) -> str:
    return f"<details class='run'><summary>{escape(run.label)}</summary>{_one(page, run, signals=False)}</details>"


def _summary(run: Run) -> str:
    found = numbers(run)
    cards = (
        ("validation accuracy at the end" if run.is_finished else "last validation accuracy", "accuracy_end", ".3f"),
        ("SFT phases", "sft_phases", ",d"),
        ("mean change in an SFT phase", "mean_change", "+.3f"),
        ("of the time in SFT", "sft_time_share", ".1%"),
        ("of the coordinates frozen", "frozen_share", ".1%"),
        ("demonstrations used", "distinct_demonstrations", ",d"),
        ("of their tokens in the loss", "kept_share", ".1%"),
    )
    tiles = "".join(
        f"<div><b>{shown(name, found[name], form)}</b>{text}</div>"
        for text, name, form in cards
        if found.get(name) is not None
    )
    said = "".join(f"<dt>{heading}</dt><dd>{text}</dd>" for heading, text in words(run))
    return f'<section class="summary"><dl>{said}</dl><div class="tiles">{tiles}</div></section>'


def _examples(run: Run) -> str:
    shown_here = examples(run)
    legend = "<p>Marked: tokens in the loss. The darker, the higher the entropy; point at a token for its value.</p>"
    return legend + shown_here if shown_here else _absent("mifo.inspect.examples")


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>" if body else ""


def _absent(setting: str) -> str:
    return f"<p>Nothing was recorded: no SFT phase has ended, or <code>{setting}</code> was off.</p>"


def _file(name: str) -> str:
    return (_HERE / name).read_text()


@cache
def _library() -> str:
    """plotly.js, gzip and base64; the same bytes every time."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), compresslevel=9, mtime=0)).decode()
