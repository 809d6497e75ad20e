"""What the training of a run has cost so far, and whether its budget is spent."""

from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig

from mifo_verl.loop.events import Event, StepEnded, UpdateMade
from mifo_verl.run.compute import RlCost
from mifo_verl.verl.critic import has_critic


class Budget:
    """Adds up the FLOPs of a run's records: those before a resume (``lines``), and those that it sees."""

    def __init__(self, limit: float | None, lines: Iterable[dict[str, Any]]) -> None:
        self._limit = limit
        self._spent = float(sum(line.get("flops", 0) for line in lines))

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepEnded | UpdateMade):
            self._spent += event.flops

    @property
    def share(self) -> float:
        """The share of the limit that is spent; 0 without one."""
        return 0.0 if self._limit is None else self._spent / self._limit

    @property
    def is_spent(self) -> bool:
        return self._limit is not None and self._spent >= self._limit


def rl_cost(config: DictConfig, num_weights: int, extra_trainings: int = 0) -> RlCost:
    """How often an RL step of this config passes over its tokens; ``extra_trainings`` are the mixing's own passes."""
    actor, algorithm = config.actor_rollout_ref.actor, config.algorithm
    correction = algorithm.get("rollout_correction")
    recomputes = not (correction and correction.get("bypass_mode", False))
    reference = bool(actor.use_kl_loss or algorithm.use_kl_in_reward)
    critic = has_critic(config)
    return RlCost(
        num_weights=num_weights,
        forwards=int(recomputes) + int(reference) + int(critic),
        trainings=int(actor.ppo_epochs),
        critic_trainings=int(config.critic.ppo_epochs) if critic else 0,
        extra_trainings=extra_trainings,
    )
