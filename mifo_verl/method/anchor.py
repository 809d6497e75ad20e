"""Controls that pull the policy back to theta*, the weights at the begin of the SFT phase, and freeze nothing.

``ewc``: L + c/2 sum_j F_j (theta_j - theta*_j)^2, a spring on every weight (after Kirkpatrick et al. 2017, with what RL
changed in place of the Fisher information). ``kl_anchor``: L + beta KL(policy, policy*), a spring on what it says.
Shapes: N coordinates of one tensor's shard, B sequences, T response positions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from mifo_verl.errors import require, require_choice, require_number
from mifo_verl.method.constraint import CONSTRAINTS, ActiveConstraint, Constraint, Model, Observer, given_to
from mifo_verl.method.importance import Fisher, Importance, second_moment_problems
from mifo_verl.method.policy_shift import k3
from mifo_verl.method.sft_loss import mean_over_response
from mifo_verl.method.token_facts import BEFORE
from mifo_verl.types import Cost, Phase, Problem, RunFacts


@CONSTRAINTS.register("ewc")
@dataclass(frozen=True)
class Ewc(Constraint):
    """The gradient of SFT + strength F (theta - theta*), before the clip. At strength 0 it is plain SFT, to the bit."""

    strength: float = 100.0
    """c. No paper states one for this use: sweep 10 to 10,000."""
    fisher: Literal["importance", "second_moment", "ones"] = "importance"
    """F: the score of mifo/importance or the second moment of RL's AdamW, an estimate of the squared gradient, each
    divided by its mean over all coordinates; or 1 everywhere (L2-SP)."""
    decoupled: bool = False
    """Whether theta <- theta - lr strength F (theta - theta*) follows the update instead: AdamW rescales a gradient."""

    def __post_init__(self) -> None:
        require_number("strength", self.strength, 0, "0 is mifo/constraint=none")
        require_choice("fisher", self.fisher, ("importance", "second_moment", "ones"))
        require(isinstance(self.decoupled, bool), "decoupled", self.decoupled, "true or false", "true is not rescaled")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"start"}) if self.strength and self.fisher == "importance" else frozenset()

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        if self.strength and self.fisher == "second_moment":
            yield from second_moment_problems("mifo.constraint.fisher=second_moment", facts)

    def attach(self, model: Model, importance: Importance) -> ActiveConstraint:
        score = Fisher() if self.fisher == "second_moment" else importance
        return ActiveEwc(self, model, score) if self.strength else ActiveConstraint()

    def costs(self, facts: RunFacts) -> Iterable[Cost]:
        if facts.has_sft_phases and self.strength:
            yield Cost("anchor of the weights", 4, ("sft",), "4T/W")
            yield Cost("their importance", 4, ("sft",), "4T/W")

    def describe(self) -> str:
        weighed = {"importance": ", by what RL changed", "second_moment": ", by RL's squared gradients", "ones": ""}
        return f"a penalty of {self.strength:g}/2 on the squared change of the weights{weighed[self.fisher]}"


class ActiveEwc(ActiveConstraint):
    """theta* and F of one rank's shards, while an SFT phase runs."""

    def __init__(self, rule: Ewc, model: Model, importance: Importance) -> None:
        self._rule = rule
        self._model = model
        self._importance = importance
        self.anchor: list[Tensor] = []
        self.fisher: list[Tensor] = []

    @torch.no_grad()
    def select(
        self,
        start: Sequence[Tensor] | None,
        interval: int,
        observe: Observer | None,
        optimizer: Optimizer | None = None,
    ) -> None:
        weights = self._model.weights()
        self.anchor = [weight.clone() for weight in weights]
        self.fisher = [torch.ones_like(weight) for weight in weights]
        if self._rule.fisher != "ones":
            start = start if "start" in self._rule.needs else weights
            if start is None:
                raise RuntimeError("the interval has no start; begin() comes before select()")
            given = given_to(self._importance, self._model, optimizer)
            self.fisher = [
                self._importance(start_N.to(end_N.device), end_N, where, interval, *more)
                for start_N, end_N, where, more in zip(start, weights, self._model.slices, given, strict=True)
            ]
            sums = torch.zeros(2, dtype=torch.float64, device=weights[0].device)
            for score_N in self.fisher:
                sums += torch.stack([score_N.sum(dtype=torch.float64), sums.new_tensor(score_N.numel())])
            total, number = self._model.shards.sum(sums).tolist()
            for score_N in self.fisher:
                score_N.mul_(number / total if total else 0.0)  # where RL has changed nothing, nothing is held

    @torch.no_grad()
    def before_update(self, phase: Phase) -> None:
        if phase is Phase.SFT and not self._rule.decoupled:
            for gradient_N, pull_N in zip(self._model.gradients(), self._pulls(), strict=True):
                if gradient_N is not None:
                    gradient_N.add_(pull_N)

    @torch.no_grad()
    def after_update(self, phase: Phase, optimizer: Optimizer) -> None:
        if phase is Phase.SFT and self._rule.decoupled:
            for weight_N, pull_N in zip(self._model.weights(), self._pulls(), strict=True):
                weight_N.sub_(pull_N, alpha=optimizer.param_groups[0]["lr"])

    def _pulls(self) -> Iterable[Tensor]:
        """c F (theta - theta*), one tensor after the other."""
        for weight_N, anchor_N, fisher_N in zip(self._model.weights(), self.anchor, self.fisher, strict=True):
            yield (weight_N - anchor_N).mul_(fisher_N).mul_(self._rule.strength)

    def release(self, optimizer: Optimizer) -> None:
        self.anchor, self.fisher = [], []

    def state(self) -> dict[str, Tensor]:
        held = {"anchor": self.anchor, "fisher": self.fisher}
        return {f"{name}.{number}": tensor for name, each in held.items() for number, tensor in enumerate(each)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        numbers = range(len(self._model.slices) if "anchor.0" in state else 0)
        device = self._model.weights()[0].device
        self.anchor, self.fisher = (
            [state[f"{name}.{number}"].to(device) for number in numbers] for name in ("anchor", "fisher")
        )


@CONSTRAINTS.register("kl_anchor")
@dataclass(frozen=True)
class KlAnchor(Constraint):
    """L + strength mean_t KL(policy || policy*) on the response tokens of demonstrations, exact over the vocabulary.

    Motivated by RL's Razor (arXiv 2509.04259): the KL to the policy before predicts what is forgotten. At strength 0 it
    is plain SFT, to the bit.
    """

    strength: float = 0.1
    """beta. No paper states one for this use."""
    reverse: bool = False
    """Whether it is KL(policy* || policy) instead."""
    estimator: Literal["exact", "token"] = "exact"
    """``token``: k3 at the demonstration's token, for which no second logits are kept."""

    def __post_init__(self) -> None:
        require_number("strength", self.strength, 0, "0 is mifo/constraint=none")
        require(isinstance(self.reverse, bool), "reverse", self.reverse, "true or false", "false is KL(now || before)")
        require_choice("estimator", self.estimator, ("exact", "token"))
        is_known = self.estimator == "exact" or not self.reverse
        require(is_known, "reverse", self.reverse, "false with estimator=token", "use estimator=exact")

    @property
    def needs(self) -> frozenset[str]:
        exact = "kl_from_before" if self.reverse else "kl_to_before"
        return frozenset({BEFORE if self.estimator == "token" else exact} if self.strength else ())

    def penalty(self, facts: Mapping[str, Tensor], response_mask_BT: Tensor) -> Tensor:
        (kl_BT,) = (facts[name] for name in self.needs)
        kl_BT = k3(facts["log_prob"], kl_BT) if self.estimator == "token" else kl_BT
        return self.strength * mean_over_response(kl_BT, response_mask_BT, response_mask_BT)

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if not facts.has_sft_phases:
            rule = "beside SFT phases, at whose begin its anchor is taken, and mifo.schedule has none"
            yield Problem(self.setting("name"), self.name, rule, "use mifo/constraint=none")

    def costs(self, facts: RunFacts) -> Iterable[Cost]:
        if self.strength:
            yield Cost("weights before SFT, for a pass", 4, ("sft",), "4T/W")

    def describe(self) -> str:
        return f"a penalty of {self.strength:g} on the KL to the policy before the phase"
