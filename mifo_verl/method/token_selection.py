"""Which response tokens count in the SFT loss: the top share rho by entropy (MIFO section 3, token selection).

Shapes: B sequences, T response positions.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mifo_verl.errors import exact_share, require
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry
from mifo_verl.method.token_facts import unknown_facts
from mifo_verl.types import Problem, RunFacts, Share


class TokenSelector(Part):
    """``selector(facts, response_mask_BT, seed_B) -> keep_BT`` (bool): True where a token counts.

    Only True where ``response_mask_BT`` is. ``facts`` are those that the selector ``needs``: float32, shape BT, without
    gradient.
    """

    def __call__(self, facts: Mapping[str, Tensor], response_mask_BT: Tensor, seed_B: Tensor) -> Tensor:
        raise NotImplementedError

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        return unknown_facts(self, facts)

    def kept_tokens(self, num_response_tokens: int) -> int | None:
        """Tokens kept of a response of this length, which a ledger promises; None if that depends on the response."""
        return None


TOKEN_SELECTORS: Registry[TokenSelector] = Registry("mifo/token_selector", TokenSelector)


def keep_top(score_BT: Tensor, response_mask_BT: Tensor, ratio: Share) -> Tensor:
    """keep_BT: in each sequence exactly ceil(ratio * |s|) response tokens of the highest score.

    Ties go to the earlier position. The count is exact integer arithmetic on the ratio as typed.
    """
    num_keep = [_top_count(ratio, num_tokens) for num_tokens in response_mask_BT.sum(dim=1).tolist()]
    num_keep_B = torch.tensor(num_keep, device=score_BT.device)
    score_BT = score_BT.detach().float().masked_fill(~response_mask_BT, -torch.inf)
    order_BT = torch.sort(score_BT, dim=1, descending=True, stable=True).indices
    kept_first_BT = torch.arange(score_BT.shape[1], device=score_BT.device) < num_keep_B[:, None]
    keep_BT = torch.zeros_like(response_mask_BT).scatter_(1, order_BT, kept_first_BT)
    return keep_BT & response_mask_BT


def _top_count(ratio: Share, num_tokens: int) -> int:
    # in Python: the numerator of a share such as 0.3333333333333333 times |s| does not fit into an int64
    return math.ceil(exact_share("ratio", ratio) * num_tokens)


def _require_ratio(ratio: Share) -> None:
    require(
        exact_share("ratio", ratio) > 0, "ratio", ratio, "in (0, 1]", "use mifo/token_selector=all to keep every token"
    )


@TOKEN_SELECTORS.register("top_entropy")
@dataclass(frozen=True)
class TopEntropy(TokenSelector):
    """The top share rho by entropy, per sequence, ceil(rho * |s|) tokens (MIFO; rho = 0.2)."""

    ratio: Share = 0.2

    def __post_init__(self) -> None:
        _require_ratio(self.ratio)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"entropy"})

    def __call__(self, facts: Mapping[str, Tensor], response_mask_BT: Tensor, seed_B: Tensor) -> Tensor:
        return keep_top(facts["entropy"], response_mask_BT, self.ratio)

    def kept_tokens(self, num_response_tokens: int) -> int:
        return _top_count(self.ratio, num_response_tokens)

    def describe(self) -> str:
        return f"the top {self.ratio} of a demonstration's tokens by entropy"


@TOKEN_SELECTORS.register("all")
@dataclass(frozen=True)
class AllTokens(TokenSelector):
    """Every response token: plain SFT."""

    def __call__(self, facts: Mapping[str, Tensor], response_mask_BT: Tensor, seed_B: Tensor) -> Tensor:
        return response_mask_BT.clone()

    def kept_tokens(self, num_response_tokens: int) -> int:
        return num_response_tokens

    def describe(self) -> str:
        return "every token of a demonstration"


@TOKEN_SELECTORS.register("random")
@dataclass(frozen=True)
class RandomTokens(TokenSelector):
    """A control: as many tokens as ``top_entropy``, drawn at random from the sequence's own seed."""

    ratio: Share = 0.2

    def __post_init__(self) -> None:
        _require_ratio(self.ratio)

    def __call__(self, facts: Mapping[str, Tensor], response_mask_BT: Tensor, seed_B: Tensor) -> Tensor:
        # drawn position by position on the host, so that padding, batch and device do not change the draw
        score_BT = torch.zeros(response_mask_BT.shape, dtype=torch.float32)
        for row, (seed, mask_T) in enumerate(zip(seed_B.tolist(), response_mask_BT, strict=True)):
            drawn = torch.rand(int(mask_T.sum()), generator=torch.Generator().manual_seed(int(seed)))
            score_BT[row, mask_T.cpu()] = drawn
        return keep_top(score_BT.to(response_mask_BT.device), response_mask_BT, self.ratio)

    def kept_tokens(self, num_response_tokens: int) -> int:
        return _top_count(self.ratio, num_response_tokens)

    def describe(self) -> str:
        return f"{self.ratio} of a demonstration's tokens, drawn at random"
