"""L_SFT: method.md part 1, token selection, trap 8; DFT of part 4."""

import math

import pytest
import torch

from mifo_verl.method.sft_loss import SFT_LOSSES, ChordPhi, Dft, Nll, mean_over_response

LN2 = math.log(2)


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


def test_chord_phi_is_strongest_between_what_is_known_and_what_is_absurd():
    log_prob = torch.tensor([[0.5, 0.05, 0.9]]).log().requires_grad_()
    every = bools([[1, 1, 1]])
    loss = ChordPhi()(log_prob, every, every, {})
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.tensor([0.10835551]), rtol=0, atol=1e-6)
    torch.testing.assert_close(log_prob.grad, torch.tensor([[-0.08333333, -0.01583333, -0.03]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss", [Nll(), Dft(), ChordPhi()])
def test_the_loss_is_one_number_a_sequence_in_float32(loss):
    for dtype in (torch.float32, torch.bfloat16):
        loss_B = loss(LOG_PROB.to(dtype), KEEP, RESPONSE, {})
        assert loss_B.shape == (2,) and loss_B.dtype is torch.float32


@pytest.mark.parametrize("loss", [Nll(), Dft(), ChordPhi()])
def test_the_loss_of_bfloat16_log_probabilities_is_computed_in_float32(loss):
    log_prob = (-3 * torch.rand(2, 4, generator=torch.Generator().manual_seed(1))).to(torch.bfloat16)
    torch.testing.assert_close(
        loss(log_prob, KEEP, RESPONSE, {}), loss(log_prob.float(), KEEP, RESPONSE, {}), rtol=0, atol=0
    )


@pytest.mark.parametrize("loss", [Nll(), Dft(), ChordPhi()])
def test_loss_and_gradient_of_a_sequence_do_not_depend_on_its_micro_batch(loss):
    """Trap 8: cut the batch, pad it otherwise, permute it."""
    generator = torch.Generator().manual_seed(2)
    lengths = torch.tensor([3, 8, 1, 5, 0])
    log_prob = -torch.rand(5, 8, generator=generator)
    response = torch.arange(8) < lengths[:, None]
    keep = response & (torch.rand(5, 8, generator=generator) < 0.5)

    def both(rows, width):
        leaf = log_prob[rows, :width].clone().requires_grad_()
        loss_B = loss(leaf, keep[rows, :width], response[rows, :width], {})
        loss_B.sum().backward()
        return loss_B.detach(), leaf.grad

    whole_loss, whole_grad = both([0, 1, 2, 3, 4], 8)
    for rows, width in (([0], 3), ([1], 8), ([2, 3], 5), ([4], 1), ([3, 0], 6), ([4, 2, 0], 3)):
        cut_loss, cut_grad = both(rows, width)
        torch.testing.assert_close(cut_loss, whole_loss[rows], rtol=1e-6, atol=0)
        torch.testing.assert_close(cut_grad, whole_grad[rows, :width], rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", [Nll(), Dft(), ChordPhi()])
def test_a_sequence_without_response_tokens_has_loss_0_and_gradient_0(loss):
    log_prob = LOG_PROB.clone().requires_grad_()
    nothing = bools([[0, 0, 0, 0], [0, 0, 0, 0]])
    loss_B = loss(log_prob, nothing, nothing, {})
    loss_B.sum().backward()
    assert loss_B.tolist() == [0, 0] and not log_prob.grad.any()


@pytest.mark.parametrize("loss", [Nll(), Dft(), ChordPhi()])
def test_a_response_of_which_no_token_is_kept_has_loss_0(loss):
    assert loss(LOG_PROB, bools([[0] * 4] * 2), RESPONSE, {}).tolist() == [0, 0]


@pytest.mark.parametrize("loss", [Nll(), Dft(), ChordPhi()])
def test_a_token_not_kept_may_have_probability_0(loss):
    log_prob = LOG_PROB.clone()
    log_prob[~KEEP] = -math.inf
    log_prob.requires_grad_()
    loss_B = loss(log_prob, KEEP, RESPONSE, {})
    loss_B.sum().backward()
    torch.testing.assert_close(loss_B, loss(LOG_PROB, KEEP, RESPONSE, {}))
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
    assert SFT_LOSSES.names() == ["chord_phi", "dft", "nll"]
