"""What is wrong with a run's account of its data: every line against the records, the run's settings and itself.

The record of an SFT update counts its demonstrations and tokens and holds the digest of its ledger lines, so a line
that is missing, doubled or altered in any field shows; so does the record of an RL step for the demonstrations among its
rollouts. A digest is missing in runs older than it. The record of an RL step counts its rollouts and those that were correct, which its line of prompts must give. A step writes its prompts
just before its record, so a run that was killed between them has one line more than records.

Of a summary the records do not give the whole run's seconds, the digest of the weights and, in a run from before
validations had a file, both accuracies and the seconds of RL and SFT.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mifo_verl.run.journal import lines_sha256
from mifo_verl.run.summary import totals
from mifo_verl.tools.parts import part_of
from mifo_verl.tools.records import Line
from mifo_verl.tools.run_files import RunFiles, by_interval

_YOUNGER = {"ledger_sha256", "prompt_tokens"}
"""Fields that no version wrote into its records before it wrote ``prompts.jsonl``."""


def audit(run: RunFiles) -> list[str]:
    """Every fault found, in words; empty if all files agree. If a line cannot be used, that alone is found."""
    if run.unreadable:
        return run.unreadable
    parts = (_gaps, _against_updates, _members, _single_lines, _prompts, _validations, _summary)
    return [fault for part in parts for fault in part(run)]


def audit_hashes(run: RunFiles, hashes: dict[str, set[str]]) -> list[str]:
    """Every line whose prompt or demonstration is not in the data set; none if lines were left out."""
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
    if without_digest := sum("ledger_sha256" not in line for line in run.sft):
        counts = ", num_correct, num_rollouts" if run.prompts is None else ""
        found.append(
            f"{without_digest} SFT updates have no digest (an older run): of their lines, the source{counts}, the "
            "order and how the tokens are spread over them are not proved"
        )
    if run.prompts is None:
        found.append("the prompts of RL are not recorded (no prompts.jsonl): its rollouts and accuracy are not proved")
    if run.summary is not None and not run.validation:
        found.append("the validations have no file (an older run): accuracies and seconds at its end are not proved")
    if run.pending_interval is not None:
        found.append(f"the SFT phase of interval {run.pending_interval} is not written whole yet, and not verified")
    if run.pending_step is not None:
        found.append(f"the RL record of step {run.pending_step} is not written yet, and its prompts are not verified")
    return found


def settled(run: RunFiles) -> RunFiles:
    """The run without the step and the phase that are not written whole yet."""
    return replace(
        run,
        ledger=[line for line in run.ledger if line in run.members or line["interval"] != run.pending_interval],
        sft=[line for line in run.sft if line["interval"] != run.pending_interval],
        prompts=run.prompts and [line for line in run.prompts if line["step"] != run.pending_step],
    )


def _gaps(run: RunFiles) -> Iterator[str]:
    """Steps, intervals and updates must follow each other without a gap."""
    steps = [line["step"] for line in run.rl]
    if steps != sorted(set(steps)):
        yield "metrics: the RL steps are not in order, or one is there twice"
    first = {"step": 0, "interval": 1} if run.origin is None else run.origin
    all_steps = range(first["step"] + 1, max(steps, default=0) + 1)
    missing = sorted(set(all_steps) - set(steps) - {line["step"] for line in run.sft})
    from_data_set = any(line["num_rollouts"] is None for line in run.in_loss)  # such a step may find no demonstration
    if missing and not from_data_set:
        yield f"metrics: no record of step {', '.join(map(str, missing))}"
    last = max([*(line["interval"] - 1 for line in run.rl), *run.updates], default=0)
    for interval in range(first["interval"], last + 1):
        phase = run.updates.get(interval, [])
        updates = [line["update"] for line in phase]
        if interval == run.pending_interval:
            continue
        if not updates:
            yield f"metrics: no SFT update of interval {interval}"
        elif updates != list(range(1, len(updates) + 1)) or "accuracy_before" not in phase[-1]:
            yield f"metrics: the SFT updates of interval {interval} are not complete and in order"
    if (order := [line["interval"] for line in run.ledger]) != sorted(order):
        yield "ledger: the lines are not in the order of the intervals"


def _against_updates(run: RunFiles) -> Iterator[str]:
    """The lines of each interval, cut as its updates were, must give the updates' counts, sums and digests.

    The demonstrations of an RL step's updates count as one update of it.
    """
    passes = run.config["mifo"]["sft"]["passes"]
    staged = by_interval(run.staged)
    for interval in sorted({*run.uses, *run.updates, *staged} - {run.pending_interval}):
        own = run.uses.get(interval, [])
        updates = [line | line["staged"] for line in staged.get(interval, [])] + run.updates.get(interval, [])
        updates.sort(key=lambda update: (update["step"], update["update"]))
        counted = sum(update["demonstrations"] for update in updates)
        if len(own) != counted:
            yield f"interval {interval}: {len(own)} lines in the ledger, {counted} demonstrations in metrics"
            continue
        start, of_phase = 0, Counter[str]()
        for update in updates:
            part = own[start : start + update["demonstrations"]]
            start += update["demonstrations"]
            of_phase.update(line["prompt_id"] for line in part if update["update"])
            where = f"step {update['step']}" if not update["update"] else f"update {update['update']}"
            yield from _update(update, part, f"interval {interval}, {where}")
        ended_early = any(update.get("updates_left") for update in run.updates.get(interval, []))
        for prompt_id, uses in of_phase.items():
            if uses > passes or (uses < passes and not ended_early):
                yield f"interval {interval}: prompt {prompt_id} is used {uses} times in {passes} passes"


def _members(run: RunFiles) -> Iterator[str]:
    """The lines of every RL step's rollouts must give its record's counts and digest."""
    by_step: dict[int, list[Line]] = {line["step"]: [] for line in run.rl if line.get("members_sha256")}
    for line in run.members:
        by_step.setdefault(line["step"], []).append(line)
    records = {line["step"]: line for line in run.rl}
    for step, lines in sorted(by_step.items()):
        record = records.get(step, {})
        if not lines and run.summary is None and step == max(records):
            continue  # not written yet
        counts = len(lines), sum(line["kept_tokens"] for line in lines)
        recorded = record.get("members", 0), record.get("prefix_tokens", 0)
        if counts != recorded:
            yield (
                f"step {step}: {counts[0]} rollouts begin with {counts[1]} given tokens in the ledger, {recorded[0]} with "
                f"{recorded[1]} in metrics"
            )
        elif lines_sha256(lines) != record["members_sha256"]:
            yield f"step {step}: the digest of the ledger lines of its {counts[0]} rollouts is not that of metrics"


def _update(update: Line, lines: list[Line], where: str) -> Iterator[str]:
    for name in ("response_tokens", "kept_tokens"):
        total = sum(line[name] for line in lines)
        if total != update[name]:
            yield f"{where}: {name} add up to {total} in the ledger, {update[name]} in metrics"
    if any(line["step"] != update["step"] for line in lines):
        yield f"{where}: a ledger line has another step than {update['step']}"
    if "ledger_sha256" in update and lines_sha256(lines) != update["ledger_sha256"]:
        yield f"{where}: the digest of its {len(lines)} ledger lines is not that of metrics"


def _single_lines(run: RunFiles) -> Iterator[str]:
    """What the settings say of a single line: the tokens kept, and the accuracy that made a prompt hard."""
    selector, gate = part_of(run.config, "token_selector"), part_of(run.config, "gate")
    few, n = _whole(run)
    for number, line in enumerate(run.ledger, start=1):
        is_rollout = line.get("kind") == "rollout"  # which is neither selected nor gated
        tokens, kept, correct, rollouts = (
            line[name] for name in ("response_tokens", "kept_tokens", "num_correct", "num_rollouts")
        )
        wanted = None if selector is None or is_rollout else selector.kept_tokens(tokens)
        if kept > tokens or (wanted is not None and kept != wanted):
            yield f"ledger line {number}: {kept} of {tokens} tokens kept, not {tokens if wanted is None else wanted}"
        if rollouts is None or correct is None:
            if rollouts is not correct:
                yield f"ledger line {number}: one of num_correct and num_rollouts is null"
        elif not (0 if is_rollout else few) <= rollouts <= n or not 0 <= correct <= rollouts:
            yield f"ledger line {number}: {correct} of {rollouts} rollouts, and N is {n}"
        elif gate is not None and not is_rollout and not gate.accepts(correct, rollouts):
            yield f"ledger line {number}: {correct} of {rollouts} correct is not hard"


def _whole(run: RunFiles) -> tuple[int, int]:
    """Rollouts of a question, the fewest and the most: its demonstration may take the place of some."""
    n: int = run.config["actor_rollout_ref"]["rollout"]["n"]
    prefix = part_of(run.config, "prefix")
    return n - (0 if prefix is None else prefix.num_members(n)), n


def _prompts(run: RunFiles) -> Iterator[str]:
    """One line for every RL step, and none that is altered; the ledger's counts are of the newest rollouts."""
    if run.prompts is None:
        if any(_YOUNGER & line.keys() for line in run.rl + run.sft):
            yield f"prompts.jsonl is missing, and there are {len(run.rl)} RL steps in metrics"
        return
    records = {line["step"]: line for line in run.rl}
    by_step: dict[int, list[Line]] = {step: [] for step in records}
    for line in run.prompts:
        by_step.setdefault(line["step"], []).append(line)
    for step, lines in sorted(by_step.items()):
        where = f"prompts of step {step}"
        if len(lines) != 1:
            yield f"{where}: {len(lines)} lines, and every RL step has one"
        elif step in records:
            yield from _against_record(where, lines[0], records[step])
        elif step != run.pending_step:
            yield f"{where}: metrics has no such RL step"
    yield from _newest(run, run.prompts)


def _against_record(where: str, line: Line, record: Line) -> Iterator[str]:
    """Both come from the same counts; what DAPO filters is among them, the surplus of its refill is not."""
    correct, rollouts = (sum(prompt[place] for prompt in line["prompts"]) for place in (1, 2))
    accuracy = correct / rollouts if rollouts else None
    for name, value in (("interval", line["interval"]), ("rollouts", rollouts), ("accuracy", accuracy)):
        if record[name] != value:
            yield f"{where}: {name} is {value} by prompts.jsonl, {record[name]} in metrics"


def _newest(run: RunFiles, prompts: list[Line]) -> Iterator[str]:
    """The newest whole rollouts of a prompt, up to its use, must be those that the ledger names."""
    whole, _ = _whole(run)
    newest: dict[str, list[int]] = {prompt[0]: prompt[1:] for prompt in (run.origin or {"prompts": []})["prompts"]}
    steps = iter(sorted(prompts, key=lambda line: line["step"]))
    ahead = next(steps, None)
    for number, line in sorted(enumerate(run.ledger, start=1), key=lambda pair: pair[1]["step"]):
        while ahead is not None and ahead["step"] <= line["step"]:
            newest.update((prompt[0], prompt[1:]) for prompt in ahead["prompts"] if prompt[2] >= whole)
            ahead = next(steps, None)
        counts = [line["num_correct"], line["num_rollouts"]]
        if line.get("kind") == "rollout":
            own: list[Any] = next((held["prompts"] for held in prompts if held["step"] == line["step"]), [])
            if counts[1] is not None and [line["prompt_id"], *counts] not in own:
                yield f"ledger line {number}: {counts} are not the rollouts of {line['prompt_id']} in this step's prompts"
        elif counts[1] is not None and newest.get(line["prompt_id"]) != counts:
            yield f"ledger line {number}: {counts} are not the newest rollouts of {line['prompt_id']} in prompts.jsonl"


def _validations(run: RunFiles) -> Iterator[str]:
    """One line a step, and what an RL record holds of its step's validation is the same."""
    steps = [line["step"] for line in run.validation]
    if steps != sorted(set(steps)):
        yield "validation: the steps are not in order, or one is there twice"
    own = {line["step"]: line["accuracy"] for line in run.validation}
    oldest = min(own, default=None)
    for line in run.rl:
        step, recorded = line["step"], line.get("validation")
        is_older = oldest is None or step < oldest  # than the file, in a run that went on with this version
        is_pending = step not in own and run.summary is None and line is run.rl[-1]
        if recorded not in (None, own.get(step)) and not is_older and not is_pending:
            yield f"validation of step {step}: {own.get(step)} in validation.jsonl, {recorded} in metrics"


def _summary(run: RunFiles) -> Iterator[str]:
    """Accuracies are those of the first and the last validation; older versions have fewer fields in a row."""
    if (summary := run.summary) is None:
        return
    ends = [("accuracy_start", line) for line in run.validation if line["step"] == 0]
    for name, line in [*ends, *(("accuracy_end", line) for line in run.validation[-1:])]:
        if summary.get(name) != line["accuracy"]:
            said = f"the validation of step {line['step']} says {line['accuracy']}"
            yield f"summary: {name} is {summary.get(name)}, and {said}"
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
