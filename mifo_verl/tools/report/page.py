"""The page: words first, then figures and tables; plotly.js, styles and data inside, so that it needs no network.

plotly.js comes from the installed plotly package, compressed; the browser unpacks it (DecompressionStream, in every
browser since 2023).
"""

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mifo_verl.probes.coupling import change, coupling, mean_of
from mifo_verl.run.flatten import flatten
from mifo_verl.run.journal import CONFIG, only_finite
from mifo_verl.tools.parts import described
from mifo_verl.tools.report import figures as how
from mifo_verl.tools.report.figures import RL_BLUE, Figure
from mifo_verl.tools.report.figures_inspected import mask_figures, token_figures
from mifo_verl.tools.report.groups import FEWEST, Group, group
from mifo_verl.tools.report.numbers import Number, numbers
from mifo_verl.tools.report.run import Run
from mifo_verl.tools.run_files import lookup
from mifo_verl.tools.statistics import t_interval

_HERE = Path(__file__).parent
_DETAILED = 6
"""Runs of a comparison that get figures of their own; the rest is in the overlaid curves and the table."""
_MOST_EXAMPLES = 4
_MOST_QUESTIONS = 8
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
_COUPLING = (
    ("rl_raised_cross_entropy", "RL: CE of demon\u00adstrations", "+.4f", -1),
    ("sft_raised_cross_entropy", "SFT: CE of demon\u00adstrations", "+.4f", -1),
    ("sft_lost_accuracy", "SFT: accuracy lost, held out", "+.3f", -1),
    ("sft_lost_solved", "lost, solved", "+.3f", -1),
    ("sft_gained_hard", "gained, hard", "+.3f", 1),
    ("lost_solved_per_gained_hard", "lost per gained", "+.2f", 0),
    ("kl_to_before", "KL(after‖before)", ".4f", 0),
    ("sft_raised_entropy", "entropy", "+.4f", 0),
    ("sft_raised_margin", "reward margin", "+.4f", 1),
)
"""Name, title, format, and whether more of it is a gain (1), a loss (-1) or neither."""
_COMPARED = (
    ("accuracy at the end", "accuracy_end", ".3f"),
    ("at the start", "accuracy_start", ".3f"),
    ("mean change in an SFT phase", "mean_change", "+.3f"),
    ("SFT phases", "sft_phases", ".1f"),
    ("frozen", "frozen_share", ".1%"),
    ("demonstrations", "distinct_demonstrations", ",.1f"),
    ("tokens in the loss", "kept_tokens", ",.1f"),
    ("rollouts", "rollouts", ",.1f"),
    ("seconds", "seconds_total", ",.0f"),
)
Row = Sequence[Any]


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


def shown(name: str, value: Number, form: str = ",d", good: int = 0) -> Markup:
    """One number as HTML: formatted, with its name and its exact value beside it.

    ``good``: 1 if what is above 0 is a gain, -1 if it is a loss; they have colours.
    """
    text = "–" if value is None else format(value, form)
    sign = " gain" if good * (value or 0) > 0 else " loss" if good * (value or 0) < 0 else ""
    return Markup('<span class="n{}" data-n="{}" data-v="{}">{}</span>').format(sign, name, repr(value), text)


def _view(run: Run, cards: _Cards, has_signals: bool) -> dict[str, Any]:
    """What the template of one run reads; ``has_signals``: with the curves that a comparison overlays."""
    n = numbers(run)
    if n["accuracy_start"] is not None and n["accuracy_end"] is not None:
        n["accuracy_change"] = n["accuracy_end"] - n["accuracy_start"]
    alone = [Group(run.label, RL_BLUE, "solid", [run])]
    signals = [how.curves(alone, *signal) for signal in _SIGNALS[4:]] if has_signals else []
    examples = [(interval, tokens["examples"]) for interval, tokens in run.tokens if tokens["examples"]]
    found = coupling(run.rl + run.sft)
    settings = list(_settings(run))
    return {
        "run": run,
        "n": n,
        "show": lambda name, form=",d": shown(name, n.get(name), form),
        "planned": run.config["trainer"].get("total_training_steps"),
        "follows_rl": set(run.sft_steps) <= {line["step"] for line in run.rl},
        "buffers": [phase[0]["buffer_size"] for phase in run.phases],
        "of_hard_prompts": all(use["num_rollouts"] is not None for use in run.files.in_loss) and not n["members"],
        "described": described(run.config),
        "kinds": _kinds(run),
        "phases": [_phase(lines) for lines in run.phases],
        "coupling": found,
        "coupling_head": ("interval", *(title for _, title, *_ in _COUPLING)),
        "coupling_rows": _couplings(found),
        "examples": [(at, one) for at, own in examples[:1] + examples[1:][-1:] for one in own][:_MOST_EXAMPLES],
        "questions": _questions(run),
        "data": _data(run, n),
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
        "comparison_head": ("method", "runs", *(title for title, _, _ in _COMPARED)),
        "comparison": [_compared(place, one) for place, one in enumerate(groups)],
        "overlaid": cards.add(*(how.curves(groups, *signal) for signal in _SIGNALS), *how.coupling_curves(groups)),
        "differences_head": ("setting", *(run.label for run in runs)),
        "differences": [(key, *(one.get(key, "–") for one in configs)) for key in keys],
        "views": [_view(run, cards, False) for run in runs[:_DETAILED]],
    }


def _compared(place: int, group: Group) -> Row:
    """A method's row: means over its finished runs with their intervals; a cell of fewer values says how many."""
    found, unfinished = [numbers(run) for run in group.finished], len(group.runs) - len(group.finished)
    row = [
        Markup('<span class="dot" style="background:{}"></span>{}').format(group.color, group.label),
        str(len(found)) + (f" + {unfinished} not finished" if unfinished else ""),
    ]
    for _, name, form in _COMPARED:
        values = [float(value) for one in found if (value := one.get(name)) is not None]
        if not values:
            row.append("–")
            continue
        mean, half = t_interval(values), t_interval(values).half_width
        cell = shown(f"group_{place}_{name}", mean.mean, form)
        if half is not None and len(values) >= FEWEST:
            cell += " ± " + shown(f"group_{place}_{name}_half", half, form.replace("+", ""))
        row.append(cell + (f" (n={len(values)})" if len(values) < len(found) else ""))
    return row


def _phase(lines: list[dict[str, Any]]) -> Row:
    """One SFT phase."""
    last, where = lines[-1], f"interval_{lines[-1]['interval']}_"
    kept, tokens = (sum(line[name] for line in lines) for name in ("kept_tokens", "response_tokens"))
    before, after = (mean_of(last.get(f"accuracy_{side}")) for side in ("before", "after"))
    values: list[tuple[str, Number, str]] = [
        ("updates", len(lines), "d"),
        ("demonstrations", sum(line["demonstrations"] for line in lines), "d"),
        ("kept_tokens", kept, ",d"),
        ("kept_share", kept / tokens if tokens else None, ".1%"),
        ("frozen_share", last["frozen_share"], ".1%"),
        ("seconds", sum(line["seconds"]["sft"] for line in lines), ".2f"),
        ("accuracy_before", before, ".3f"),
        ("accuracy_after", after, ".3f"),
        ("accuracy_change", None if before is None or after is None else change(before, after), "+.3f"),
    ]
    cells = (shown(where + name, value, form, int(name == "accuracy_change")) for name, value, form in values)
    return [last["interval"], last["step"], *cells]


def _couplings(found: Mapping[str, Any]) -> list[Row]:
    """What RL cost SFT and SFT cost RL, by interval and in all."""
    rows = [*found["intervals"], {"interval": "total"} | found["total"]] if found["intervals"] else []

    def cell(row: Mapping[str, Any], name: str, form: str, good: int) -> str:
        return "–" if row[name] is None else shown(f"coupling_{row['interval']}_{name}", row[name], form, good)

    return [[row["interval"], *(cell(row, name, form, good) for name, _, form, good in _COUPLING)] for row in rows]


def _questions(run: Run) -> list[dict[str, Any]]:
    """Sample rollouts by question, with the uses of its demonstration: those with a use first, then the newest."""
    found: dict[str, dict[str, Any]] = {}
    for line in run.samples:
        found.setdefault(line["prompt_id"], {"rollouts": [], "uses": [], "examples": []})["rollouts"].append(line)
    for use in run.files.ledger:
        if use["prompt_id"] in found:
            found[use["prompt_id"]]["uses"].append(use)
    for interval, tokens in run.tokens:
        for one in tokens["examples"]:
            if one["prompt_id"] in found:
                found[one["prompt_id"]]["examples"].append((interval, one))
    newest = sorted(
        found.items(), key=lambda each: (bool(each[1]["uses"]), each[1]["rollouts"][-1]["step"]), reverse=True
    )
    return [{"prompt_id": prompt_id} | held for prompt_id, held in newest[:_MOST_QUESTIONS]]


def _data(run: Run, n: dict[str, Number]) -> Iterable[Row]:
    """The account of the data."""
    rows: list[tuple[str, str, str, str]] = [
        ("prompts whose demonstration was used", "distinct_demonstrations",
         "share_of_demonstrations", "of the data set's demonstrations"),
        ("uses of a demonstration", "demonstrations", "", ""),
        *((f"\u2003used {uses} time{'s' * (uses > 1)}", f"used_{uses}", "", "") for uses in run.account.uses),
        ("response tokens of these uses", "response_tokens", "", ""),
        ("\u2003of them in the loss", "kept_tokens", "kept_share", "of the response tokens"),
        ("distinct prompts used in RL", "distinct_rl_prompts", "share_of_prompts", "of the data set's prompts"),
        ("prompts drawn for RL, repeats counted", "rl_prompts", "", ""),
        ("rollouts", "rollouts", "", ""),
        ("rows of the data set", "rows", "", ""),
        ("\u2003with a demonstration", "rows_with_demonstration", "", ""),
    ]  # fmt: skip
    known = n | {f"used_{uses}": number for uses, number in run.account.uses.items()}
    for label, name, share, of in rows:
        part = shown(share, n[share], ".2%") + f" {of}" if share and n.get(share) is not None else ""
        yield label, shown(name, known[name]), part


def _kinds(run: Run) -> list[tuple[str, float]]:
    """The share frozen of every kind of matrix, over all phases, the least first; none if nothing was frozen."""
    masks = run.kinds
    if masks.empty or not masks["frozen"].any():
        return []
    sums = masks.groupby("kind", sort=False)[["frozen", "coordinates"]].sum()
    shares = (sums["frozen"] / sums["coordinates"])[sums["coordinates"] > 0]
    return [(str(kind), float(share)) for kind, share in shares.sort_values(kind="stable").items()]


def _settings(run: Run) -> Iterable[tuple[Markup, Any, Markup]]:
    """The settings that the paper gives, the paper's value, and this run's, marked if it differs."""
    for what, key, paper in yaml.safe_load((_HERE / "paper.yaml").read_text()):
        own = lookup(run.config, key)
        form = "{}" if _exact(own) == _exact(paper) else "<mark>{}</mark>"
        yield (
            Markup("{}<br><code>{}</code>").format(what, key),
            paper,
            Markup(form).format("not set" if own is None else own),
        )


def _exact(value: Any) -> Fraction | str:
    """For comparing settings: ``"1/8"`` is 0.125."""
    try:
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        return str(value)


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
    made.globals |= {"shown": shown, "zip": partial(zip, strict=True)}
    return made


@cache
def _library() -> str:
    """plotly.js, gzip and base64; the same bytes every time."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), compresslevel=9, mtime=0)).decode()
