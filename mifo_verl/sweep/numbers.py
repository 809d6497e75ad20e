"""The numbers of one run that arms are compared by, each computed from the run's records alone."""

from typing import Any

from mifo_verl.coupling import DIFFERENCES, change, mean_of
from mifo_verl.report.numbers import numbers
from mifo_verl.report.run import Run, changes, probes

ACCURACY = "accuracy"
"""Validation accuracy at the end, the mean over the data sources; ``accuracy/<source>`` is one of them."""

NET = "sft/net_accuracy"
"""What SFT phases gained on hard prompts less what they lost on solved ones; see ``asked_of``."""

PRIMARY = (ACCURACY, "gain", NET, *dict.fromkeys(f"{phase}/{name}" for phase, name, _ in DIFFERENCES.values()))
"""What a question may name as the number that answers it."""


def numbers_of(run: Run) -> dict[str, float]:
    """Every number that the run's records give.

    ``<phase>/<name>`` is what a phase changed a probed quantity by, ``<name>_after - <name>_before``, the mean over the
    run's phases; those of solved and of hard prompts are ``asked_of``'s.
    """
    known = numbers(run)
    found = {f"{ACCURACY}/{source}": value for source, value in _end(run).items() if source != "mean"}
    names = ("rl_steps", "sft_phases", "demonstrations", "rollouts")
    wanted = {ACCURACY: known["accuracy_end"], "accuracy_start": known["accuracy_start"]}
    wanted |= {name: known[name] for name in names} | {"seconds": known["seconds_total"]}
    found |= {name: float(value) for name, value in wanted.items() if value is not None}
    if ACCURACY in found and "accuracy_start" in found:
        found["gain"] = found[ACCURACY] - found["accuracy_start"]
    return found | compute_of(run.rl, run.sft) | _changes(run) | asked_of(run.sft)


def compute_of(rl: list[dict[str, Any]], sft: list[dict[str, Any]]) -> dict[str, float]:
    """Tokens and FLOPs of a run's records; none of them where a record is of a version that did not count."""
    if any("flops" not in line for line in rl + sft):
        return {}
    return {
        "rl_tokens": float(sum(line["prompt_tokens"] + line["response_tokens"] for line in rl)),
        "generated_tokens": float(sum(line["generated_tokens"] for line in rl)),
        "sft_tokens": float(sum(line["prompt_tokens"] + line["response_tokens"] for line in sft)),
        "loss_tokens": float(sum(line["kept_tokens"] for line in sft)),
        "rl_flops": float(sum(line["flops"] for line in rl)),
        "sft_flops": float(sum(line["flops"] for line in sft)),
        "flops": float(sum(line["flops"] for line in rl + sft)),
    }


def _end(run: Run) -> dict[str, float]:
    summary = run.files.summary or {}
    return {source: float(value) for source, value in (summary.get("accuracy_end") or {}).items()}


def asked_of(sft: list[dict[str, Any]]) -> dict[str, float]:
    """What SFT phases changed on the training prompts that were asked before and after them, one vote a prompt.

    ``sft/solved_accuracy``, ``sft/hard_accuracy``: after - before, each phase weighted by the prompts of the kind that
    it asked. ``sft/net_accuracy``: over the phases that asked both kinds, the hard prompts gained less the solved ones
    lost (a share of a prompt where it was answered more than once), divided by all prompts asked there: +0.1 is one
    prompt in ten won. ``solved_asked`` and ``hard_asked``: how many prompts, summed over all phases.
    """
    found: dict[str, float] = {}
    won: list[dict[str, tuple[int, float]]] = []
    for line in sft:
        kinds = {kind: _prompts_won(line, kind) for kind in ("solved", "hard")}
        won.append({kind: pair for kind, pair in kinds.items() if pair is not None})
    for kind in ("solved", "hard"):
        if pairs := [phase[kind] for phase in won if kind in phase]:
            found[f"sft/{kind}_accuracy"], found[f"{kind}_asked"] = _per_prompt(pairs), float(sum(n for n, _ in pairs))
    if both := [pair for phase in won if len(phase) == 2 for pair in phase.values()]:
        found[NET] = _per_prompt(both)
    return found


def _prompts_won(line: dict[str, Any], kind: str) -> tuple[int, float] | None:
    """(prompts of a kind that a phase asked, how many more of them were right after it); None where it asked none."""
    num_asked = (line.get("probe") or {}).get(kind, 0)
    before, after = (mean_of(line.get(f"{kind}_accuracy_{side}")) for side in ("before", "after"))
    return None if not num_asked or before is None or after is None else (num_asked, num_asked * change(before, after))


def _per_prompt(pairs: list[tuple[int, float]]) -> float:
    return sum(won for _, won in pairs) / sum(num_asked for num_asked, _ in pairs)


def _changes(run: Run) -> dict[str, float]:
    """Means over the phases, of all that is probed but what ``asked_of`` weighs."""
    names = [(phase, name) for phase, name in probes(run) if name not in ("solved_accuracy", "hard_accuracy")]
    changed = {f"{phase}/{name}": [one for _, one in changes(run, phase, name)] for phase, name in names}
    return {name: sum(values) / len(values) for name, values in changed.items()}
