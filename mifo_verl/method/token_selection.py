"""Which response tokens count in the SFT loss: the top share rho by entropy (MIFO section 3, token selection).

Shapes: B sequences, T response positions.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mifo_verl.registry import Registry
from mifo_verl.types import Share, exact_share, require


class TokenSelector(Protocol):
    """keep_BT (bool): True where a token counts. Only True where ``response_mask_BT`` is, and without gradient."""

    def __call__(self, entropy_BT: Tensor, response_mask_BT: Tensor, seed_B: Tensor) -> Tensor: ...


TOKEN_SELECTORS: Registry[TokenSelector] = Registry("mifo/token_selector")


def keep_top(score_BT: Tensor, response_mask_BT: Tensor, ratio: Share) -> Tensor:
    """keep_BT: in each sequence exactly ceil(ratio * |s|) response tokens of the highest score.

    Ties go to the earlier position. The count is exact integer arithmetic on the ratio as typed.
    """
    share = exact_share("ratio", ratio)
    # in Python: the numerator of a share such as 0.3333333333333333 times |s| does not fit into an int64
    num_keep = [math.ceil(share * num_tokens) for num_tokens in response_mask_BT.sum(dim=1).tolist()]
    num_keep_B = torch.tensor(num_keep, device=score_BT.device)
    score_BT = score_BT.detach().float().masked_fill(~response_mask_BT, -torch.inf)
    order_BT = torch.sort(score_BT, dim=1, descending=True, stable=True).indices
    kept_first_BT = torch.arange(score_BT.shape[1], device=score_BT.device) < num_keep_B[:, None]
    keep_BT = torch.zeros_like(response_mask_BT).scatter_(1, order_BT, kept_first_BT)
    return keep_BT & response_mask_BT


def _require_ratio(ratio: Share) -> None:
    require(
        exact_share("ratio", ratio) > 0, "ratio", ratio, "in (0, 1]", "use mifo/token_selector=all to keep every token"
    )


@TOKEN_SELECTORS.register("top_entropy")
@dataclass(frozen=True)
class TopEntropy:
    """The top share rho by entropy, per sequence, ceil(rho * |s|) tokens (MIFO; rho = 0.2)."""

    ratio: Share = 0.2

    def __post_init__(self) -> None:
        _require_ratio(self.ratio)

    def __call__(self, entropy_BT: Tensor, response_mask_BT: Tensor, seed_B: Tensor) -> Tensor:
        return keep_top(entropy_BT, response_mask_BT, self.ratio)


@TOKEN_SELECTORS.register("all")
@dataclass(frozen=True)
class AllTokens:
    """Every response token: plain SFT."""

    def __call__(self, entropy_BT: Tensor, response_mask_BT: Tensor, seed_B: Tensor) -> Tensor:
        return response_mask_BT.clone()


@TOKEN_SELECTORS.register("random")
@dataclass(frozen=True)
class RandomTokens:
    """A control: as many tokens as ``top_entropy``, drawn at random from the sequence's own seed."""

    ratio: Share = 0.2

    def __post_init__(self) -> None:
        _require_ratio(self.ratio)

    def __call__(self, entropy_BT: Tensor, response_mask_BT: Tensor, seed_B: Tensor) -> Tensor:
        # drawn position by position on the host, so that padding, batch and device do not change the draw
        score_BT = torch.zeros(entropy_BT.shape, dtype=torch.float32)
        for row, (seed, mask_T) in enumerate(zip(seed_B.tolist(), response_mask_BT, strict=True)):
            drawn = torch.rand(int(mask_T.sum()), generator=torch.Generator().manual_seed(int(seed)))
            score_BT[row, mask_T.cpu()] = drawn
        return keep_top(score_BT.to(entropy_BT.device), response_mask_BT, self.ratio)
