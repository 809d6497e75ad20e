"""What is wrong with a run's account of its data: every line against the records, the run's settings and itself.

The record of an SFT update counts its demonstrations and tokens and holds the digest of its ledger lines, so a line
that is missing, doubled or altered in any field shows. A digest is missing in runs older than it. The record of an RL
step counts its rollouts and those that were correct, which its line of prompts must give.
"""

from collections.abc import Iterator
from dataclasses import replace

from mifo_verl.run.journal import lines_sha256
from mifo_verl.tools.ledger.audit_end import end_faults
from mifo_verl.tools.ledger.audit_lines import by_interval, line_faults
from mifo_verl.tools.ledger.audit_prompts import pending_step, prompt_faults
from mifo_verl.tools.ledger.read import RunFiles
from mifo_verl.tools.ledger.shapes import Line

_SUMS = ("response_tokens", "kept_tokens")


def audit(run: RunFiles) -> list[str]:
    """Every fault found, in words; empty where all files agree. Where a line cannot be used, that alone is found."""
    if run.unreadable:
        return run.unreadable
    return [*_gaps(run), *_against_updates(run), *line_faults(run), *prompt_faults(run), *end_faults(run)]


def audit_hashes(run: RunFiles, hashes: dict[str, set[str]]) -> list[str]:
    """Every line whose prompt or demonstration is not in the data set; none where lines were left out."""
    faults: list[str] = []
    if run.unreadable:
        return faults
    for number, line in enumerate(run.ledger, start=1):
        prompt_id = line["prompt_id"]
        if prompt_id not in hashes:
            faults.append(f"ledger line {number}: prompt {prompt_id} is not in the data set")
        elif line["demonstration_sha256"] not in hashes[prompt_id]:
            faults.append(f"ledger line {number}: the hash is not that of {prompt_id}'s demonstration in the data set")
    for line in run.prompts or []:
        absent = [prompt[0] for prompt in line["prompts"] if prompt[0] not in hashes]
        faults += [f"prompts of step {line['step']}: prompt {one} is not in the data set" for one in absent]
    return faults


def prompt_ids(run: RunFiles) -> set[str]:
    """The prompts of SFT and of RL, which the data set must have."""
    drawn = {prompt[0] for line in run.prompts or [] for prompt in line["prompts"]}
    return drawn | {line["prompt_id"] for line in run.ledger}


def unproved(run: RunFiles) -> list[str]:
    """What the records of this run cannot prove, in words: it is no fault, and it is not verified."""
    if run.unreadable:
        return []
    found = []
    if run.origin is not None:
        found.append(
            f"the run goes on from {run.origin['checkpoint']}: what came before step {run.origin['step'] + 1} is not "
            "in its records, and not verified"
        )
    without_digest = sum("ledger_sha256" not in line for line in run.sft)
    if without_digest:
        counts = ", num_correct, num_rollouts" if run.prompts is None else ""
        found.append(
            f"{without_digest} SFT updates have no digest (an older run): of their lines, the source{counts}, the "
            "order and how the tokens are spread over them are not proved"
        )
    if run.prompts is None:
        found.append("the prompts of RL are not recorded (no prompts.jsonl): its rollouts and accuracy are not proved")
    if run.summary is not None and not run.validation:
        found.append("the validations have no file (an older run): accuracies and seconds at its end are not proved")
    if (interval := pending_interval(run)) is not None:
        found.append(f"the SFT phase of interval {interval} is not written whole yet, and not verified")
    if (step := pending_step(run)) is not None:
        found.append(f"the RL record of step {step} is not written yet, and its prompts are not verified")
    return found


def settled(run: RunFiles) -> RunFiles:
    """The run without the step and the phase that are not written whole yet."""
    step, interval = pending_step(run), pending_interval(run)
    return replace(
        run,
        ledger=[line for line in run.ledger if line["interval"] != interval],
        sft=[line for line in run.sft if line["interval"] != interval],
        prompts=None if run.prompts is None else [line for line in run.prompts if line["step"] != step],
    )


def pending_interval(run: RunFiles) -> int | None:
    """The last phase of a run that goes on or was killed, where of its records and its lines one is not there yet.

    RL in a later interval begins when both are written.
    """
    records, lines = ({line["interval"] for line in part} for part in (run.sft, run.ledger))
    last = max(records | lines, default=None)
    if run.summary is not None or last is None or last in records & lines:
        return None
    return None if any(line["interval"] > last for line in run.rl) else last


def _gaps(run: RunFiles) -> Iterator[str]:
    """Steps, intervals and updates must follow each other without a gap."""
    steps = [line["step"] for line in run.rl]
    if steps != sorted(set(steps)):
        yield "metrics: the RL steps are not in order, or one is there twice"
    first = {"step": 0, "interval": 1} if run.origin is None else run.origin
    missing = sorted(
        set(range(first["step"] + 1, max(steps, default=0) + 1)) - set(steps) - {line["step"] for line in run.sft}
    )
    from_data_set = any(line["num_rollouts"] is None for line in run.ledger)  # such a step may find no demonstration
    if missing and not from_data_set:
        yield f"metrics: no record of step {', '.join(map(str, missing))}"
    phases = by_interval(run.sft)
    last = max([line["interval"] - 1 for line in run.rl] + list(phases), default=0)
    for interval in range(first["interval"], last + 1):
        updates = [line["update"] for line in phases.get(interval, [])]
        if interval == pending_interval(run):
            continue
        if not updates:
            yield f"metrics: no SFT update of interval {interval}"
        elif updates != list(range(1, len(updates) + 1)) or "accuracy_before" not in phases[interval][-1]:
            yield f"metrics: the SFT updates of interval {interval} are not complete and in order"
    if (order := [line["interval"] for line in run.ledger]) != sorted(order):
        yield "ledger: the lines are not in the order of the intervals"


def _against_updates(run: RunFiles) -> Iterator[str]:
    """The lines of each interval, cut as its updates were, must give the updates' counts, sums and digests."""
    lines, phases = by_interval(run.ledger), by_interval(run.sft)
    for interval in sorted({*lines, *phases} - ({pending_interval(run)})):
        own, updates = lines.get(interval, []), phases.get(interval, [])
        counted = sum(update["demonstrations"] for update in updates)
        if len(own) != counted:
            yield f"interval {interval}: {len(own)} lines in the ledger, {counted} demonstrations in metrics"
            continue
        start = 0
        for update in updates:
            part = own[start : start + update["demonstrations"]]
            start += update["demonstrations"]
            yield from _update(update, part, f"interval {interval}, update {update['update']}")


def _update(update: Line, lines: list[Line], where: str) -> Iterator[str]:
    for name in _SUMS:
        total = sum(line[name] for line in lines)
        if total != update[name]:
            yield f"{where}: {name} add up to {total} in the ledger, {update[name]} in metrics"
    if any(line["step"] != update["step"] for line in lines):
        yield f"{where}: a ledger line has another step than {update['step']}"
    if "ledger_sha256" in update and lines_sha256(lines) != update["ledger_sha256"]:
        yield f"{where}: the digest of its {len(lines)} ledger lines is not that of metrics"
