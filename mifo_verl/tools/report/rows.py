"""The rows of the page's tables: each number as HTML with its name and its exact value beside it."""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from mifo_verl.probes.coupling import change, mean_of
from mifo_verl.tools.report.groups import FEWEST, Group
from mifo_verl.tools.report.numbers import Number, numbers
from mifo_verl.tools.report.run import Run
from mifo_verl.tools.run_files import lookup
from mifo_verl.tools.statistics import t_interval

_MOST_QUESTIONS = 8
COUPLING = (
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
COMPARED = (
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


def shown(name: str, value: Number, form: str = ",d", good: int = 0) -> Markup:
    """One number as HTML: formatted, with its name and its exact value beside it.

    ``good``: 1 if what is above 0 is a gain, -1 if it is a loss; they have colours.
    """
    text = "–" if value is None else format(value, form)
    sign = " gain" if good * (value or 0) > 0 else " loss" if good * (value or 0) < 0 else ""
    return Markup('<span class="n{}" data-n="{}" data-v="{}">{}</span>').format(sign, name, repr(value), text)


def compared(place: int, group: Group) -> Row:
    """A method's row: means over its finished runs with their intervals; a cell of fewer values says how many."""
    found, unfinished = [numbers(run) for run in group.finished], len(group.runs) - len(group.finished)
    row = [
        Markup('<span class="dot" style="background:{}"></span>{}').format(group.color, group.label),
        str(len(found)) + (f" + {unfinished} not finished" if unfinished else ""),
    ]
    for _, name, form in COMPARED:
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


def phase(lines: list[dict[str, Any]]) -> Row:
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


def couplings(found: Mapping[str, Any]) -> list[Row]:
    """What RL cost SFT and SFT cost RL, by interval and in all."""
    rows = [*found["intervals"], {"interval": "total"} | found["total"]] if found["intervals"] else []

    def cell(row: Mapping[str, Any], name: str, form: str, good: int) -> str:
        return "–" if row[name] is None else shown(f"coupling_{row['interval']}_{name}", row[name], form, good)

    return [[row["interval"], *(cell(row, name, form, good) for name, _, form, good in COUPLING)] for row in rows]


def questions(run: Run) -> list[dict[str, Any]]:
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


def account(run: Run, n: dict[str, Number]) -> Iterable[Row]:
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


def kinds(run: Run) -> list[tuple[str, float]]:
    """The share frozen of every kind of matrix, over all phases, the least first; none if nothing was frozen."""
    masks = run.kinds
    if masks.empty or not masks["frozen"].any():
        return []
    sums = masks.groupby("kind", sort=False)[["frozen", "coordinates"]].sum()
    shares = (sums["frozen"] / sums["coordinates"])[sums["coordinates"] > 0]
    return [(str(kind), float(share)) for kind, share in shares.sort_values(kind="stable").items()]


def settings(run: Run) -> Iterable[tuple[Markup, Any, Markup]]:
    """The settings that the paper gives, the paper's value, and this run's, marked if it differs."""
    for what, key, paper in yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text()):
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
