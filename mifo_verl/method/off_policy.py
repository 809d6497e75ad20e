"""How tokens that were given, not sampled, count in the RL loss.

A rollout that begins with tokens of a demonstration (mifo/prefix) has tokens of two origins. verl's loss counts the
sampled ones; the rules here give the loss of the given ones, which is aggregated with the same mode and constants.
Shapes: B sequences, T response positions.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from mifo_verl.errors import exact_share, require, require_choice, require_positive
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry
from mifo_verl.method.sft_loss import SFT_LOSSES, SftLoss
from mifo_verl.method.token_selection import keep_top
from mifo_verl.types import Problem, RunFacts, Share


class OffPolicy(Part):
    """``off_policy(log_prob_BT, old_log_prob_BT, advantage_BT, facts) -> loss_BT``: what each given token adds.

    loss_BT is float32; positions that were sampled are left out by the caller. ``log_prob_BT`` is live,
    ``old_log_prob_BT`` the same tokens under the policy before this step's updates, and ``advantage_BT`` the group
    advantage of the whole rollout. ``facts`` has what the rule ``needs``: ``given`` (bool, the given tokens),
    ``first`` (bool, whether the rollout is the first of its micro-group), ``entropy`` under the old policy. None of
    them but ``log_prob_BT`` has a gradient.
    """

    @property
    def aggregation(self) -> str | None:
        """verl's ``loss_agg_mode`` for loss_BT; the RL loss's if None."""
        return None

    def __call__(
        self, log_prob_BT: Tensor, old_log_prob_BT: Tensor, advantage_BT: Tensor, facts: Mapping[str, Tensor]
    ) -> Tensor:
        raise NotImplementedError

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """A rule for given tokens needs rollouts that have some."""
        yield from self.not_given(("given", "first", "entropy"))
        if not facts.has_prefixes:
            rule = "beside a prefix, and no rollout has one"
            yield Problem(self.setting("name"), self.name, rule, "choose mifo/prefix=whole, or mifo/off_policy=none")
        elif facts.temperature != 1:
            rule = f"taken at the temperature of the rollouts, {facts.temperature}"
            cure = "write actor_rollout_ref.rollout.temperature=1 for the paper's p"
            yield Problem(self.setting("name"), self.name, rule, cure, is_error=False)

    def not_under_token_mean(self, facts: RunFacts) -> Iterable[Problem]:
        """For a rule under which given tokens do not count as the others do."""
        if facts.loss_aggregation == "token-mean":
            rule = "another rule under loss_agg_mode=token-mean, whose denominator counts the given tokens"
            yield Problem(self.setting("name"), self.name, rule, "choose rl=dr_grpo, or mifo/off_policy=shaped")


OFF_POLICIES: Registry[OffPolicy] = Registry("mifo/off_policy", OffPolicy)


@OFF_POLICIES.register("none")
@dataclass(frozen=True)
class NotTrained(OffPolicy):
    """Given tokens are a start and nothing more: only what follows them is trained (BREAD)."""

    def __call__(
        self, log_prob_BT: Tensor, old_log_prob_BT: Tensor, advantage_BT: Tensor, facts: Mapping[str, Tensor]
    ) -> Tensor:
        return torch.zeros_like(log_prob_BT, dtype=torch.float32)

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if facts.has_prefixes:
            yield from self.not_under_token_mean(facts)

    def describe(self) -> str:
        return "given tokens are not trained on"


@OFF_POLICIES.register("shaped")
@dataclass(frozen=True)
class Shaped(OffPolicy):
    """-A p / (p + gamma), p live: LUFFY's shaped policy (arXiv 2504.14945, eq. 8), gamma = 0.1.

    Its gradient 0.1 p / (p + 0.1)^2 is largest where p = 0.1: tokens that the policy finds unlikely still learn.
    """

    gamma: float = 0.1

    def __post_init__(self) -> None:
        require_positive("gamma", self.gamma, "LUFFY's value is 0.1")

    def __call__(
        self, log_prob_BT: Tensor, old_log_prob_BT: Tensor, advantage_BT: Tensor, facts: Mapping[str, Tensor]
    ) -> Tensor:
        p_BT = log_prob_BT.float().exp()
        return -advantage_BT * p_BT / (p_BT + self.gamma)

    def describe(self) -> str:
        return f"given tokens count with p / (p + {self.gamma:g})"


@OFF_POLICIES.register("ratio")
@dataclass(frozen=True)
class Ratio(OffPolicy):
    """PPO's clipped -A pi / pi_old on the top share of the given tokens by entropy (Prefix-RFT, arXiv 2507.01679)."""

    share: Share = 0.2
    clip: float = 0.2

    def __post_init__(self) -> None:
        require(exact_share("share", self.share) > 0, "share", self.share, "in (0, 1]", "use mifo/off_policy=none")
        require_positive("clip", self.clip, "the paper's RL has 0.2")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"given", "entropy"})

    def __call__(
        self, log_prob_BT: Tensor, old_log_prob_BT: Tensor, advantage_BT: Tensor, facts: Mapping[str, Tensor]
    ) -> Tensor:
        kept_BT = keep_top(facts["entropy"], facts["given"], self.share)
        ratio_BT = (log_prob_BT - old_log_prob_BT).float().clamp(-20, 20).exp()
        clipped_BT = ratio_BT.clamp(1 - self.clip, 1 + self.clip)
        loss_BT = torch.maximum(-advantage_BT * ratio_BT, -advantage_BT * clipped_BT)
        return torch.where(kept_BT, loss_BT, 0.0)

    def describe(self) -> str:
        return f"the top {self.share} of the given tokens by entropy count as sampled ones"


@OFF_POLICIES.register("supervised")
@dataclass(frozen=True)
class Supervised(OffPolicy):
    """coefficient * an SFT loss of the given tokens, whatever the reward (UFT, arXiv 2505.16984; TRAPO, 2512.17636).

    UFT: 0.001 * nll, a mean over the hint. TRAPO: trsft, summed as RL's, of the first rollout of each micro-group.
    """

    loss: Mapping[str, object] = field(default_factory=lambda: {"name": "nll"})
    """A part of ``mifo/sft_loss`` that needs log-probabilities alone; the run's own, unless it is set."""
    coefficient: float = 1.0
    per: str = "trajectory"
    """``trajectory``: aggregated as the RL loss; ``token_mean``: a mean over the given tokens of a rollout."""
    members: str = "all"
    """``first``: one rollout of each micro-group; ``all`` of them."""

    def __post_init__(self) -> None:
        try:
            self._sft_loss  # noqa: B018  builds it
        except ValueError as error:
            rule = f"a part of mifo/sft_loss ({error})"
            raise ValueError(f"loss={self.loss} must be {rule}; choose one with mifo/sft_loss=<name>") from None
        is_number = isinstance(self.coefficient, int | float) and not isinstance(self.coefficient, bool)
        is_weight = is_number and 0 <= self.coefficient < math.inf
        require(is_weight, "coefficient", self.coefficient, "a finite number of at least 0", "UFT has 0.001, TRAPO 1")
        require_choice("per", self.per, ("trajectory", "token_mean"))
        require_choice("members", self.members, ("all", "first"))

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"first"} if self.members == "first" else ())

    @cached_property
    def _sft_loss(self) -> SftLoss:
        return SFT_LOSSES.build(self.loss)

    @property
    def aggregation(self) -> str | None:
        return "seq-mean-token-mean" if self.per == "token_mean" else None

    def __call__(
        self, log_prob_BT: Tensor, old_log_prob_BT: Tensor, advantage_BT: Tensor, facts: Mapping[str, Tensor]
    ) -> Tensor:
        if self.coefficient == 0:
            return torch.zeros_like(log_prob_BT, dtype=torch.float32)
        log_prob_N1 = log_prob_BT.reshape(-1, 1)  # each token as a sequence of its own, so that none is divided
        on_N1 = torch.ones_like(log_prob_N1, dtype=torch.bool)
        loss_BT = self.coefficient * self._sft_loss(log_prob_N1, on_N1, on_N1, {}).view_as(log_prob_BT)
        return loss_BT if self.members == "all" else torch.where(facts["first"], loss_BT, 0.0)

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        if self._sft_loss.needs:
            rule = f"a loss of log-probabilities alone, and it needs {', '.join(sorted(self._sft_loss.needs))}"
            yield self.problem("loss", rule, "choose mifo/sft_loss=nll, dft or chord_phi")
        if self.per == "token_mean" or self.coefficient == 0:
            yield from self.not_under_token_mean(facts)

    def describe(self) -> str:
        of = "all rollouts" if self.members == "all" else "one rollout of each micro-group"
        return f"{self.coefficient:g} times the {self._sft_loss.describe()} on the given tokens of {of}"
