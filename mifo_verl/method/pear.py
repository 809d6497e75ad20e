"""PEAR (arXiv 2602.01058): SFT weighed by how far the policy would go on as the teacher did.

Shapes: B sequences, T response positions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mifo_verl.errors import is_number, require, require_choice, require_count
from mifo_verl.method.sft_loss import SFT_LOSSES, WeighedNll
from mifo_verl.method.token_facts import TEACHER


@SFT_LOSSES.register("pear")
@dataclass(frozen=True)
class Pear(WeighedNll):
    """w_t = gamma^(T-t) prod over j > t of pi(s_j) / pi_teacher(s_j): PEAR (arXiv 2602.01058), by suffix.

    A token counts as far as the policy would go on as the teacher did. Each log-ratio is clipped first, to [low, high],
    and then their sum, to [total_low, total_high]. T is the last response token, kept or not; a token's own ratio is
    not in its weight. The paper's block form has ``block=4``: its tokens share the weight of what is behind them,
    and gamma counts blocks. ``per=sequence`` is one weight for all: the product over the response, without gamma.
    gamma = 1 and low = high = 0 is ``nll``, and so is gamma = 1 where the policy is the teacher.
    """

    gamma: float = 0.999
    low: float = -0.08
    high: float = 0.3
    total_low: float = -10.0
    total_high: float = 5.0
    per: Literal["suffix", "sequence"] = "suffix"
    block: int = 1
    """Tokens that share a weight, counted from the first; 1 is the paper's token form. ``sequence`` has no blocks."""

    def __post_init__(self) -> None:
        is_share = is_number(self.gamma) and 0 < self.gamma <= 1
        require(is_share, "gamma", self.gamma, "in (0, 1]", "the paper's value is 0.999")
        for low, high, values in (("low", "high", "-0.08 and 0.3"), ("total_low", "total_high", "-10 and 5")):
            for name in (low, high):
                value = getattr(self, name)
                is_finite = is_number(value) and math.isfinite(value)
                require(is_finite, name, value, "a finite number", f"the paper has {values}")
            value, most = getattr(self, low), getattr(self, high)
            require(value <= most, low, value, f"at most {high}={most}", f"the paper has {values}")
        require_choice("per", self.per, ("suffix", "sequence"))
        require_count("block", self.block, "the paper has blocks of 4, and 1 is its token form")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({TEACHER})

    def weight(self, log_prob_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]) -> Tensor:
        ratio_BT = (log_prob_BT - facts[TEACHER]).clamp(self.low, self.high)
        ratio_BT = torch.where(response_mask_BT, ratio_BT, 0.0)
        if self.per == "sequence":
            return ratio_BT.sum(dim=1, keepdim=True).clamp(self.total_low, self.total_high).exp()
        block_T = torch.arange(ratio_BT.shape[1], device=ratio_BT.device) // self.block
        from_here_BT = torch.nn.functional.pad(ratio_BT.flip(1).cumsum(1).flip(1), (0, 1))
        behind_BT = from_here_BT[:, ((block_T + 1) * self.block).clamp(max=ratio_BT.shape[1])]
        last_B = (response_mask_BT.sum(dim=1) - 1).div(self.block, rounding_mode="floor")
        behind_BT = behind_BT + (last_B[:, None] - block_T) * math.log(self.gamma)
        return behind_BT.clamp(self.total_low, self.total_high).exp()

    def describe(self) -> str:
        of = "what follows" if self.per == "suffix" else "the demonstration"
        return f"negative log-likelihood, each token weighed by the policy's ratio to the teacher on {of}"
