"""L_SFT(s) = -(1/|s|) sum over kept t of w_t log pi(s_t | q, s_<t): a family of losses, each one weight w_t.

MIFO's has w = 1 (section 3, token selection). The sum is divided by all |s| response tokens, not by the number kept.
A weight has no gradient. Below, p = pi(s_t | q, s_<t) and l = log p. Shapes: B sequences, T response positions.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mifo_verl.errors import (
    exact_share,
    require,
    require_count,
    require_number,
    require_positive,
)
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry
from mifo_verl.method.token_facts import BEFORE, unknown_facts
from mifo_verl.types import Cost, Problem, RunFacts, Share


class SftLoss(Part):
    """``loss(log_prob_BT, keep_BT, response_mask_BT, facts) -> loss_B``, float32, one number a sequence.

    0 for a sequence without response tokens (padding). ``facts`` are those that the loss ``needs``: float32, shape BT
    (``progress`` has no dimension), without gradient.
    """

    def __call__(
        self, log_prob_BT: Tensor, keep_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]
    ) -> Tensor:
        raise NotImplementedError

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        return unknown_facts(self, facts)

    def costs(self, facts: RunFacts) -> Iterable[Cost]:
        if BEFORE in self.needs:
            yield Cost("weights before SFT, for a pass", 4, ("sft",), "4N/W")


SFT_LOSSES: Registry[SftLoss] = Registry("mifo/sft_loss", SftLoss)


def mean_over_response(value_BT: Tensor, keep_BT: Tensor, response_mask_BT: Tensor) -> Tensor:
    """sum of the kept values / |s|, per sequence, float32; what is not kept may be anything, infinities too."""
    num_tokens_B = response_mask_BT.sum(dim=1).clamp(min=1)
    return torch.where(keep_BT, value_BT.float(), 0.0).sum(dim=1) / num_tokens_B


@SFT_LOSSES.register("nll")
@dataclass(frozen=True)
class Nll(SftLoss):
    """-l: MIFO's loss, and plain SFT where every token is kept."""

    def __call__(
        self, log_prob_BT: Tensor, keep_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]
    ) -> Tensor:
        return mean_over_response(-log_prob_BT, keep_BT, response_mask_BT)

    def describe(self) -> str:
        return "negative log-likelihood"


class WeighedNll(SftLoss):
    """-sg[w] l, for a weight of its own."""

    def weight(self, log_prob_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]) -> Tensor:
        """weight_BT, or one a sequence (B1): finite wherever ``log_prob_BT`` (float32, no gradient) is below 0."""
        raise NotImplementedError

    def __call__(
        self, log_prob_BT: Tensor, keep_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]
    ) -> Tensor:
        log_prob_BT = log_prob_BT.float()
        weight_BT = self.weight(log_prob_BT.detach(), response_mask_BT, facts)
        return mean_over_response(-weight_BT * log_prob_BT, keep_BT, response_mask_BT)


@SFT_LOSSES.register("dft")
@dataclass(frozen=True)
class Dft(WeighedNll):
    """w = p: dynamic fine-tuning, each token weighed by its own probability."""

    def weight(self, log_prob_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]) -> Tensor:
        return log_prob_BT.exp()

    def describe(self) -> str:
        return "negative log-likelihood, each token weighed by its own probability"


@SFT_LOSSES.register("chord_phi")
@dataclass(frozen=True)
class ChordPhi(WeighedNll):
    """w = p (1 - p): neither what the policy knows nor what it finds absurd (CHORD-phi, arXiv 2508.11408)."""

    def weight(self, log_prob_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]) -> Tensor:
        p_BT = log_prob_BT.exp()
        return p_BT * (1 - p_BT)

    def describe(self) -> str:
        return "negative log-likelihood, each token weighed by p (1 - p)"


@SFT_LOSSES.register("trsft")
@dataclass(frozen=True)
class TrSft(WeighedNll):
    """w = p / max(p, alpha): SFT on what the policy finds likely, DFT below (TRAPO's TrSFT, arXiv 2512.17636).

    alpha = 1 is ``dft``. TRAPO's own code has the value -p / max(p, alpha), whose gradient is the same.
    """

    alpha: Share = 0.1

    def __post_init__(self) -> None:
        require(exact_share("alpha", self.alpha) > 0, "alpha", self.alpha, "in (0, 1]", "use mifo/sft_loss=nll")

    def weight(self, log_prob_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]) -> Tensor:
        p_BT = log_prob_BT.exp()
        return p_BT / p_BT.clamp(min=float(exact_share("alpha", self.alpha)))

    def describe(self) -> str:
        return f"negative log-likelihood, tokens of a probability below {self.alpha} weighed by p / {self.alpha}"


@SFT_LOSSES.register("idft")
@dataclass(frozen=True)
class Idft(WeighedNll):
    """w = p^gamma, gamma = 1 + ramp (clip(exp(-(l + H) / beta), low, high) - 1) (Towards On-Policy SFT, its code).

    l + H says how typical a token is of the policy: a surprising one is weighed down. The ramp goes from 0 to 1 over
    ``length`` of the run, behind its first ``start``; at ramp 0 the loss is ``dft``. The code clamps p at 1e-10, which
    p^gamma as exp(gamma l) can do without.
    """

    beta: float = 1.0
    start: Share = 0.2
    """The share of the run's steps before the ramp."""
    length: Share = 0.1
    """The share of the run's steps that the ramp takes; 0 is a jump."""
    low: float = 0.1
    high: float = 2.0

    def __post_init__(self) -> None:
        require_positive("beta", self.beta, "the paper's code has 1")
        exact_share("start", self.start)
        exact_share("length", self.length)
        require_number("low", self.low, 0, "the code has 0.1")
        require_number("high", self.high, self.low, "it is no less than low; the code has 2")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"entropy", "progress"})

    def weight(self, log_prob_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]) -> Tensor:
        finite_BT = log_prob_BT.clamp(min=-1e4)  # exp(-1e4) is 0 too
        surprise_BT = (-(finite_BT + facts["entropy"]) / self.beta).exp().clamp(self.low, self.high)
        ramp = self.ramp(float(facts["progress"]))
        return ((1 + ramp * (surprise_BT - 1)) * finite_BT).exp()

    def ramp(self, progress: float) -> float:
        """How much of gamma's rule counts at this share of the run, in [0, 1]."""
        start, length = (float(exact_share(name, getattr(self, name))) for name in ("start", "length"))
        if progress < start:
            return 0.0
        return min(1.0, (progress - start) / length) if length else 1.0

    def describe(self) -> str:
        return f"negative log-likelihood, each token weighed by p^gamma, gamma in [{self.low:g}, {self.high:g}]"


@SFT_LOSSES.register("entropy_gate")
@dataclass(frozen=True)
class EntropyGate(WeighedNll):
    """w = (H_k / ln k)^power, H_k the entropy of the k likeliest tokens, renormalised (EAFT, arXiv 2601.02151).

    Little is learnt where the policy is certain and the demonstration says otherwise. power = 0 is ``nll``. The paper's
    rule; axolotl's code does not divide by ln k, which is a three times larger learning rate at k = 20.
    """

    k: int = 20
    power: float = 1.0

    def __post_init__(self) -> None:
        require_count("k", self.k, "the paper's value is 20")
        require(self.k > 1, "k", self.k, "at least 2", "one token has no entropy")
        require_number("power", self.power, 0, "0 is mifo/sft_loss=nll")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"top_entropy:{self.k}"})

    def weight(self, log_prob_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]) -> Tensor:
        (entropy_BT,) = (facts[name] for name in self.needs)
        return (entropy_BT / math.log(self.k)) ** self.power

    def describe(self) -> str:
        return f"negative log-likelihood, each token weighed by the entropy of the {self.k} likeliest"


@SFT_LOSSES.register("sequence_entropy")
@dataclass(frozen=True)
class SequenceEntropy(WeighedNll):
    """w = scale exp(-mean entropy of the sequence's response tokens) (SRFT, arXiv 2506.19767; scale 0.5)."""

    scale: float = 0.5

    def __post_init__(self) -> None:
        require_positive("scale", self.scale, "SRFT's value is 0.5")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"entropy"})

    def weight(self, log_prob_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]) -> Tensor:
        return self.scale * (-mean_over_response(facts["entropy"], response_mask_BT, response_mask_BT)).exp()[:, None]

    def describe(self) -> str:
        return f"negative log-likelihood, each demonstration weighed by {self.scale:g} exp(-its mean entropy)"


@SFT_LOSSES.register("sed")
@dataclass(frozen=True)
class Sed(SftLoss):
    """-l + strength [top-k mass < threshold] (p - 1/2)^2, p live (SED; k = 10, strength 0.2, threshold 0.95).

    Where the policy hesitates, p is also pulled to 1/2. strength = 0 or threshold = 0 is ``nll``.
    """

    k: int = 10
    strength: float = 0.2
    threshold: Share = 0.95

    def __post_init__(self) -> None:
        require_count("k", self.k, "the paper's value is 10")
        require_number("strength", self.strength, 0, "0 is mifo/sft_loss=nll")
        exact_share("threshold", self.threshold)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"top_mass:{self.k}"})

    def __call__(
        self, log_prob_BT: Tensor, keep_BT: Tensor, response_mask_BT: Tensor, facts: Mapping[str, Tensor]
    ) -> Tensor:
        log_prob_BT = log_prob_BT.float()
        (mass_BT,) = (facts[name] for name in self.needs)
        hesitates_BT = mass_BT < float(exact_share("threshold", self.threshold))
        pull_BT = torch.where(hesitates_BT, self.strength * (log_prob_BT.exp() - 0.5) ** 2, 0.0)
        return mean_over_response(pull_BT - log_prob_BT, keep_BT, response_mask_BT)

    def describe(self) -> str:
        return f"negative log-likelihood, and p pulled to 1/2 where the {self.k} likeliest hold below {self.threshold}"
