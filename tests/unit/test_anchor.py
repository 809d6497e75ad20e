"""The controls that pull back to the weights, or to the policy, before an SFT phase: worked out by hand."""

import math

import pytest
import torch

from mifo_verl.method.anchor import Ewc, KlAnchor
from mifo_verl.method.constraint import CONSTRAINTS, ActiveConstraint
from mifo_verl.method.importance import AbsChange
from mifo_verl.method.policy_shift import token_kl
from mifo_verl.types import Phase, RunFacts
from tests.unit.test_constraint import OneTensor

SGD_LR = 0.01


def at_work(values, **settings):
    model = OneTensor(list(values))
    rule = CONSTRAINTS.build({"name": "ewc", **settings})
    return model, rule.attach(model, AbsChange()), torch.optim.SGD([model.parameter], lr=SGD_LR)


def update(model, active, optimizer, phase=Phase.SFT, gradient=(0.0, 0.0)):
    model.parameter.grad = torch.tensor(gradient)
    active.before_update(phase)
    optimizer.step()
    active.after_update(phase, optimizer)
    return model.parameter.grad.tolist()


def test_the_spring_of_ewc_worked_out_by_hand():
    model, active, optimizer = at_work([0.5, -2.5], strength=100, fisher="ones")
    active.select(None, interval=1, observe=None)
    active.fisher = [torch.tensor([0.2, 0.01])]
    model.parameter.data = torch.tensor([1.0, -2.0])
    # c F (theta - theta*) = 100 (0.2, 0.01) (0.5, 0.5), on top of the loss's own (1, 0)
    assert update(model, active, optimizer, gradient=(1.0, 0.0)) == pytest.approx([11.0, 0.5])


def test_the_pull_of_ewc_is_the_gradient_of_its_loss():
    """c/2 sum F (theta - theta*)^2 = 50 (0.2 0.25 + 0.01 0.25) = 2.625: what the pull adds up to on the way there."""
    model, active, optimizer = at_work([0.5, -2.5], strength=100, fisher="ones")
    active.select(None, interval=1, observe=None)
    active.fisher = [torch.tensor([0.2, 0.01])]
    loss = 0.0
    for step in range(10):  # in the middle of each tenth of the way, which is exact for a pull that grows evenly
        model.parameter.data = torch.tensor([0.55 + step / 20 - 0.025, -2.45 + step / 20 - 0.025])
        loss += sum(update(model, active, optimizer)) * 0.05
    assert loss == pytest.approx(2.625, rel=1e-5)


def test_an_rl_update_is_free_and_the_release_forgets_the_anchor():
    model, active, optimizer = at_work([0.0, 0.0], fisher="ones")
    active.select(None, interval=1, observe=None)
    model.parameter.data = torch.tensor([1.0, 1.0])
    assert update(model, active, optimizer, phase=Phase.RL) == [0.0, 0.0]
    active.release(optimizer)
    assert active.state() == {} and active.release(optimizer) is None


def test_what_rl_changed_is_divided_by_its_mean():
    model, active, _ = at_work([1.0, 4.0, 2.0, 3.0])
    active.select([torch.zeros(4)], interval=1, observe=None)
    assert active.fisher[0].tolist() == pytest.approx([0.4, 1.6, 0.8, 1.2])  # the mean change is 2.5
    active.select([model.parameter.detach().clone()], interval=2, observe=None)
    assert active.fisher[0].tolist() == [0.0] * 4  # RL has changed nothing


def test_the_second_moment_of_rls_adamw_is_divided_by_its_mean():
    model = OneTensor([1.0, 2.0])
    active = CONSTRAINTS.build({"name": "ewc", "fisher": "second_moment"}).attach(model, AbsChange())
    adamw = torch.optim.AdamW([model.parameter])
    active.select(None, interval=1, observe=None, optimizer=adamw)
    assert active.fisher[0].tolist() == [0.0, 0.0]  # RL has made no step
    model.parameter.grad = torch.tensor([1.0, 3.0])
    adamw.step()
    active.select(None, interval=1, observe=None, optimizer=adamw)
    assert active.fisher[0].tolist() == pytest.approx([0.2, 1.8])  # 1 and 9, over their mean


def test_decoupled_with_strength_times_lr_of_1_puts_the_weights_back():
    model, active, optimizer = at_work([1.0, 2.0], strength=1 / SGD_LR, fisher="ones", decoupled=True)
    active.select(None, interval=1, observe=None)
    gradient = update(model, active, optimizer, gradient=(3.0, -3.0))
    assert gradient == [3.0, -3.0] and model.parameter.tolist() == pytest.approx([1.0, 2.0])


def test_a_state_that_is_loaded_pulls_to_the_same_place():
    _, active, _ = at_work([1.0, 4.0])
    active.select([torch.zeros(2)], interval=1, observe=None)
    again, resumed, optimizer = at_work([5.0, 5.0])
    resumed.load(active.state())
    assert update(again, resumed, optimizer) == pytest.approx([100 * 0.4 * 4, 100 * 1.6 * 1])
    resumed.load({})
    assert (resumed.anchor, resumed.fisher) == ([], [])


P, Q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.5, 0.3, 0.2]])


def test_the_kl_of_two_policies_and_its_gradient_by_hand():
    logits = P.log().requires_grad_()
    kl = token_kl(logits, Q.log())
    kl.sum().backward()
    assert kl.tolist() == pytest.approx([0.08512283], abs=1e-7)
    # d KL / d logit_v = p_v (log p_v / q_v - KL)
    expected = [p * (math.log(p / q) - 0.08512283) for p, q in zip(P[0].tolist(), Q[0].tolist(), strict=True)]
    assert logits.grad[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert token_kl(Q.log(), P.log()).tolist() == pytest.approx([0.09203285], abs=1e-7)


def test_the_backward_pass_of_the_kl_does_not_depend_on_its_chunks():
    draw = torch.Generator().manual_seed(0)
    before, after = torch.randn(2, 7, 30, generator=draw)
    gradients = []
    for chunk in (2, 1024):
        leaf = after.clone().requires_grad_()
        token_kl(leaf, before, chunk).sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_the_penalty_of_a_policy_is_a_mean_over_the_response():
    kl, mask = torch.tensor([[0.5, 1.0, 9.0], [9.0, 9.0, 9.0]]), torch.tensor([[1, 1, 0], [0, 0, 0]]).bool()
    assert KlAnchor(0.1).penalty({"kl_to_before": kl}, mask).tolist() == pytest.approx([0.075, 0.0])
    assert KlAnchor(0.1, reverse=True).penalty({"kl_from_before": kl}, mask).tolist() == pytest.approx([0.075, 0.0])


def test_the_penalty_at_one_token_by_hand():
    log_prob = torch.tensor([[0.2, 0.5]]).log().requires_grad_()
    facts = {"log_prob": log_prob, "log_prob_before": torch.tensor([[0.3, 0.5]]).log()}
    loss_B = KlAnchor(1.0, estimator="token").penalty(facts, torch.ones(1, 2).bool())
    loss_B.sum().backward()
    assert loss_B.tolist() == pytest.approx([0.09453489 / 2], abs=1e-7)
    # d/dlog p of r - 1 - log r with r = 0.3 / p is 1 - r: -0.5 at 0.2, and 0 where nothing has changed
    assert log_prob.grad[0].tolist() == pytest.approx([-0.25, 0.0], abs=1e-6)


def test_a_strength_of_0_asks_for_nothing_and_does_nothing():
    for part in (Ewc(0), KlAnchor(0)):
        assert part.needs == frozenset() and list(part.costs(RunFacts())) == []
        assert type(part.attach(OneTensor([1.0]), AbsChange())) is ActiveConstraint
    assert Ewc().needs == {"start"} and Ewc(fisher="ones").needs == frozenset()
    assert KlAnchor().needs == {"kl_to_before"} and KlAnchor(estimator="token").needs == {"log_prob_before"}


def test_a_policy_is_held_beside_sft_phases_alone():
    (problem,) = KlAnchor().problems(RunFacts(has_sft_phases=False))
    assert problem.is_error and "mifo.schedule has none" in problem.rule
    assert list(KlAnchor().problems(RunFacts())) == []


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "ewc", "strength": -1}, "strength=-1 must be a finite number of at least 0"),
        ({"name": "ewc", "fisher": "one"}, "fisher=one must be one of importance, second_moment, ones"),
        ({"name": "kl_anchor", "strength": "much"}, "strength=much must be a finite number of at least 0"),
        ({"name": "kl_anchor", "reverse": "yes"}, "reverse=yes must be true or false"),
        ({"name": "kl_anchor", "reverse": True, "estimator": "token"}, "reverse=True must be false with"),
    ],
)
def test_settings_out_of_range_are_refused(node, message):
    with pytest.raises(ValueError, match=f"mifo.constraint.{message}"):
        CONSTRAINTS.build(node)
