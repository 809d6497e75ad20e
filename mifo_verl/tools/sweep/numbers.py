"""The numbers of one run that arms are compared by, each computed from the run's records alone."""

from typing import Any

from mifo_verl.probes.coupling import DIFFERENCES, NET, asked_of
from mifo_verl.tools.report.numbers import numbers
from mifo_verl.tools.report.run import Run

ACCURACY = "accuracy"
"""Validation accuracy at the end, the mean over the data sources; ``accuracy/<source>`` is one of them."""

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
    wanted["peak_memory_gb"] = (run.files.summary or {}).get("peak_memory_gb")
    found |= {name: float(value) for name, value in wanted.items() if value is not None}
    if ACCURACY in found and "accuracy_start" in found:
        found["gain"] = found[ACCURACY] - found["accuracy_start"]
    return found | compute_of(run.rl, run.sft) | _changes(run) | asked_of(run.sft)


def compute_of(rl: list[dict[str, Any]], sft: list[dict[str, Any]]) -> dict[str, float]:
    """Tokens and FLOPs of a run's records; none of them if a record is of a version that did not count.

    SFT's tokens are those of its phases and of the demonstrations in the updates of RL steps, whose FLOPs are RL's.
    """
    if any("flops" not in line for line in rl + sft):
        return {}
    trained = sft + [line["staged"] for line in rl if line.get("staged")]
    return {
        "rl_tokens": float(sum(line["prompt_tokens"] + line["response_tokens"] for line in rl)),
        "generated_tokens": float(sum(line["generated_tokens"] for line in rl)),
        "sft_tokens": float(sum(line["prompt_tokens"] + line["response_tokens"] for line in trained)),
        "loss_tokens": float(sum(line["kept_tokens"] for line in trained)),
        "rl_flops": float(sum(line["flops"] for line in rl)),
        "sft_flops": float(sum(line["flops"] for line in sft)),
        "flops": float(sum(line["flops"] for line in rl + sft)),
    }


def _end(run: Run) -> dict[str, float]:
    summary = run.files.summary or {}
    return {source: float(value) for source, value in (summary.get("accuracy_end") or {}).items()}


def _changes(run: Run) -> dict[str, float]:
    """Means over the phases, of all that is probed but what ``asked_of`` weighs."""
    probes = run.probes[~run.probes["name"].isin(["solved_accuracy", "hard_accuracy"])]
    means = probes.groupby(["phase", "name"], sort=False)["change"].mean()
    return {f"{phase}/{name}": float(mean) for (phase, name), mean in means.items()}
