"""KL and margin on fixed rollouts, against numbers worked out by hand."""

import math

import pytest
import torch

from mifo_verl.method.policy_shift import reward_margin, token_kl


def logits(*rows: list[float]) -> torch.Tensor:
    """Logits of these distributions, each row moved by another constant."""
    return torch.stack([torch.tensor(row).log() + place for place, row in enumerate(rows)])


def test_the_kl_is_that_of_after_to_before_and_not_the_other_way_round():
    after, before = logits([0.5, 0.5], [0.25, 0.75]), logits([0.25, 0.75], [0.25, 0.75])
    # 1/2 log(1/2 : 1/4) + 1/2 log(1/2 : 3/4) = 1/2 log 2 + 1/2 log 2/3 = 1/2 log 4/3
    assert token_kl(after, before).tolist() == pytest.approx([0.5 * math.log(4 / 3), 0.0], abs=1e-6)
    # 1/4 log 1/2 + 3/4 log 3/2
    other = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert token_kl(before, after)[0].item() == pytest.approx(other, abs=1e-6)


def test_a_token_that_is_impossible_after_adds_nothing():
    assert token_kl(logits([1.0, 0.0]), logits([0.5, 0.5])).item() == pytest.approx(math.log(2), abs=1e-6)
    assert token_kl(logits([1.0, 0.0]), logits([1.0, 0.0])).item() == 0.0
    assert token_kl(logits([0.5, 0.5]), logits([1.0, 0.0])).item() == math.inf


def test_chunks_and_half_precision_change_nothing_but_rounding():
    draw = torch.Generator().manual_seed(0)
    after, before = (torch.randn(7, 11, generator=draw) for _ in range(2))
    whole = token_kl(after, before)
    assert torch.equal(token_kl(after, before, chunk_tokens=3), whole)
    assert whole.dtype == torch.float32 and bool((whole > 0).all())
    assert torch.allclose(token_kl(after.bfloat16(), before.bfloat16()), whole, atol=0.02)
    assert token_kl(after[:0], before[:0]).shape == (0,)


def test_the_margin_is_between_the_means_of_right_and_of_wrong_answers():
    # right: (-1 - 2) / 2 = -1.5; wrong: (-4 - 3 - 2) / 3 = -3
    assert reward_margin([-1.0, -4.0, -3.0, -2.0, -2.0], [True, False, False, True, False]) == 1.5
    assert reward_margin([-4.0, -1.0], [True, False]) == -3.0


@pytest.mark.parametrize("is_correct", [[True, True], [False, False]])
def test_without_both_kinds_there_is_no_margin(is_correct):
    assert reward_margin([-1.0, -2.0], is_correct) is None
    assert reward_margin([], []) is None
