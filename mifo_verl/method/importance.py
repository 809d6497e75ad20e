"""How much RL changed each coordinate, and what is remembered of it (MIFO section 3, steps 3 to 5).

Delta_j = |theta_end,j - theta_start,j|; C~ = alpha C_{i-1} + (1 - alpha) Delta; C_i = M * C~.
Shapes: N coordinates of one tensor's shard, a contiguous range of the whole flattened tensor.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mifo_verl.method.coordinates import BITS, ShardRange, random_bits
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry
from mifo_verl.types import Problem, RunFacts

SECOND_MOMENT = "second_moment"
"""What an importance may need: the second moments of RL's AdamW."""


class Importance(Part):
    """``importance(start_N, end_N, where, interval) -> score_N`` >= 0, float32.

    ``start_N`` and ``end_N`` are the float32 master weights at the two ends of the RL phase. ``second_moment_N``, of
    RL's AdamW at that phase's end, is given as a fifth argument if the part needs it.
    """

    def __call__(
        self, start_N: Tensor, end_N: Tensor, where: ShardRange, interval: int, *second_moment_N: Tensor
    ) -> Tensor:
        raise NotImplementedError


IMPORTANCES: Registry[Importance] = Registry("mifo/importance", Importance)


@IMPORTANCES.register("abs_change")
@dataclass(frozen=True)
class AbsChange(Importance):
    """|theta_end - theta_start|, the update magnitude (MIFO)."""

    def __call__(self, start_N: Tensor, end_N: Tensor, where: ShardRange, interval: int, *_: Tensor) -> Tensor:
        return (end_N.float() - start_N.float()).abs_()

    def describe(self) -> str:
        return "most changed by RL"


@IMPORTANCES.register("fisher")
@dataclass(frozen=True)
class Fisher(Importance):
    """The second moment of RL's AdamW: the running mean of the squared gradient, an estimate of Fisher's diagonal."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({SECOND_MOMENT})

    def __call__(
        self, start_N: Tensor, end_N: Tensor, where: ShardRange, interval: int, *second_moment_N: Tensor
    ) -> Tensor:
        (score_N,) = second_moment_N
        return score_N.float().clone()

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        return second_moment_problems("mifo/importance=fisher", facts)

    def describe(self) -> str:
        return "of the largest squared gradients in RL"


@IMPORTANCES.register("random")
@dataclass(frozen=True)
class RandomImportance(Importance):
    """A control: a score in (0, 1] that depends on the seed, the interval and the coordinate, and on no shard."""

    seed: int = 0

    def __call__(self, start_N: Tensor, end_N: Tensor, where: ShardRange, interval: int, *_: Tensor) -> Tensor:
        bits_N = random_bits(f"{self.seed}/{interval}", where, end_N.numel(), end_N.device)
        return (bits_N + 1).float() / (1 << BITS)

    def describe(self) -> str:
        return "drawn at random"


def second_moments(states: Iterable[tuple[int, str, Tensor]], weights: Sequence[Tensor]) -> list[Tensor]:
    """Those of every weight, flat, from an optimizer's (parameter's number, name, state_N); 0 before its first step."""
    found = {number: state_N for number, name, state_N in states if name == "exp_avg_sq"}
    return [found[number] if number in found else torch.zeros_like(weight_N) for number, weight_N in enumerate(weights)]


def second_moment_problems(asked: str, facts: RunFacts) -> Iterable[Problem]:
    """What keeps a part that was ``asked`` for from RL's second moments."""
    if facts.has_sft_phases and facts.optimizer not in ("AdamW", "Adam"):
        setting = "actor_rollout_ref.actor.optim.optimizer"
        yield Problem(setting, facts.optimizer, f"AdamW, whose second moments {asked} reads", f"use {setting}=AdamW")
    if facts.has_sft_phases and facts.sft_optimizer == "shared":
        rule = f"puts SFT's gradients into the moments that {asked} reads as RL's"
        yield Problem("mifo.sft.optimizer", "shared", rule, "use mifo.sft.optimizer=separate", is_error=False)


def accumulate_(history_N: Tensor, score_N: Tensor, alpha: float) -> Tensor:
    """C~ = alpha C + (1 - alpha) Delta, written into ``history_N`` (float32), which is returned."""
    return history_N.mul_(alpha).add_(score_N, alpha=1.0 - alpha)


def forget_unselected_(history_N: Tensor, frozen_N: Tensor) -> Tensor:
    """C = M * C~: the coordinates outside the mask are forgotten. In place; returns ``history_N``."""
    return history_N.masked_fill_(~frozen_N, 0.0)
