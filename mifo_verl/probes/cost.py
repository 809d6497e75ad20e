"""What the probes cost beside the run, by the rule of ``compute``.

N is in every term and cancels. Standard library only.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mifo_verl.run.compute import FORWARD, TRAIN

HARD_SHARE = 6.4 / 45.8
"""Prompts that join the buffer, of those drawn: the paper's (MIFO, its table of the data used, in thousands)."""
MOST = 0.05
"""The share of a run's compute that probes may take."""


@dataclass(frozen=True)
class CostPlan:
    """A run before it starts; every sequence is taken to be as long as every other."""

    rl_steps: float
    sft_phases: float
    rollouts: int
    """Sequences of an RL step."""
    rollout_units: int
    """FLOPs/N a token of a rollout: sampled, scored, trained on."""
    sft_sequences: int
    """Of a phase, passes counted."""
    every: int
    asked: int
    """Sequences sampled on one side of an SFT phase."""
    demonstrations: int
    shift_rollouts: int
    kl_rollouts: int


def expected(plan: CostPlan) -> tuple[float, float]:
    """(share of the probes at the phases' borders, share of the KL to the start) in the compute of the run."""
    run = plan.rl_steps * plan.rollouts * plan.rollout_units + plan.sft_phases * plan.sft_sequences * TRAIN
    border = 2 * FORWARD * (plan.asked + plan.demonstrations + plan.shift_rollouts) * plan.sft_phases / plan.every
    return border / run, FORWARD * plan.kl_rollouts * plan.rl_steps / run


def rollout_units(num_epochs: int, has_reference: bool, has_critic: bool) -> int:
    """Generation, log-probs and an update of every epoch; a reference's log-probs; a critic's values and update."""
    return 2 * FORWARD + TRAIN * num_epochs + FORWARD * has_reference + (FORWARD + TRAIN * num_epochs) * has_critic


def measured(lines: Iterable[dict[str, Any]], total_seconds: float) -> dict[str, float | None]:
    """Of the records of a run: the probes' ``seconds``, and their shares of the run's seconds and of its compute.

    The compute is that of the response tokens, the run's without a reference and a critic.
    """
    seconds = run = probes = 0.0
    for line in lines:
        seconds += line["seconds"].get("probe", 0.0) + line["seconds"].get("kl_to_start", 0.0)
        if line["phase"] == "rl":
            run += (line["rollouts"] or 0) * (line["response_length"] or 0.0) * rollout_units(1, False, False)
            probes += (line.get("kl_tokens") or 0) * FORWARD
        else:
            sizes = line.get("probe") or {}
            run += line["response_tokens"] * TRAIN
            probes += (sizes.get("generated_tokens", 0) + sizes.get("forward_tokens", 0)) * FORWARD
    return {
        "seconds": seconds,
        "share_of_seconds": seconds / total_seconds if total_seconds else None,
        "share_of_compute": probes / run if run else None,
    }
