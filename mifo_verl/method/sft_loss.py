"""L_SFT(s) = -(1/|s|) sum over kept t of log pi(s_t | q, s_<t) (MIFO section 3, token selection).

The sum is divided by all |s| response tokens, not by the number kept. Shapes: B sequences, T response positions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry
from mifo_verl.method.token_facts import unknown_facts
from mifo_verl.types import Problem, RunFacts


class SftLoss(Part):
    """``loss(log_prob_BT, keep_BT, response_mask_BT, facts) -> loss_B``, float32, one number a sequence.

    0 for a sequence without response tokens (padding). ``facts`` are those that the loss ``needs``: float32, shape BT,
    without gradient.
    """

    def __call__(
        self, log_prob_BT: Tensor, keep_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]
    ) -> Tensor:
        raise NotImplementedError

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        return unknown_facts(self)


SFT_LOSSES: Registry[SftLoss] = Registry("mifo/sft_loss", SftLoss)


def mean_over_response(value_BT: Tensor, keep_BT: Tensor, response_mask_BT: Tensor) -> Tensor:
    """sum of the kept values / |s|, per sequence, float32; what is not kept may be anything, infinities too."""
    num_tokens_B = response_mask_BT.sum(dim=1).clamp(min=1)
    return torch.where(keep_BT, value_BT.float(), 0.0).sum(dim=1) / num_tokens_B


@SFT_LOSSES.register("nll")
@dataclass(frozen=True)
class Nll(SftLoss):
    """-log p: MIFO's loss, and plain SFT where every token is kept."""

    def __call__(
        self, log_prob_BT: Tensor, keep_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]
    ) -> Tensor:
        return mean_over_response(-log_prob_BT, keep_BT, response_mask_BT)

    def describe(self) -> str:
        return "negative log-likelihood"


@SFT_LOSSES.register("dft")
@dataclass(frozen=True)
class Dft(SftLoss):
    """-sg[p] log p: dynamic fine-tuning, each token weighed by its own probability without gradient."""

    def __call__(
        self, log_prob_BT: Tensor, keep_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]
    ) -> Tensor:
        log_prob_BT = log_prob_BT.float()
        return mean_over_response(-log_prob_BT.detach().exp() * log_prob_BT, keep_BT, response_mask_BT)

    def describe(self) -> str:
        return "negative log-likelihood, each token weighed by its own probability"


@SFT_LOSSES.register("chord_phi")
@dataclass(frozen=True)
class ChordPhi(SftLoss):
    """-sg[p (1 - p)] log p: neither what the policy knows nor what it finds absurd (CHORD-phi, arXiv 2508.11408)."""

    def __call__(
        self, log_prob_BT: Tensor, keep_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]
    ) -> Tensor:
        log_prob_BT = log_prob_BT.float()
        p_BT = log_prob_BT.detach().exp()
        return mean_over_response(-p_BT * (1 - p_BT) * log_prob_BT, keep_BT, response_mask_BT)

    def describe(self) -> str:
        return "negative log-likelihood, each token weighed by p (1 - p)"
