"""SFT beside the policy's own correct rollouts of the interval, which RL has made already: an anchor, and replay.

Shapes: B rollouts, T response positions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from mifo_verl.errors import require_choice, require_number
from mifo_verl.method.constraint import CONSTRAINTS, Constraint
from mifo_verl.method.part import OWN_KL, OWN_LOG_PROB, OWN_ROLLOUTS
from mifo_verl.method.policy_shift import k3
from mifo_verl.method.sft_loss import mean_over_response
from mifo_verl.types import Cost, Problem, RunFacts


def own_problems(setting: str, value: object, facts: RunFacts) -> Iterable[Problem]:
    """What keeps the one who needs own rollouts from them."""
    if not facts.has_sft_phases or facts.starts_with_sft:
        rule = "beside SFT phases that follow RL steps, whose correct rollouts it needs"
        yield Problem(setting, value, rule, "choose mifo/schedule=when_full or every, or leave it out")


@CONSTRAINTS.register("kl_rollouts")
@dataclass(frozen=True)
class KlRollouts(Constraint):
    """L + strength mean_t KL(policy* || policy) on own correct rollouts; policy* is that at the SFT phase's begin.

    Its own correct answers are what SFT may make it forget, and the KL to the policy before foretells that (RL's Razor,
    arXiv 2509.04259). The direction is that of the samples: policy* has drawn them, so that this KL is a plain mean
    over them, and KL(policy || policy*) would need new ones of every policy on the way. At strength 0 it is plain SFT,
    to the bit.
    """

    strength: float = 1.0
    """beta. No paper states one for this use."""
    estimator: Literal["token", "exact"] = "token"
    """``token``: k3 at the rollout's token, of log-probs taken once, at the phase's begin. ``exact``: over the
    vocabulary, for which every update passes under the weights before the phase too, and keeps two logits."""

    def __post_init__(self) -> None:
        require_number("strength", self.strength, 0, "0 is mifo/constraint=none")
        require_choice("estimator", self.estimator, ("token", "exact"))

    @property
    def needs(self) -> frozenset[str]:
        of_before = OWN_LOG_PROB if self.estimator == "token" else OWN_KL
        return frozenset({OWN_ROLLOUTS, of_before} if self.strength else ())

    @property
    def own_weight(self) -> float:
        return self.strength

    def own_loss(self, facts: Mapping[str, Tensor], response_mask_BT: Tensor) -> Tensor:
        is_exact = self.estimator == "exact"  # k3's r is p / p* of what policy* has drawn; kl_anchor's is p* / p
        kl_BT = facts[OWN_KL] if is_exact else k3(facts[OWN_LOG_PROB], facts["log_prob"])
        return mean_over_response(kl_BT, response_mask_BT, response_mask_BT)

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        return own_problems(self.setting("name"), self.name, facts)

    def costs(self, facts: RunFacts) -> Iterable[Cost]:
        if self.strength and self.estimator == "exact":
            yield Cost("weights before SFT, for a pass", 4, ("sft",), "4T/W")

    def describe(self) -> str:
        return f"a penalty of {self.strength:g} on the KL to the policy before the phase on its own correct rollouts"


@CONSTRAINTS.register("replay")
@dataclass(frozen=True)
class Replay(Constraint):
    """L + weight mean_t -log p on own correct rollouts: experience replay. At weight 0 it is plain SFT, to the bit.

    Unlike an anchor it pulls from the first update on, towards what was right and away from the rest.
    """

    weight: float = 1.0
    """1 has as many own rollouts count as much as the demonstrations. No paper states one for this use."""

    def __post_init__(self) -> None:
        require_number("weight", self.weight, 0, "0 is mifo/constraint=none")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({OWN_ROLLOUTS} if self.weight else ())

    @property
    def own_weight(self) -> float:
        return self.weight

    def own_loss(self, facts: Mapping[str, Tensor], response_mask_BT: Tensor) -> Tensor:
        return mean_over_response(-facts["log_prob"], response_mask_BT, response_mask_BT)

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        return own_problems(self.setting("name"), self.name, facts)

    def describe(self) -> str:
        return f"SFT on its own correct rollouts too, {self.weight:g} times as much as on demonstrations"
