"""How tokens that the policy sampled itself count in the RL loss.

``verl`` leaves them to the run's policy loss and its advantages. Another rule takes the place of that loss alone; the
entropy bonus and the KL of the run stay. Shapes: B sequences, T response positions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mifo_verl.errors import require, require_number
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry
from mifo_verl.method.sft_loss import mean_over_response
from mifo_verl.types import Problem, RunFacts


class OnPolicy(Part):
    """``on_policy(log_prob_BT, sampled_BT, facts) -> loss_BT``: what each sampled token adds, aggregated as RL's loss.

    ``log_prob_BT`` is live. ``facts`` has what it ``needs``: ``correct`` (bool, B), ``entropy`` (BT, old policy).
    """

    is_verls: bool = False
    """Whether verl's own policy loss is left as it is; the rule is never called then."""

    def __call__(self, log_prob_BT: Tensor, sampled_BT: Tensor, facts: Mapping[str, Tensor]) -> Tensor:
        raise NotImplementedError

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """A rule without advantages."""
        yield from self.not_given(("correct", "entropy"))
        if facts.has_critic:
            rule = "mifo/on_policy=verl beside a critic, whose advantages no other rule reads"
            yield Problem(self.setting("name"), self.name, rule, "choose rl=dr_grpo or rl=grpo")


ON_POLICIES: Registry[OnPolicy] = Registry("mifo/on_policy", OnPolicy)


@ON_POLICIES.register("verl")
@dataclass(frozen=True)
class Verls(OnPolicy):
    """verl's policy loss: PPO's clipped ratio times the advantage."""

    is_verls = True

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        return ()

    def describe(self) -> str:
        return "the policy gradient of verl"


@ON_POLICIES.register("log_likelihood")
@dataclass(frozen=True)
class LogLikelihood(OnPolicy):
    """-w log p of a right rollout, + negative log p of a wrong one (SRFT, arXiv 2506.19767, its self term).

    w = positive sg[exp(mean entropy of the rollout)]. Right and wrong are read off ``acc``: rewards of +1 and -1
    without a baseline. Nothing bounds the term of a wrong rollout: watch the gradient norm.
    """

    positive: float = 0.1
    negative: float = 1.0
    by_entropy: bool = True
    """Whether the weight of a right rollout grows with its entropy; without it w = positive."""

    def __post_init__(self) -> None:
        require_number("positive", self.positive, 0, "SRFT's value is 0.1")
        require_number("negative", self.negative, 0, "SRFT's value is 1")
        require(isinstance(self.by_entropy, bool), "by_entropy", self.by_entropy, "true or false", "SRFT's is true")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"correct", "entropy"} if self.by_entropy else {"correct"})

    def __call__(self, log_prob_BT: Tensor, sampled_BT: Tensor, facts: Mapping[str, Tensor]) -> Tensor:
        correct_B, weight_B = facts["correct"], torch.full_like(log_prob_BT[:, 0], self.positive, dtype=torch.float32)
        if self.by_entropy:
            weight_B = weight_B * mean_over_response(facts["entropy"], sampled_BT, sampled_BT).exp()
        factor_B = torch.where(correct_B, -weight_B, self.negative)
        return factor_B[:, None].detach() * log_prob_BT.float()

    def describe(self) -> str:
        return f"right rollouts are learnt at {self.positive:g}, wrong ones unlearnt at {self.negative:g}"
