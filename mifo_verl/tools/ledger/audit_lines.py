"""What is wrong with single lines of a ledger, by the run's settings."""

import math
from collections import Counter
from collections.abc import Iterator

from mifo_verl.errors import exact_share
from mifo_verl.tools.ledger.read import RunFiles
from mifo_verl.tools.ledger.shapes import Line


def line_faults(run: RunFiles) -> Iterator[str]:
    """Prompts used twice in a pass, tokens and counts that the settings forbid."""
    yield from _uses(run)
    yield from _lines(run)


def by_interval(lines: list[Line]) -> dict[int, list[Line]]:
    """The lines of every interval, in their order."""
    found: dict[int, list[Line]] = {}
    for line in lines:
        found.setdefault(line["interval"], []).append(line)
    return found


def _uses(run: RunFiles) -> Iterator[str]:
    """In a phase, every prompt is used once a pass."""
    passes = run.config["mifo"]["sft"]["passes"]
    for interval, lines in by_interval(run.ledger).items():
        for prompt_id, uses in Counter(line["prompt_id"] for line in lines).items():
            if uses != passes:
                yield f"interval {interval}: prompt {prompt_id} is used {uses} times in {passes} passes"


def _lines(run: RunFiles) -> Iterator[str]:
    """What the settings say of a single line: the tokens kept, and the accuracy that made a prompt hard."""
    selector, hard = run.config["mifo"]["token_selector"], run.config["mifo"]["gate"]
    ratio = exact_share("mifo.token_selector.ratio", selector.get("ratio", 1))
    known = selector["name"] in ("top_entropy", "random", "all")
    rollouts = run.config["actor_rollout_ref"]["rollout"]["n"]
    for number, line in enumerate(run.ledger, start=1):
        wanted = math.ceil(ratio * line["response_tokens"]) if known else line["kept_tokens"]
        if line["kept_tokens"] != wanted or line["kept_tokens"] > line["response_tokens"]:
            yield f"ledger line {number}: {line['kept_tokens']} of {line['response_tokens']} tokens kept, not {wanted}"
        if line["num_rollouts"] is None or line["num_correct"] is None:
            if line["num_rollouts"] is not line["num_correct"]:
                yield f"ledger line {number}: one of num_correct and num_rollouts is null"
        elif line["num_rollouts"] != rollouts or not 0 <= line["num_correct"] <= rollouts:
            yield f"ledger line {number}: {line['num_correct']} of {line['num_rollouts']} rollouts, and N is {rollouts}"
        elif hard["name"] == "max_accuracy":
            limit = exact_share("mifo.gate.max_accuracy", hard.get("max_accuracy"))
            if line["num_correct"] > limit * line["num_rollouts"]:
                yield f"ledger line {number}: {line['num_correct']} of {line['num_rollouts']} correct is not hard"
