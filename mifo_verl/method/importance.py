"""How much RL changed each coordinate, and what is remembered of it (MIFO section 3, steps 3 to 5).

Delta_j = |theta_end,j - theta_start,j|; C~ = alpha C_{i-1} + (1 - alpha) Delta; C_i = M * C~.
Shapes: N coordinates of one tensor's shard, a contiguous range of the whole flattened tensor.
"""

import zlib
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mifo_verl.registry import Registry


@dataclass(frozen=True)
class ShardRange:
    """Which coordinates a shard holds: ``[first, first + N)`` of the flattened parameter ``name``."""

    name: str
    first: int


class ImportanceScorer(Protocol):
    """score_N >= 0, float32, from the float32 master weights at the two ends of the RL phase."""

    def __call__(self, start_N: Tensor, end_N: Tensor, where: ShardRange, interval: int) -> Tensor: ...


IMPORTANCE_SCORERS: Registry[ImportanceScorer] = Registry("mifo/importance")


@IMPORTANCE_SCORERS.register("abs_change")
@dataclass(frozen=True)
class AbsChange:
    """|theta_end - theta_start|, the update magnitude (MIFO)."""

    def __call__(self, start_N: Tensor, end_N: Tensor, where: ShardRange, interval: int) -> Tensor:
        return (end_N.float() - start_N.float()).abs_()


@IMPORTANCE_SCORERS.register("random")
@dataclass(frozen=True)
class RandomImportance:
    """A control: a score in (0, 1] that depends on the seed, the interval and the coordinate, and on no shard."""

    seed: int = 0

    def __call__(self, start_N: Tensor, end_N: Tensor, where: ShardRange, interval: int) -> Tensor:
        key = zlib.crc32(f"{self.seed}/{interval}/{where.name}".encode())
        index_N = torch.arange(where.first, where.first + end_N.numel(), device=end_N.device)
        return ((_mix(index_N + (key << 31)) & 0xFFFFFF) + 1).float() / (1 << 24)


def _mix(bits_N: Tensor) -> Tensor:
    """A 64-bit avalanche hash (SplitMix64's finaliser) of int64 counters, in wrapping integer arithmetic."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        # >> is arithmetic in torch: the mask makes it the logical shift that the hash is defined with
        bits_N = (bits_N ^ ((bits_N >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return bits_N ^ ((bits_N >> 31) & ((1 << 33) - 1))


def accumulate_(history_N: Tensor, score_N: Tensor, alpha: float) -> Tensor:
    """C~ = alpha C + (1 - alpha) Delta, written into ``history_N`` (float32), which is returned."""
    return history_N.mul_(alpha).add_(score_N, alpha=1.0 - alpha)


def forget_unselected_(history_N: Tensor, frozen_N: Tensor) -> Tensor:
    """C = M * C~: the coordinates outside the mask are forgotten. In place; returns ``history_N``."""
    return history_N.masked_fill_(~frozen_N, 0.0)
