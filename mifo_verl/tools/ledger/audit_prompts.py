"""What is wrong with ``prompts.jsonl``: every line against the record of its RL step, and the ledger against the lines.

A step writes its prompts just before its record, so a run that was killed between them has one line more than records.
"""

from collections.abc import Iterator
from typing import Any

from mifo_verl.tools.ledger.read import RunFiles
from mifo_verl.tools.ledger.shapes import Line

_YOUNGER = {"ledger_sha256", "prompt_tokens"}
"""Fields that no version wrote into its records before it wrote ``prompts.jsonl``."""


def prompt_faults(run: RunFiles) -> Iterator[str]:
    """Lines that are missing, doubled or altered, and counts of the ledger that are not of the newest rollouts."""
    if run.prompts is not None:
        yield from _steps(run)
        yield from _newest(run)
    elif any(_YOUNGER & line.keys() for line in run.rl + run.sft):
        yield f"prompts.jsonl is missing, and there are {len(run.rl)} RL steps in metrics"


def pending_step(run: RunFiles) -> int | None:
    """The last step of a run that goes on or was killed, where its prompts are there and its record is not yet."""
    last = max((line["step"] for line in run.prompts or []), default=0)
    recorded = max((line["step"] for line in run.rl + run.sft), default=0)
    return last if run.summary is None and last > recorded else None


def _steps(run: RunFiles) -> Iterator[str]:
    """One line for every RL step."""
    records = {line["step"]: line for line in run.rl}
    by_step: dict[int, list[Line]] = {step: [] for step in records}
    for line in run.prompts or []:
        by_step.setdefault(line["step"], []).append(line)
    for step, lines in sorted(by_step.items()):
        where = f"prompts of step {step}"
        if len(lines) != 1:
            yield f"{where}: {len(lines)} lines, and every RL step has one"
        elif step in records:
            yield from _against_record(where, lines[0], records[step])
        elif step != pending_step(run):
            yield f"{where}: metrics has no such RL step"


def _against_record(where: str, line: Line, record: Line) -> Iterator[str]:
    """Both come from the same counts; what DAPO filters is among them, the surplus of its refill is not."""
    correct, rollouts = (sum(prompt[place] for prompt in line["prompts"]) for place in (1, 2))
    wanted = {
        "interval": line["interval"],
        "rollouts": rollouts,
        "accuracy": correct / rollouts if rollouts else None,
    }
    for name, value in wanted.items():
        if record[name] != value:
            yield f"{where}: {name} is {value} by prompts.jsonl, {record[name]} in metrics"


def _newest(run: RunFiles) -> Iterator[str]:
    """The newest whole rollouts of a prompt, up to its use, must be those that the ledger names."""
    whole = run.config["actor_rollout_ref"]["rollout"]["n"]
    before = [] if run.origin is None else run.origin["prompts"]
    newest: dict[str, list[Any]] = {prompt[0]: prompt[1:] for prompt in before}
    steps = iter(sorted(run.prompts or [], key=lambda line: line["step"]))
    ahead = next(steps, None)
    for number, line in sorted(enumerate(run.ledger, start=1), key=lambda pair: pair[1]["step"]):
        while ahead is not None and ahead["step"] <= line["step"]:
            newest |= {prompt[0]: prompt[1:] for prompt in ahead["prompts"] if prompt[2] >= whole}
            ahead = next(steps, None)
        counts = [line["num_correct"], line["num_rollouts"]]
        if counts[1] is not None and newest.get(line["prompt_id"]) != counts:
            yield f"ledger line {number}: {counts} are not the newest rollouts of {line['prompt_id']} in prompts.jsonl"
