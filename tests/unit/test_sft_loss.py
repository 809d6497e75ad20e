"""L_SFT: method.md part 1, token selection, trap 8; DFT of part 4."""

import math

import pytest
import torch

from mifo_verl.method.pear import Pear
from mifo_verl.method.sft_loss import (
    SFT_LOSSES,
    ChordPhi,
    Dft,
    EntropyGate,
    Idft,
    Nll,
    Sed,
    SequenceEntropy,
    TrSft,
    mean_over_response,
)
from mifo_verl.method.token_facts import token_facts

LN2 = math.log(2)
EVERY = [Nll(), Dft(), ChordPhi(), TrSft(), Idft(), EntropyGate(), SequenceEntropy(), Sed(), Pear(), Pear(block=4)]


def bools(rows):
    return torch.tensor(rows, dtype=torch.bool)


# p = 1/2, 1/4, 1/8, 1/16; the last row has a response of two tokens
LOG_PROB = -LN2 * torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 5.0, 5.0]])
RESPONSE = bools([[1, 1, 1, 1], [1, 1, 0, 0]])
KEEP = bools([[1, 0, 1, 0], [0, 1, 0, 0]])


def test_nll_is_divided_by_all_response_tokens_and_not_by_the_number_kept():
    # (ln 2 + ln 8) / 4 and ln 2 / 2; divided by the number kept it would be 2 ln 2 and ln 2
    torch.testing.assert_close(Nll()(LOG_PROB, KEEP, RESPONSE, {}), torch.tensor([LN2, LN2 / 2]))


def test_nll_of_all_tokens_is_the_mean_negative_log_likelihood():
    torch.testing.assert_close(Nll()(LOG_PROB, RESPONSE, RESPONSE, {}), torch.tensor([2.5 * LN2, LN2]))


def test_dft_weighs_each_token_by_its_probability():
    # (1/2 ln 2 + 1/8 ln 8) / 4 = 7/32 ln 2; (1/2 ln 2) / 2
    torch.testing.assert_close(Dft()(LOG_PROB, KEEP, RESPONSE, {}), torch.tensor([7 / 32 * LN2, LN2 / 4]))


def test_the_gradient_of_nll_is_minus_one_over_the_response_length_on_kept_tokens_alone():
    log_prob = LOG_PROB.clone().requires_grad_()
    Nll()(log_prob, KEEP, RESPONSE, {}).sum().backward()
    torch.testing.assert_close(log_prob.grad, torch.tensor([[-0.25, 0, -0.25, 0], [0, -0.5, 0, 0]]))


def test_the_gradient_of_dft_has_no_term_through_the_probability():
    log_prob = LOG_PROB.clone().requires_grad_()
    Dft()(log_prob, KEEP, RESPONSE, {}).sum().backward()
    # -p / |s|; with a term through p it would be -p (1 + log p) / |s|
    torch.testing.assert_close(log_prob.grad, torch.tensor([[-0.125, 0, -0.03125, 0], [0, -0.25, 0, 0]]))


def made_up(loss, log_prob_BT):
    """Facts that a position has alone, as those of logits: of any value that its p may have."""
    facts = {name: (-log_prob_BT.detach().float()).clamp(max=9.0) / 3 for name in loss.needs}
    return facts | {"progress": torch.tensor(1.0)}


# three tokens of probability 0.5, 0.05 and 0.9, and the distributions that they are drawn from
DISTRIBUTIONS = torch.tensor([[0.5, 0.2, 0.2, 0.1], [0.05, 0.9, 0.03, 0.02], [0.9, 0.05, 0.03, 0.02]])
THIRDS = [-1 / 3, -1 / 3, -1 / 3]


def worked(loss, p=(0.5, 0.05, 0.9), progress=1.0, teacher=(0.6, 0.04, 0.9)):
    """(loss, its gradient by log p) with the facts of the distributions above."""
    log_prob = torch.tensor([p]).log().requires_grad_()
    every = torch.ones(1, 3, dtype=torch.bool)
    given = {"progress": torch.tensor(progress), "teacher_log_prob": torch.tensor([teacher]).log()}
    facts = {name: fact[None] for name, fact in token_facts(DISTRIBUTIONS.log(), loss.needs - given.keys()).items()}
    loss_B = loss(log_prob, every, every, facts | given)
    loss_B.sum().backward()
    return loss_B.item(), log_prob.grad[0].tolist()


@pytest.mark.parametrize(
    ("loss", "value", "gradient"),
    [
        (Nll(), 1.26474666, THIRDS),
        (Dft(), 0.19706156, [-0.16666667, -0.01666667, -0.3]),
        (ChordPhi(), 0.10835551, [-0.08333333, -0.01583333, -0.03]),
        (TrSft(alpha=0.1), 0.76545794, [-1 / 3, -0.16666667, -1 / 3]),
        (TrSft(alpha="1/2"), 0.36602697, [-1 / 3, -0.03333333, -1 / 3]),
        (TrSft(alpha=1e-6), 1.26474666, THIRDS),
        (Idft(beta=1), 0.18852152, [-0.22143200, -0.00083333, -0.30884543]),
        (EntropyGate(k=3), 0.52611059, [-0.30190420, -0.10217255, -0.10217255]),
        (SequenceEntropy(scale=0.5), 0.31647534, [-0.08340942] * 3),
        # clipped log-ratios to the teacher (-0.08, 0.22314355, 0), so weights (1.24750125, 0.999, 1)
        (Pear(), 1.32093301, [-0.41583375, -0.333, -1 / 3]),
        (Pear(per="sequence"), 1.45938539, [-0.38463181] * 3),
        (
            Pear(block=2),
            1.26351703,
            [-0.333, -0.333, -1 / 3],
        ),  # blocks of 2 and 1: the last ratio is 1, gamma counts once
        (Sed(k=2, threshold=0.75), 1.26474666, THIRDS),  # gated in is p = 1/2 alone, which the pull leaves
    ],
)
def test_value_and_gradient_worked_out_by_hand(loss, value, gradient):
    found, by_log_prob = worked(loss)
    assert found == pytest.approx(value, abs=1e-6) and by_log_prob == pytest.approx(gradient, abs=1e-6)


def test_sed_pulls_a_token_of_probability_0_3_to_one_half_with_a_gradient():
    value, gradient = worked(Sed(k=2, threshold=0.75), p=(0.3, 0.05, 0.9))
    assert value == pytest.approx(1.43768853, abs=1e-6)
    assert gradient == pytest.approx([-0.34133333, -1 / 3, -1 / 3], abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "neighbour", "progress"),
    [
        (TrSft(alpha=1), Dft(), 1.0),
        (Idft(), Dft(), 0.19),  # before its ramp
        (Idft(low=1, high=1), Dft(), 1.0),
        (Idft(low=0, high=0, length=0), Nll(), 1.0),
        (EntropyGate(k=3, power=0), Nll(), 1.0),
        (Sed(k=2, strength=0), Nll(), 1.0),
        (Pear(gamma=1, low=0, high=0), Nll(), 1.0),
        (Pear(low=0, high=0, per="sequence"), Nll(), 1.0),
        (Pear(gamma=1, low=0, high=0, block=2), Nll(), 1.0),
        (Sed(k=2, threshold=0), Nll(), 1.0),
    ],
)
def test_at_its_extreme_a_loss_is_its_neighbour_to_the_bit(loss, neighbour, progress):
    assert worked(loss, progress=progress) == worked(neighbour)


def test_pear_is_nll_where_the_policy_is_the_teacher_and_its_total_is_clipped():
    p = (0.5, 0.05, 0.9)
    assert worked(Pear(gamma=1), teacher=p)[0] == pytest.approx(worked(Nll())[0], abs=1e-6)
    low, _ = worked(Pear(gamma=1, low=-9, high=9, total_low=-0.5), p=p, teacher=(0.9, 0.9, 0.9))
    # the last weight is 1, the second exp(0), the first exp(max(log(0.05 / 0.9), -0.5))
    assert low == pytest.approx((math.exp(-0.5) * math.log(2) - math.log(0.05) - math.log(0.9)) / 3, abs=1e-6)


def test_the_tokens_of_a_block_of_pear_share_the_ratios_behind_it():
    # log-ratios (-0.08, 0.22314355, ln(0.9 / 0.8)): the first two weigh 0.999 * 1.125, the last one 1
    value, gradient = worked(Pear(block=2), teacher=(0.6, 0.04, 0.8))
    assert value == pytest.approx(1.41706664, abs=1e-6)
    assert gradient == pytest.approx([-0.374625, -0.374625, -1 / 3], abs=1e-6)
    of_all, _ = worked(Pear(block=4))  # nothing is behind the only block
    assert of_all == worked(Nll())[0]


def test_the_rule_of_idft_comes_in_between_two_shares_of_the_run():
    ramp = [Idft(start=0.2, length=0.1).ramp(progress) for progress in (0.0, 0.199, 0.2, 0.25, 0.3, 1.0)]
    assert ramp == pytest.approx([0, 0, 0, 0.5, 1, 1])
    assert [Idft(start=0, length=0).ramp(progress) for progress in (0.0, 0.5)] == [1, 1]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "trsft", "alpha": 0}, r"mifo.sft_loss.alpha=0 must be in \(0, 1\]; use mifo/sft_loss=nll"),
        ({"name": "idft", "beta": 0}, "mifo.sft_loss.beta=0 must be a number above 0"),
        ({"name": "idft", "high": 0.05}, "mifo.sft_loss.high=0.05 must be a finite number of at least 0.1"),
        ({"name": "entropy_gate", "k": 1}, "mifo.sft_loss.k=1 must be at least 2; one token has no entropy"),
        ({"name": "entropy_gate", "power": -1}, "mifo.sft_loss.power=-1 must be a finite number of at least 0"),
        ({"name": "pear", "gamma": 0}, r"mifo.sft_loss.gamma=0 must be in \(0, 1\]"),
        ({"name": "pear", "low": 0.5}, "mifo.sft_loss.low=0.5 must be at most high=0.3"),
        ({"name": "pear", "block": 0}, "mifo.sft_loss.block=0 must be a whole number of at least 1"),
        ({"name": "pear", "per": "block"}, "mifo.sft_loss.per=block must be one of suffix, sequence"),
        ({"name": "sed", "threshold": 2}, r"mifo.sft_loss.threshold=2 must be a share in \[0, 1\]"),
    ],
)
def test_settings_out_of_range_are_refused(node, message):
    with pytest.raises(ValueError, match=message):
        SFT_LOSSES.build(node)


@pytest.mark.parametrize("loss", EVERY)
def test_the_loss_is_one_number_a_sequence_in_float32(loss):
    for dtype in (torch.float32, torch.bfloat16):
        loss_B = loss(LOG_PROB.to(dtype), KEEP, RESPONSE, made_up(loss, LOG_PROB))
        assert loss_B.shape == (2,) and loss_B.dtype is torch.float32


@pytest.mark.parametrize("loss", EVERY)
def test_the_loss_of_bfloat16_log_probabilities_is_computed_in_float32(loss):
    log_prob = (-3 * torch.rand(2, 4, generator=torch.Generator().manual_seed(1))).to(torch.bfloat16)
    facts = made_up(loss, log_prob)
    assert torch.equal(loss(log_prob, KEEP, RESPONSE, facts), loss(log_prob.float(), KEEP, RESPONSE, facts))


@pytest.mark.parametrize("loss", EVERY)
def test_loss_and_gradient_of_a_sequence_do_not_depend_on_its_micro_batch(loss):
    """Trap 8: cut the batch, pad it otherwise, permute it."""
    generator = torch.Generator().manual_seed(2)
    lengths = torch.tensor([3, 8, 1, 5, 0])
    log_prob = -torch.rand(5, 8, generator=generator)
    response = torch.arange(8) < lengths[:, None]
    keep = response & (torch.rand(5, 8, generator=generator) < 0.5)

    def both(rows, width):
        leaf = log_prob[rows, :width].clone().requires_grad_()
        loss_B = loss(leaf, keep[rows, :width], response[rows, :width], made_up(loss, leaf))
        loss_B.sum().backward()
        return loss_B.detach(), leaf.grad

    whole_loss, whole_grad = both([0, 1, 2, 3, 4], 8)
    for rows, width in (([0], 3), ([1], 8), ([2, 3], 5), ([4], 1), ([3, 0], 6), ([4, 2, 0], 3)):
        cut_loss, cut_grad = both(rows, width)
        torch.testing.assert_close(cut_loss, whole_loss[rows], rtol=1e-6, atol=0)
        torch.testing.assert_close(cut_grad, whole_grad[rows, :width], rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", EVERY)
def test_a_sequence_without_response_tokens_has_loss_0_and_gradient_0(loss):
    log_prob = LOG_PROB.clone().requires_grad_()
    nothing = bools([[0, 0, 0, 0], [0, 0, 0, 0]])
    loss_B = loss(log_prob, nothing, nothing, made_up(loss, log_prob))
    loss_B.sum().backward()
    assert loss_B.tolist() == [0, 0] and not log_prob.grad.any()


@pytest.mark.parametrize("loss", EVERY)
def test_a_response_of_which_no_token_is_kept_has_loss_0(loss):
    assert loss(LOG_PROB, bools([[0] * 4] * 2), RESPONSE, made_up(loss, LOG_PROB)).tolist() == [0, 0]


@pytest.mark.parametrize("loss", EVERY)
def test_a_token_not_kept_may_have_probability_0(loss):
    log_prob = LOG_PROB.clone()
    log_prob[~KEEP] = -math.inf
    log_prob.requires_grad_()
    facts = made_up(loss, LOG_PROB)
    loss_B = loss(log_prob, KEEP, RESPONSE, facts)
    loss_B.sum().backward()
    torch.testing.assert_close(loss_B, loss(LOG_PROB, KEEP, RESPONSE, facts))
    assert torch.isfinite(log_prob.grad).all()


@pytest.mark.parametrize(("loss", "weight"), [(Nll(), 1), (Dft(), 1 / 2), (ChordPhi(), 1 / 4)])
def test_one_token_and_no_sequences(loss, weight):
    one = loss(torch.tensor([[-LN2]]), bools([[1]]), bools([[1]]), {})
    torch.testing.assert_close(one, torch.tensor([LN2 * weight]))
    empty = torch.zeros(0, 4)
    assert loss(empty, empty.bool(), empty.bool(), {}).shape == (0,)


def test_mean_over_response_by_hand():
    value = torch.tensor([[4.0, math.nan, 2.0]])
    assert mean_over_response(value, bools([[1, 0, 1]]), bools([[1, 1, 1]])).tolist() == [2.0]


def test_the_members_are_these():
    assert SFT_LOSSES.names() == sorted({loss.name for loss in EVERY})
