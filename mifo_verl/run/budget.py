"""What the training of a run has cost so far, and whether its budget is spent."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mifo_verl.run.compute import RlCost, sft_flops
from mifo_verl.run.journal import METRICS, read_lines
from mifo_verl.verl.critic import has_critic


class Spending:
    """Gives every record its ``flops``; the sum is that of the records, so that a resumed run goes on with it."""

    def __init__(self, config: DictConfig, num_weights: int, limit: float | None) -> None:
        actor, algorithm = config.actor_rollout_ref.actor, config.algorithm
        correction = algorithm.get("rollout_correction")
        recomputes = not (correction and correction.get("bypass_mode", False))
        reference = bool(actor.use_kl_loss or algorithm.use_kl_in_reward)
        critic = has_critic(config)
        self.rl = RlCost(
            num_weights=num_weights,
            forwards=int(recomputes) + int(reference) + int(critic),
            trainings=int(actor.ppo_epochs) + (int(config.critic.ppo_epochs) if critic else 0),
        )
        self._file = Path(config.run_dir) / METRICS
        self._limit = limit
        self._spent: float | None = None

    def of_rl(self, line: dict[str, Any], num_sequences: int) -> dict[str, int]:
        """``generated_tokens`` and ``flops`` of an RL record whose batch had so many rollouts.

        Rollouts that were made and not trained on (DAPO's) count with the batch's mean length.
        """
        made = (num_sequences + line["discarded_rollouts"]) / num_sequences if num_sequences else 0.0
        trained = line["prompt_tokens"] + line["response_tokens"]
        return {
            "generated_tokens": round(line["response_tokens"] * made),
            "flops": self.rl.flops(trained, round(trained * made)),
        }

    def of_sft(self, line: dict[str, Any]) -> dict[str, int]:
        """``flops`` of an SFT record."""
        return {"flops": sft_flops(self.rl.num_weights, line["prompt_tokens"] + line["response_tokens"])}

    def is_over(self, new_lines: list[dict[str, Any]]) -> bool:
        """Whether the budget is spent, with these records of the step just written."""
        if self._limit is None:
            return False
        if self._spent is None:  # a run that goes on has records from before
            self._spent, new_lines = 0.0, read_lines(self._file)
        self._spent += sum(line.get("flops", 0) for line in new_lines)
        return self._spent >= self._limit
