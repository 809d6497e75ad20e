"""The losses of given tokens against numbers worked out by hand; gradients are by the log-probability of a token."""

import pytest
import torch

from mifo_verl.method.off_policy import OFF_POLICIES, NotTrained, Ratio, Shaped, Supervised
from mifo_verl.types import RunFacts

LENGTH = 8
"""Dr.GRPO's constant: every sum below is divided by it."""


def loss_and_gradient(rule, p, advantage, old=None, **facts):
    log_prob_BT = torch.tensor([p]).log().requires_grad_()
    old_BT = torch.tensor([old or p]).log()
    facts = {"given": torch.ones(1, len(p), dtype=torch.bool), **facts}
    loss = rule(log_prob_BT, old_BT, torch.full((1, len(p)), advantage), facts).sum() / LENGTH
    loss.backward()
    return loss.item(), log_prob_BT.grad[0].tolist()


def test_luffys_shaped_policy_is_live():
    loss, gradient = loss_and_gradient(Shaped(gamma=0.1), [0.5, 0.05, 0.9], advantage=0.75)
    assert loss == pytest.approx(-0.19375, abs=1e-6)
    assert gradient == pytest.approx([-0.01302083, -0.02083333, -0.00843750], abs=1e-6)


def test_a_large_gamma_takes_the_demonstration_out():
    loss, gradient = loss_and_gradient(Shaped(gamma=1e9), [0.5, 0.05, 0.9], advantage=0.75)
    assert abs(loss) < 1e-8 and max(map(abs, gradient)) < 1e-8


def test_given_tokens_that_are_a_start_and_nothing_more_add_nothing():
    rule = NotTrained()
    assert rule(torch.tensor([[-1.0]]), torch.tensor([[-1.0]]), torch.tensor([[2.0]]), {}).tolist() == [[0.0]]


def test_prefix_rft_keeps_the_top_fifth_of_the_given_tokens_by_entropy():
    entropy = torch.tensor([[1.2, 0.3]])
    loss, gradient = loss_and_gradient(Ratio(share=0.2), [0.05, 0.6], advantage=0.5, entropy=entropy)
    assert loss == pytest.approx(-0.0625, abs=1e-6)
    assert gradient == pytest.approx([-0.0625, 0.0], abs=1e-6)


def test_prefix_rft_with_share_1_is_ppos_clipped_loss():
    # ratios 1.1, 2 and 0.5 with A = -0.25: below 0.8 the loss is 0.8 * 0.25 and has no gradient
    entropy = torch.zeros(1, 3)
    loss, gradient = loss_and_gradient(
        Ratio(share=1), [0.55, 0.2, 0.4], advantage=-0.25, old=[0.5, 0.1, 0.8], entropy=entropy
    )
    assert loss == pytest.approx(0.121875, abs=1e-6)
    assert gradient == pytest.approx([0.034375, 0.0625, 0.0], abs=1e-6)


def test_supervision_is_an_sft_loss_of_each_given_token_whatever_the_advantage():
    for advantage in (0.5, -0.5):
        loss, gradient = loss_and_gradient(Supervised({"name": "dft"}, 0.5), [0.5, 0.05, 0.9], advantage=advantage)
        # 0.5 * -p log p / 8, with p held still
        assert loss == pytest.approx(0.5 * 0.59118468 / 8, abs=1e-6)
        assert gradient == pytest.approx([-0.03125, -0.003125, -0.05625], abs=1e-6)


def test_supervision_of_the_first_of_a_micro_group_leaves_the_others_out():
    rule, first = Supervised(members="first"), torch.tensor([[True, True], [False, False]])
    log_prob_BT = torch.full((2, 2), -1.0)
    assert rule(log_prob_BT, log_prob_BT, log_prob_BT, {"first": first}).tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_supervision_has_an_aggregation_of_its_own_only_per_token_mean():
    assert Supervised().aggregation is None and Supervised(per="token_mean").aggregation == "seq-mean-token-mean"
    assert Shaped().aggregation is None


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "shaped", "gamma": 0}, "mifo.off_policy.gamma=0 must be a number above 0"),
        ({"name": "ratio", "share": 0}, r"mifo.off_policy.share=0 must be in \(0, 1\]"),
        ({"name": "ratio", "clip": -1}, "mifo.off_policy.clip=-1 must be a number above 0"),
        (
            {"name": "supervised", "coefficient": -1},
            "mifo.off_policy.coefficient=-1 must be a finite number of at least 0",
        ),
        ({"name": "supervised", "per": "token"}, "mifo.off_policy.per=token must be one of trajectory, token_mean"),
        ({"name": "supervised", "members": "one"}, "mifo.off_policy.members=one must be one of all, first"),
        (
            {"name": "supervised", "loss": {"name": "nlll"}},
            r"mifo.off_policy.loss={'name': 'nlll'} must be a part of mifo/sft_loss \(mifo.sft_loss.name=nlll must be one",
        ),
    ],
)
def test_settings_out_of_range_are_refused(node, message):
    with pytest.raises(ValueError, match=message):
        OFF_POLICIES.build(node)


def problems(part, **facts):
    return [problem.rule for problem in part.problems(RunFacts(**{"has_prefixes": True} | facts))]


def test_a_rule_for_given_tokens_needs_some_and_the_temperature_that_the_paper_means():
    assert problems(Shaped()) == [] and problems(NotTrained(), has_prefixes=False) == []
    assert problems(Shaped(), has_prefixes=False) == ["beside a prefix, and no rollout has one"]
    assert problems(Shaped(), temperature=0.7) == ["taken at the temperature of the rollouts, 0.7"]
    for rule in (NotTrained(), Supervised(coefficient=0), Supervised(per="token_mean")):
        assert "whose denominator counts the given tokens" in problems(rule, loss_aggregation="token-mean")[0]
    assert problems(Supervised(), loss_aggregation="token-mean") == []
