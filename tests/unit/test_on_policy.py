"""The losses of sampled tokens that are not verl's, against numbers worked out by hand."""

import pytest
import torch

from mifo_verl.method.on_policy import ON_POLICIES, LogLikelihood, Verls
from mifo_verl.types import RunFacts

LENGTH = 8
"""Dr.GRPO's constant: every sum below is divided by it."""
# the entropies of the distributions (.5, .2, .2, .1), (.05, .9, .03, .02) and (.9, .05, .03, .02): 0.69223460 on average
ENTROPY = torch.tensor([[1.22060726, 0.42804827, 0.42804827]])


def loss_and_gradient(rule, correct, mask=(1, 1, 1)):
    log_prob_BT = torch.tensor([[0.5, 0.05, 0.9]]).log().requires_grad_()
    facts = {"correct": torch.tensor([correct]), "entropy": ENTROPY}
    mask_BT = torch.tensor([mask], dtype=torch.bool)
    loss = rule(log_prob_BT, mask_BT, {name: facts[name] for name in rule.needs}).sum() / LENGTH
    loss.backward()
    return loss.item(), log_prob_BT.grad[0].tolist()


def test_a_right_rollout_is_learnt_by_its_entropy():
    loss, gradient = loss_and_gradient(LogLikelihood(), correct=True)  # w = 0.1 exp(0.6922346) = 0.19981757
    assert loss == pytest.approx(0.09476948, abs=1e-6)
    assert gradient == pytest.approx([-0.02497720] * 3, abs=1e-6)


def test_a_wrong_rollout_is_unlearnt():
    loss, gradient = loss_and_gradient(LogLikelihood(), correct=False)
    assert loss == pytest.approx(-0.47428000, abs=1e-6) and gradient == pytest.approx([0.125] * 3, abs=1e-6)


def test_without_entropy_and_with_weights_of_1_it_is_reinforce_with_rewards_of_1_and_minus_1():
    rule = LogLikelihood(positive=1, by_entropy=False)
    assert loss_and_gradient(rule, correct=True)[1] == pytest.approx([-0.125] * 3)
    assert loss_and_gradient(rule, correct=False)[1] == pytest.approx([0.125] * 3)
    assert rule.needs == {"correct"} and LogLikelihood().needs == {"correct", "entropy"}


def test_the_entropy_is_that_of_the_sampled_tokens_alone():
    _, gradient = loss_and_gradient(LogLikelihood(positive=1), correct=True, mask=(0, 1, 1))
    assert gradient[1] == pytest.approx(-1.5342604 / 8, abs=1e-6)  # exp(0.42804827)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "log_likelihood", "positive": -1}, "mifo.on_policy.positive=-1 must be a finite number of at least"),
        ({"name": "log_likelihood", "by_entropy": 1}, "mifo.on_policy.by_entropy=1 must be true or false"),
        ({"name": "verl", "clip": 1}, "mifo.on_policy.clip=1 must be a setting of verl"),
    ],
)
def test_settings_out_of_range_are_refused(node, message):
    with pytest.raises(ValueError, match=message):
        ON_POLICIES.build(node)


def test_a_rule_without_advantages_is_refused_beside_a_critic():
    facts = RunFacts(has_critic=True)
    assert [problem.value for problem in LogLikelihood().problems(facts)] == ["log_likelihood"]
    assert list(Verls().problems(facts)) == list(LogLikelihood().problems(RunFacts())) == []
