"""What is wrong with ``summary.json`` and ``validation.jsonl``: both against the records.

Of a summary the records do not give the whole run's seconds, the digest of the weights and, in a run from before
validations had a file, both accuracies and the seconds of RL and SFT.
"""

from collections.abc import Iterator
from typing import Any

from mifo_verl.run.journal import totals
from mifo_verl.tools.ledger.read import RunFiles


def end_faults(run: RunFiles) -> Iterator[str]:
    """Validations and parts of the summary that are missing, doubled or altered."""
    yield from _validations(run)
    if run.summary is not None:
        yield from _accuracies(run, run.summary)
        yield from _totals(run, run.summary)


def _validations(run: RunFiles) -> Iterator[str]:
    """One line a step, and what an RL record holds of its step's validation is the same."""
    steps = [line["step"] for line in run.validation]
    if steps != sorted(set(steps)):
        yield "validation: the steps are not in order, or one is there twice"
    own = {line["step"]: line["accuracy"] for line in run.validation}
    for line in run.rl:
        step, recorded = line["step"], line.get("validation")
        is_older = step < min(own, default=step + 1)  # than the file, in a run that went on with this version
        is_pending = step not in own and run.summary is None and line is run.rl[-1]
        if recorded not in (None, own.get(step)) and not is_older and not is_pending:
            yield f"validation of step {step}: {own.get(step)} in validation.jsonl, {recorded} in metrics"


def _accuracies(run: RunFiles, summary: dict[str, Any]) -> Iterator[str]:
    """The start's is that of step 0, the end's the last."""
    ends = [("accuracy_start", line) for line in run.validation if line["step"] == 0]
    ends += [("accuracy_end", line) for line in run.validation[-1:]]
    for name, line in ends:
        if summary.get(name) != line["accuracy"]:
            said = f"the validation of step {line['step']} says {line['accuracy']}"
            yield f"summary: {name} is {summary.get(name)}, and {said}"


def _totals(run: RunFiles, summary: dict[str, Any]) -> Iterator[str]:
    """Older versions have fewer fields in a row."""
    wanted = totals(run.rl + run.sft, run.ledger)
    phases, seconds = wanted.pop("sft_phases"), wanted.pop("seconds")
    yield from _different("summary", summary, wanted)
    if run.validation:  # some runs older than that file have counted seconds twice
        yield from _different("summary, seconds", summary["seconds"], seconds)
    rows = summary["sft_phases"]
    if [row["interval"] for row in rows] != [phase["interval"] for phase in phases]:
        yield f"summary: the {len(rows)} sft_phases are not the {len(phases)} of the records"
        return
    for row, phase in zip(rows, phases, strict=True):
        known = {name: value for name, value in phase.items() if name in row}
        yield from _different(f"summary, interval {row['interval']}", row, known)


def _different(where: str, found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    for name, value in wanted.items():
        if found.get(name) != value:
            yield f"{where}: {name} is {found.get(name)}, and the records say {value}"
