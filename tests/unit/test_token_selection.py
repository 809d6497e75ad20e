"""Which tokens count: method.md part 1, token selection, trap 3."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mifo_verl.method.token_selection import TOKEN_SELECTORS, AllTokens, RandomTokens, TopEntropy, keep_top

SEEDS = torch.zeros(1, dtype=torch.int64)


def top(entropy, ratio=0.2, mask=None):
    entropy_BT = torch.tensor(entropy, dtype=torch.float32)
    mask_BT = torch.ones(entropy_BT.shape, dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    keep_BT = TopEntropy(ratio)({"entropy": entropy_BT}, mask_BT, SEEDS)
    assert keep_BT.dtype is torch.bool
    return keep_BT.int().tolist()


def reference(entropy, mask, ratio) -> list[list[int]]:
    """Slow: sort each sequence's response tokens by (entropy down, position up), take ceil(ratio * |s|)."""
    share = Fraction(str(ratio))
    kept = []
    for row, row_mask in zip(entropy, mask, strict=True):
        positions = sorted((t for t in range(len(row)) if row_mask[t]), key=lambda t: (-row[t], t))
        chosen = set(positions[: math.ceil(share * len(positions))])
        kept.append([int(t in chosen) for t in range(len(row))])
    return kept


def test_keeps_the_tokens_of_highest_entropy():
    assert top([[0.1, 0.9, 0.3, 0.8, 0.2]], ratio=0.4) == [[0, 1, 0, 1, 0]]


@pytest.mark.parametrize(
    ("ratio", "num_tokens", "num_keep"),
    [
        (0.2, 15, 3),  # 4 where 0.2 is the nearest float32
        (0.07, 100, 7),  # 8 in float64
        (0.29, 100, 29),
        (0.2, 16, 4),
        (0.2, 11, 3),
        (0.2, 5, 1),
        (0.2, 4, 1),
        (0.2, 1, 1),
        (0.1, 10, 1),
        (0.1, 30, 3),
        ("1/3", 9, 3),
        ("1/3", 10, 4),
        (1, 7, 7),
        ("1", 1, 1),
        (0.001, 2, 1),
    ],
)
def test_keeps_exactly_the_ceiling_of_ratio_times_length(ratio, num_tokens, num_keep):
    """Trap 3."""
    entropy = torch.rand(1, num_tokens, generator=torch.Generator().manual_seed(0)).tolist()
    assert sum(top(entropy, ratio)[0]) == num_keep


@pytest.mark.parametrize(("ratio", "num_keep"), [(0.3333333333333333, 2731), (0.1 + 0.2, 2458), ("1/3", 2731)])
def test_the_count_of_a_long_response_is_exact_for_a_share_of_many_digits(ratio, num_keep):
    """0.3333333333333333 is 3333333333333333 / 10**16: times 8,192 that is above 2**63."""
    assert sum(top(torch.rand(1, 8192).tolist(), ratio)[0]) == num_keep


def test_equal_entropies_keep_the_earliest_tokens_and_not_all():
    """Trap 3: a threshold would keep all ten."""
    assert top([[0.5] * 10]) == [[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]]


def test_ties_are_stable_in_a_long_sequence():
    assert top([[1.0] * 1000], 0.2) == [[1] * 200 + [0] * 800]


def test_ties_at_the_cut_go_to_the_earlier_position():
    assert top([[0.0, 2.0, 1.0, 1.0, 1.0]], ratio=0.6) == [[0, 1, 1, 1, 0]]


def test_a_deterministic_response_keeps_its_share_all_the_same():
    assert top([[0.0, 0.0, 0.0, 0.0, 0.0]]) == [[1, 0, 0, 0, 0]]


def test_tokens_outside_the_response_are_never_kept_nor_counted():
    mask = [[0, 1, 1, 1, 1, 1, 0, 0, 0, 0]]
    entropy = [[9.0, 0.1, 0.5, 0.2, 0.3, 0.4, 9.0, 9.0, 9.0, 9.0]]
    assert top(entropy, 0.2, mask) == [[0, 0, 1, 0, 0, 0, 0, 0, 0, 0]]  # ceil(0.2 * 5), not ceil(0.2 * 10)


def test_padding_in_front_does_not_take_the_place_of_a_response_token_of_zero_entropy():
    assert top([[0.0, 0.0, 0.0, 0.0]], 1, [[0, 0, 1, 1]]) == [[0, 0, 1, 1]]


def test_each_sequence_has_its_own_share():
    entropy = [[9.0, 8.0, 7.0, 6.0, 5.0], [0.1, 0.2, 0.3, 0.4, 0.5]]
    assert top(entropy, 0.2) == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]


def test_a_sequence_without_response_tokens_keeps_none():
    assert top([[1.0, 2.0], [1.0, 2.0]], 0.5, [[0, 0], [1, 1]]) == [[0, 0], [0, 1]]


@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (0, 0)])
def test_an_empty_batch_gives_an_empty_mask(shape):
    mask = torch.zeros(shape, dtype=torch.bool)
    assert TopEntropy()({"entropy": torch.zeros(shape)}, mask, SEEDS).shape == shape


def test_a_half_precision_entropy_keeps_the_same_number():
    entropy = torch.rand(1, 200).to(torch.bfloat16)  # many ties
    keep = TopEntropy(0.2)({"entropy": entropy}, torch.ones(1, 200, dtype=torch.bool), SEEDS)
    assert keep.int().tolist() == reference(entropy.float().tolist(), [[1] * 200], 0.2)


def test_the_selection_carries_no_gradient_and_changes_no_argument():
    entropy = torch.rand(2, 6, requires_grad=True)
    before = entropy.detach().clone()
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    keep = TopEntropy(0.5)({"entropy": entropy}, mask, SEEDS)
    assert not keep.requires_grad
    assert torch.equal(entropy.detach(), before) and mask.sum() == 9


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_agrees_with_a_sort_of_each_sequence(data):
    num_sequences, num_tokens = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 20))
    value = st.sampled_from([0.0, 0.5, 0.5, 1.0, 2.0, 11.9])
    entropy = [[data.draw(value) for _ in range(num_tokens)] for _ in range(num_sequences)]
    mask = [[data.draw(st.booleans()) for _ in range(num_tokens)] for _ in range(num_sequences)]
    ratio = data.draw(st.sampled_from([0.2, 0.1, 0.07, "1/3", "2/7", 0.5, 1, 0.3333333333333333]))
    assert top(entropy, ratio, mask) == reference(entropy, mask, ratio)


@pytest.mark.parametrize("selector", [TopEntropy(0.3), RandomTokens(0.3), AllTokens()])
def test_a_sequence_keeps_the_same_tokens_alone_or_in_a_padded_batch(selector):
    """Trap 8: no micro-batch changes the choice."""
    lengths = [7, 1, 12, 4]
    seeds = torch.tensor([11, 12, 13, 14])
    width = 16
    entropy = torch.rand(4, width, generator=torch.Generator().manual_seed(3))
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    together = selector({"entropy": entropy}, mask, seeds)
    for row, length in enumerate(lengths):
        one = slice(row, row + 1)
        alone = selector({"entropy": entropy[one, :length]}, mask[one, :length], seeds[one])
        assert torch.equal(alone[0], together[row, :length])
        assert not together[row, length:].any()


def test_all_keeps_every_response_token_as_a_new_tensor():
    mask = torch.tensor([[True, False, True]])
    keep = AllTokens()({}, mask, SEEDS)
    assert torch.equal(keep, mask) and keep.data_ptr() != mask.data_ptr()


def random_keep(seed: int, num_tokens: int = 400, ratio=0.2, entropy=None) -> torch.Tensor:
    mask = torch.ones(1, num_tokens, dtype=torch.bool)
    entropy = torch.zeros(1, num_tokens) if entropy is None else entropy
    return RandomTokens(ratio)({}, mask, torch.tensor([seed]))


def test_random_keeps_as_many_tokens_as_top_entropy():
    for num_tokens in (1, 4, 15, 16, 100):
        assert random_keep(5, num_tokens).sum() == math.ceil(Fraction(1, 5) * num_tokens)


def test_random_depends_on_the_seed_and_not_on_the_entropy():
    assert torch.equal(random_keep(5), random_keep(5, entropy=torch.rand(1, 400)))
    assert not torch.equal(random_keep(5), random_keep(6))


def test_random_draws_every_position_about_equally_often():
    counts = torch.stack([random_keep(seed, 50)[0] for seed in range(600)]).sum(dim=0)
    # 600 draws of probability 0.2: mean 120, standard deviation 9.8
    assert counts.min() > 120 - 50 and counts.max() < 120 + 50


def test_random_does_not_touch_the_global_generator():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    random_keep(5)
    assert torch.equal(torch.rand(1), expected)


def test_random_ignores_what_stands_in_front_of_the_response():
    mask = torch.tensor([[False, False, True, True, True, True, True]])
    shifted = RandomTokens(0.4)({}, mask, torch.tensor([9]))
    assert torch.equal(shifted[0, 2:], random_keep(9, 5, 0.4)[0]) and not shifted[0, :2].any()


def test_the_members_are_these():
    assert TOKEN_SELECTORS.names() == ["all", "random", "top_entropy"]


@pytest.mark.parametrize("name", ["top_entropy", "random"])
def test_a_ratio_of_0_is_refused(name):
    with pytest.raises(ValueError) as error:
        TOKEN_SELECTORS.build({"name": name, "ratio": 0})
    assert str(error.value) == (
        "mifo.token_selector.ratio=0 must be in (0, 1]; use mifo/token_selector=all to keep every token"
    )


@pytest.mark.parametrize("ratio", [-0.2, 1.2, "top"])
def test_a_ratio_that_is_no_share_is_refused(ratio):
    with pytest.raises(ValueError) as error:
        TOKEN_SELECTORS.build({"name": "top_entropy", "ratio": ratio})
    assert str(error.value) == (
        f"mifo.token_selector.ratio={ratio} must be a share in [0, 1]; write it as 0.125 or '1/8'"
    )


def test_keep_top_refuses_what_is_no_share():
    with pytest.raises(ValueError, match="ratio=2 must be a share"):
        keep_top(torch.rand(1, 3), torch.ones(1, 3, dtype=torch.bool), 2)
