"""verl's loss on sampled tokens and LUFFY's on given ones, put together: worked out by hand, however it is cut."""

import math
from functools import partial

import pytest
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig
from verl.workers.utils.losses import ppo_loss

from mifo_verl.method.off_policy import NotTrained, Ratio, Shaped, Supervised
from mifo_verl.method.on_policy import LogLikelihood, Verls
from mifo_verl.verl.rl_loss import CORRECT, FIRST, PREFIX, RlLoss, rl_loss

# a rollout with A = -0.25 and a demonstration with A = 0.75, three tokens each; constants 8 tokens, 2 sequences
P = [[0.55, 0.2, 0.4], [0.5, 0.05, 0.9]]
OLD = [[0.5, 0.1, 0.8], [0.5, 0.05, 0.9]]
ADVANTAGE = [-0.25, 0.75]


def jagged(rows, dtype=torch.float32):
    return torch.nested.as_nested_tensor([torch.as_tensor(row, dtype=dtype) for row in rows], layout=torch.jagged)


def verls(clip, mode="seq-mean-token-sum-norm"):
    config = FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=1,
        ppo_mini_batch_size=1,
        ppo_micro_batch_size_per_gpu=1,
        entropy_coeff=0.0,
        clip_ratio=clip,
        clip_ratio_low=min(clip, 1.0),
        clip_ratio_high=clip,
        clip_ratio_c=1e9,
        loss_agg_mode=mode,
        loss_scale_factor=8,
        use_kl_loss=False,
    )
    return partial(ppo_loss, config=config)


def batch(rows, prefix):
    data = TensorDict(
        {
            "prompts": jagged([[1, 1]] * len(rows), torch.long),
            "responses": jagged([[1, 1, 1]] * len(rows), torch.long),
            "response_mask": jagged([[1, 1, 1]] * len(rows), torch.long),
            "old_log_probs": jagged([torch.tensor(OLD[row]).log() for row in rows]),
            "advantages": jagged([[ADVANTAGE[row]] * 3 for row in rows]),
            "entropy": jagged([[1.22060726, 0.42804827, 0.42804827] for row in rows]),
            CORRECT: torch.tensor([1 for row in rows]),
        },
        batch_size=[len(rows)],
    )
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=6, global_batch_size=2)
    if prefix is not None:
        tu.assign_non_tensor_stack(data, PREFIX, prefix)
    tu.assign_non_tensor_stack(data, FIRST, [1] * len(rows))
    return data


def loss_and_gradient(loss_function, rows, prefix):
    log_probs = [torch.tensor(P[row]).log().requires_grad_() for row in rows]
    # verl's outputs stand one place before the token that they are of, behind two prompt tokens
    shifted = [torch.cat([torch.zeros(1), log_prob, torch.zeros(1)]) for log_prob in log_probs]
    output = {"log_probs": torch.nested.as_nested_tensor(shifted, layout=torch.jagged)}
    loss, _ = loss_function(model_output=output, data=batch(rows, prefix))
    loss.backward()
    return loss.item(), [log_prob.grad.tolist() for log_prob in log_probs]


def test_luffys_two_losses_add_up_and_are_divided_by_verls_constants():
    luffy = RlLoss(verls(clip=1e9), Shaped(gamma=0.1), Verls())
    loss, (rollout, demonstration) = loss_and_gradient(luffy, [0, 1], prefix=[0, 3])
    assert loss == pytest.approx((0.1125 - 0.19375) / 2, abs=1e-6)
    assert rollout == pytest.approx([0.034375 / 2, 0.0625 / 2, 0.015625 / 2], abs=1e-6)
    assert demonstration == pytest.approx([-0.01302083 / 2, -0.02083333 / 2, -0.00843750 / 2], abs=1e-6)


def test_the_loss_does_not_depend_on_how_the_update_is_cut():
    luffy = RlLoss(verls(clip=1e9), Shaped(gamma=0.1), Verls())
    whole, gradient = loss_and_gradient(luffy, [0, 1], prefix=[0, 3])
    first, second = loss_and_gradient(luffy, [0], prefix=[0]), loss_and_gradient(luffy, [1], prefix=[3])
    assert first[0] + second[0] == pytest.approx(whole, abs=1e-7)
    assert [*first[1], *second[1]] == [pytest.approx(row, abs=1e-7) for row in gradient]


def test_a_prefix_that_is_not_trained_leaves_the_loss_of_its_continuation():
    bread = RlLoss(verls(clip=0.2), NotTrained(), Verls())
    loss, (gradient,) = loss_and_gradient(bread, [1], prefix=[2])
    # one token is left, at ratio 1: -0.75 / 8 tokens / 2 sequences
    assert loss == pytest.approx(-0.75 / 16, abs=1e-7)
    assert gradient == pytest.approx([0.0, 0.0, -0.75 / 16], abs=1e-7)


def test_srfts_rollouts_count_by_their_answer_and_its_demonstration_as_luffys():
    srft = RlLoss(verls(clip=0.2), Shaped(gamma=0.1), LogLikelihood())
    loss, (rollout, demonstration) = loss_and_gradient(srft, [0, 1], prefix=[0, 3])
    # a right rollout: -0.1 exp(0.6922346) log p / 8; its advantage of -0.25 counts no more
    log_p = sum(map(math.log, P[0]))
    assert loss == pytest.approx((-0.19981757 * log_p / 8 - 0.19375) / 2, abs=1e-6)
    assert rollout == pytest.approx([-0.02497720 / 2] * 3, abs=1e-6)
    assert demonstration == pytest.approx([-0.01302083 / 2, -0.02083333 / 2, -0.00843750 / 2], abs=1e-6)
    first, second = loss_and_gradient(srft, [0], prefix=[0]), loss_and_gradient(srft, [1], prefix=[3])
    assert first[0] + second[0] == pytest.approx(loss, abs=1e-7)


def test_a_rule_is_given_what_it_needs_and_nothing_else():
    seen = []

    class Watching(Ratio):
        def __call__(self, log_prob_BT, old_log_prob_BT, advantage_BT, facts):
            seen.append(sorted(facts))
            return super().__call__(log_prob_BT, old_log_prob_BT, advantage_BT, facts)

    loss_and_gradient(RlLoss(verls(clip=0.2), Watching(), Verls()), [1], prefix=[2])
    assert seen == [["entropy", "given"]]


def test_without_given_tokens_loss_and_gradient_are_verls_to_the_bit():
    verl = verls(clip=0.2)
    expected = loss_and_gradient(verl, [0, 1], prefix=[0, 0])
    for prefix in ([0, 0], None):
        assert loss_and_gradient(RlLoss(verl, Shaped(), Verls()), [0, 1], prefix=prefix) == expected
    assert expected[0] == pytest.approx((0.121875 - 0.75 * 3 / 8) / 2, abs=1e-6)


def test_a_run_without_prefixes_has_verls_own_loss_function():
    verl = verls(clip=0.2)
    assert rl_loss(verl, Shaped(), Verls(), has_prefixes=False) is verl
    assert isinstance(rl_loss(verl, Shaped(), Verls(), has_prefixes=True), RlLoss)
    assert isinstance(rl_loss(verl, Shaped(), LogLikelihood(), has_prefixes=False), RlLoss)


def of_a_prefix(off_policy, clip=0.2):
    """A response of 4, its first two tokens given: p = (0.05, 0.6 | 0.4, 0.5), A = 0.5, one sequence, constant 8."""
    log_prob = torch.tensor([0.05, 0.6, 0.4, 0.5]).log().requires_grad_()
    data = TensorDict(
        {
            "prompts": jagged([[1, 1]], torch.long),
            "responses": jagged([[1] * 4], torch.long),
            "response_mask": jagged([[1] * 4], torch.long),
            "old_log_probs": jagged([log_prob.detach()]),
            "advantages": jagged([[0.5] * 4]),
            "entropy": jagged([[1.2, 0.3, 9.0, 9.0]]),
        },
        batch_size=[1],
    )
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=4, global_batch_size=1)
    tu.assign_non_tensor_stack(data, PREFIX, [2])
    tu.assign_non_tensor_stack(data, FIRST, [1])
    shifted = torch.cat([torch.zeros(1), log_prob, torch.zeros(1)])
    output = {"log_probs": torch.nested.as_nested_tensor([shifted], layout=torch.jagged)}
    loss, _ = RlLoss(verls(clip), off_policy, Verls())(model_output=output, data=data)
    loss.backward()
    return loss.item(), log_prob.grad.tolist()


RL_ALONE = (-0.125, [0, 0, -0.0625, -0.0625])


@pytest.mark.parametrize(
    ("off_policy", "expected"),
    [
        (NotTrained(), RL_ALONE),
        (Supervised(coefficient=0, per="token_mean"), RL_ALONE),
        (Ratio(share=0.2), (-0.1875, [-0.0625, 0, -0.0625, -0.0625])),
        (Supervised(coefficient=0.001, per="token_mean"), (-0.12324672, [-0.0005, -0.0005, -0.0625, -0.0625])),
        (
            Supervised({"name": "trsft", "alpha": 0.1}, members="first"),
            (0.12608647, [-0.0625, -0.125, -0.0625, -0.0625]),
        ),
    ],
    ids=["bread", "uft without its coefficient", "prefix_rft", "uft", "trapo"],
)
def test_a_prefix_and_its_continuation_have_the_loss_of_the_method(off_policy, expected):
    loss, gradient = of_a_prefix(off_policy)
    assert loss == pytest.approx(expected[0], abs=1e-6) and gradient == pytest.approx(expected[1], abs=1e-6)


def test_supervision_at_coefficient_0_is_no_training_to_the_bit():
    assert of_a_prefix(Supervised(coefficient=0)) == of_a_prefix(NotTrained())


@pytest.mark.parametrize("rule", [Supervised(coefficient=0.5, per="token_mean"), Supervised(), NotTrained()])
def test_no_loss_of_given_tokens_depends_on_how_the_update_is_cut(rule):
    loss_function = RlLoss(verls(clip=0.2), rule, Verls())
    whole, gradient = loss_and_gradient(loss_function, [0, 1], prefix=[2, 3])
    first, second = (loss_and_gradient(loss_function, [row], prefix=[prefix]) for row, prefix in ((0, 2), (1, 3)))
    assert first[0] + second[0] == pytest.approx(whole, abs=1e-6)
    assert [*first[1], *second[1]] == [pytest.approx(row, abs=1e-6) for row in gradient]
