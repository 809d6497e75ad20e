"""The tables of the report as HTML: phases, data, settings against the paper's, runs against each other, versions."""

from collections.abc import Iterable, Sequence
from html import escape

import yaml

from mifo_verl.probes.coupling import change, coupling
from mifo_verl.run.flat import flat
from mifo_verl.tools.ledger.shapes import lookup
from mifo_verl.tools.report.bands import mean_interval
from mifo_verl.tools.report.groups import Group
from mifo_verl.tools.report.numbers import numbers
from mifo_verl.tools.report.paper import SETTINGS, same
from mifo_verl.tools.report.run import Run, probes
from mifo_verl.tools.report.words import shown

_FAULTS_SHOWN = 10


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table; cells are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def phases(run: Run) -> str:
    """One row an SFT phase."""
    accuracy = {interval: pair for interval, *pair in probes(run).get(("sft", "accuracy"), [])}
    rows = []
    for lines in run.phases():
        last, where = lines[-1], f"interval_{lines[-1]['interval']}_"
        kept, tokens = (sum(line[name] for line in lines) for name in ("kept_tokens", "response_tokens"))
        before, after = accuracy.get(last["interval"], (None, None))
        gained = None if before is None or after is None else change(before, after)
        values = [
            (str(last["interval"]), None, ""),
            (str(last["step"]), None, ""),
            ("updates", len(lines), "d"),
            ("demonstrations", sum(line["demonstrations"] for line in lines), "d"),
            ("kept_tokens", kept, ",d"),
            ("kept_share", kept / tokens, ".1%"),
            ("frozen_share", last["frozen_share"], ".1%"),
            ("seconds", sum(line["seconds"]["sft"] for line in lines), ".2f"),
            ("accuracy_before", before, ".3f"),
            ("accuracy_after", after, ".3f"),
            ("accuracy_change", gained, "+.3f"),
        ]
        rows.append([name if not form else shown(where + name, value, form) for name, value, form in values])
    head = ("interval", "after step", "updates", "demon­strations", "tokens in the loss", "share", "frozen", "seconds")
    return table((*head, "accuracy before", "after", "change"), rows) if rows else "<p>No SFT phase so far.</p>"


_COUPLING = (
    ("rl_raised_cross_entropy", "RL: CE of demon­strations", "+.4f"),
    ("sft_raised_cross_entropy", "SFT: CE of demon­strations", "+.4f"),
    ("sft_lost_accuracy", "SFT: accuracy lost, held out", "+.3f"),
    ("sft_lost_solved", "lost, solved", "+.3f"),
    ("sft_gained_hard", "gained, hard", "+.3f"),
    ("lost_solved_per_gained_hard", "lost per gained", "+.2f"),
    ("kl_to_before", "KL(after‖before)", ".4f"),
    ("sft_raised_entropy", "entropy", "+.4f"),
    ("sft_raised_margin", "reward margin", "+.4f"),
)


def couplings(run: Run) -> str:
    """What RL cost SFT and SFT cost RL, by interval and in all, and what it took to know."""
    found = coupling(run.rl + run.sft)
    if not found["intervals"]:
        return "<p>Nothing was measured: no SFT phase has ended, or <code>mifo.probe.around_sft</code> was off.</p>"
    rows = [
        [
            str(row["interval"]),
            *(_known(f"coupling_{row['interval']}_{name}", row[name], form) for name, _, form in _COUPLING),
        ]
        for row in [*found["intervals"], {"interval": "total"} | found["total"]]
    ]
    cost = numbers(run)
    took = [f"{shown('probes_seconds', cost['probes_seconds'], ',.1f')} seconds"]
    for name, words in (("probes_share_of_seconds", "time"), ("probes_share_of_compute", "compute, estimated")):
        if cost[name] is not None:
            took.append(f"{shown(name, cost[name], '.1%')} of the run's {words}")
    head = ("interval", *(title for _, title, _ in _COUPLING))
    note = "The total is the sum over the intervals."
    return table(head, rows) + f"<p>{note} The probes took {', '.join(took)}.</p>"


def _known(name: str, value: float | None, form: str) -> str:
    return "–" if value is None else shown(name, value, form)


def data(run: Run) -> str:
    """The account of the data, and what the audit of the ledger found."""
    found = numbers(run)

    def row(label: str, name: str, share: str = "", of: str = "") -> tuple[str, str, str]:
        right = f"{shown(share, found[share], '.2%')} {of}" if share and found.get(share) is not None else ""
        return label, shown(name, found[name], ",d"), right

    rows = [
        row(
            "prompts whose demonstration was used in SFT",
            "distinct_demonstrations",
            "share_of_demonstrations",
            "of the data set's demonstrations",
        ),
        row("uses of a demonstration", "demonstrations"),
        *(
            (f"&emsp;used {uses} time{'s' * (uses > 1)}", shown(f"used_{uses}", number, ",d"), "")
            for uses, number in run.account.uses.items()
        ),
        row("response tokens of these uses", "response_tokens"),
        row("&emsp;of them in the loss", "kept_tokens", "kept_share", "of the response tokens"),
        row("distinct prompts used in RL", "distinct_rl_prompts", "share_of_prompts", "of the data set's prompts"),
        row("prompts drawn for RL, repeats counted", "rl_prompts"),
        row("rollouts", "rollouts"),
        row("rows of the data set", "rows"),
        row("&emsp;with a demonstration", "rows_with_demonstration"),
    ]
    return table(("data", "count", "share"), rows) + _audit(run)


def _audit(run: Run) -> str:
    left_out = _bad(run.left_out, "records of the other files cannot be used and are left out")
    if run.faults:
        return _bad(run.faults, "faults in the ledger") + left_out
    but = "".join(f" But {escape(one)}." for one in run.unproved)
    also = "<code>python -m mifo_verl.tools.ledger</code> also checks every hash against the data set."
    files = "Ledger, records and summary" if run.is_finished else "Ledger and records"
    return f"<p>{files} agree, line by line.{but} {also}</p>{left_out}"


def _bad(found: list[str], what: str) -> str:
    if not found:
        return ""
    listed = "".join(f"<li>{escape(one)}</li>" for one in found[:_FAULTS_SHOWN])
    return f'<p class="bad">{len(found)} {what}:</p><ul class="bad">{listed}</ul>'


def settings(run: Run) -> str:
    """The settings that the paper gives, and where this run differs."""
    rows = []
    for what, key, paper in SETTINGS:
        own = lookup(run.config, key)
        name, equal = f"{what}<br><code>{key}</code>", same(own, paper)
        text = "not set" if own is None else escape(str(own))
        rows.append((name, escape(str(paper)), text if equal else f"<mark>{text}</mark>"))
    different = sum("<mark>" in row[2] for row in rows)
    return f"<p>{different} of {len(rows)} differ from the paper's.</p>" + table(("setting", "paper", "this run"), rows)


def config(run: Run) -> str:
    """The whole config, folded away."""
    text = escape(yaml.dump(run.config, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True))
    return f"<details><summary>The whole config</summary><pre>{text}</pre></details>"


def versions(run: Run) -> str:
    """What the run was made with."""
    if not run.versions:
        return "<p>Not recorded in this run.</p>"
    return table(("package", "version"), ((escape(name), escape(text)) for name, text in run.versions.items()))


def comparison(groups: list[Group]) -> str:
    """One row a group: means over its finished runs with 95 % intervals; a cell of fewer values says how many."""
    columns = (
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
    rows = []
    for place, group in enumerate(groups):
        cells = [
            f'<span class="dot" style="background:{group.color}"></span>{escape(group.label)}',
            _runs(group),
        ]
        found = [numbers(run) for run in group.finished]
        for _, name, form in columns:
            values = [float(value) for one in found if (value := one.get(name)) is not None]
            fewer = f" (n={len(values)})" if 0 < len(values) < len(found) else ""
            cells.append(_interval(f"group_{place}_{name}", values, form) + fewer)
        rows.append(cells)
    return table(("method", "runs", *(title for title, _, _ in columns)), rows)


def _runs(group: Group) -> str:
    unfinished = len(group.runs) - len(group.finished)
    return str(len(group.finished)) + (f" + {unfinished} not finished" if unfinished else "")


def differences(runs: list[Run]) -> str:
    """The settings in which the runs differ."""
    configs = [flat(run.config) for run in runs]
    keys = sorted({key for one in configs for key in one if len({str(other.get(key)) for other in configs}) > 1})
    rows = [(f"<code>{key}</code>", *(escape(str(one.get(key, "–"))) for one in configs)) for key in keys]
    return table(("setting", *(escape(run.label) for run in runs)), rows) if rows else "<p>None.</p>"


def _interval(name: str, values: list[float], form: str) -> str:
    if not values:
        return "–"
    mean, half = mean_interval(values)
    text = shown(name, mean, form)
    return text if half is None else f"{text} ± {shown(name + '_half', half, form.replace('+', ''))}"
