"""How much RL changed each coordinate, and what is remembered of it (MIFO section 3, steps 3 to 5).

Delta_j = |theta_end,j - theta_start,j|; C~ = alpha C_{i-1} + (1 - alpha) Delta; C_i = M * C~.
Shapes: N coordinates of one tensor's shard, a contiguous range of the whole flattened tensor.
"""

from dataclasses import dataclass

from torch import Tensor

from mifo_verl.method.coordinates import BITS, ShardRange, random_bits
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry


class Importance(Part):
    """``importance(start_N, end_N, where, interval) -> score_N`` >= 0, float32.

    ``start_N`` and ``end_N`` are the float32 master weights at the two ends of the RL phase.
    """

    def __call__(self, start_N: Tensor, end_N: Tensor, where: ShardRange, interval: int) -> Tensor:
        raise NotImplementedError


IMPORTANCES: Registry[Importance] = Registry("mifo/importance", Importance)


@IMPORTANCES.register("abs_change")
@dataclass(frozen=True)
class AbsChange(Importance):
    """|theta_end - theta_start|, the update magnitude (MIFO)."""

    def __call__(self, start_N: Tensor, end_N: Tensor, where: ShardRange, interval: int) -> Tensor:
        return (end_N.float() - start_N.float()).abs_()

    def describe(self) -> str:
        return "most changed by RL"


@IMPORTANCES.register("random")
@dataclass(frozen=True)
class RandomImportance(Importance):
    """A control: a score in (0, 1] that depends on the seed, the interval and the coordinate, and on no shard."""

    seed: int = 0

    def __call__(self, start_N: Tensor, end_N: Tensor, where: ShardRange, interval: int) -> Tensor:
        bits_N = random_bits(f"{self.seed}/{interval}", where, end_N.numel(), end_N.device)
        return (bits_N + 1).float() / (1 << BITS)

    def describe(self) -> str:
        return "drawn at random"


def accumulate_(history_N: Tensor, score_N: Tensor, alpha: float) -> Tensor:
    """C~ = alpha C + (1 - alpha) Delta, written into ``history_N`` (float32), which is returned."""
    return history_N.mul_(alpha).add_(score_N, alpha=1.0 - alpha)


def forget_unselected_(history_N: Tensor, frozen_N: Tensor) -> Tensor:
    """C = M * C~: the coordinates outside the mask are forgotten. In place; returns ``history_N``."""
    return history_N.masked_fill_(~frozen_N, 0.0)
