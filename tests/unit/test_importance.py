"""Update magnitude and its history: method.md part 1 steps 3 to 5."""

import zlib

import pytest
import torch

from mifo_verl.method.coordinates import ShardRange
from mifo_verl.method.importance import (
    IMPORTANCES,
    AbsChange,
    Fisher,
    RandomImportance,
    accumulate_,
    forget_unselected_,
    second_moments,
)
from mifo_verl.types import RunFacts

W = ShardRange("layers.0.w", 0)


def test_abs_change_is_the_absolute_difference_by_hand():
    start = torch.tensor([1.0, -2.0, 0.5, 3.0])
    end = torch.tensor([1.5, -2.25, 0.5, -3.0])
    assert AbsChange()(start, end, W, 1).tolist() == [0.5, 0.25, 0.0, 6.0]


def test_abs_change_sees_a_change_that_bfloat16_cannot():
    """Trap 2: the float32 master weights, not what the forward pass uses."""
    start = torch.tensor([1.0])
    end = start + 2.0**-20
    assert AbsChange()(start, end, W, 1).item() == 2.0**-20
    assert AbsChange()(start.bfloat16(), end.bfloat16(), W, 1).item() == 0


def test_abs_change_is_symmetric_non_negative_float32_and_leaves_its_arguments_alone():
    start, end = torch.randn(50), torch.randn(50)
    copies = start.clone(), end.clone()
    score = AbsChange()(start, end, W, 1)
    assert torch.equal(score, AbsChange()(end, start, W, 7))
    assert (score >= 0).all() and score.dtype is torch.float32
    assert torch.equal(start, copies[0]) and torch.equal(end, copies[1])
    assert AbsChange()(torch.zeros(2, dtype=torch.bfloat16), torch.ones(2), W, 1).dtype is torch.float32


def test_abs_change_of_an_empty_shard_is_empty():
    assert AbsChange()(torch.zeros(0), torch.zeros(0), W, 1).shape == (0,)


# The history


def test_alpha_weighs_the_history_and_one_minus_alpha_the_new_change():
    history = torch.tensor([8.0, 0.0, 4.0])
    # 0.25 * history + 0.75 * score: swapped it would be 7, 1, 3
    assert accumulate_(history, torch.tensor([4.0, 4.0, 0.0]), 0.25).tolist() == [5.0, 3.0, 1.0]


def test_accumulate_writes_into_the_history_and_not_into_the_score():
    history, score = torch.tensor([2.0]), torch.tensor([4.0])
    assert accumulate_(history, score, 0.5) is history
    assert history.item() == 3.0 and score.item() == 4.0


def test_alpha_0_is_the_new_change_alone():
    """MIFO-dagger."""
    score = torch.rand(9)
    assert torch.equal(accumulate_(torch.rand(9), score, 0.0), score)


def test_forgetting_keeps_the_mask_and_zeroes_the_rest_in_place():
    history = torch.tensor([1.0, 2.0, 3.0])
    assert forget_unselected_(history, torch.tensor([False, True, False])) is history
    assert history.tolist() == [0.0, 2.0, 0.0]


def test_two_intervals_by_hand_with_alpha_one_half_and_k_one_half():
    history = torch.zeros(4)
    accumulate_(history, torch.tensor([8.0, 6.0, 4.0, 2.0]), 0.5)
    assert history.tolist() == [4.0, 3.0, 2.0, 1.0]
    forget_unselected_(history, torch.tensor([True, True, False, False]))
    assert history.tolist() == [4.0, 3.0, 0.0, 0.0]
    accumulate_(history, torch.tensor([0.0, 4.0, 5.0, 2.0]), 0.5)
    # with nothing forgotten the third would be 3.5 and tie with the second
    assert history.tolist() == [2.0, 3.5, 2.5, 1.0]


# The random control


def splitmix64(counter: int) -> int:
    """SplitMix64's finaliser in Python integers, from its publication."""
    z = counter & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return z ^ (z >> 31)


def draw(num=1000, first=0, name="layers.0.w", seed=0, interval=1) -> torch.Tensor:
    return RandomImportance(seed)(torch.zeros(num), torch.zeros(num), ShardRange(name, first), interval)


def test_random_is_splitmix64_of_the_coordinate():
    key = zlib.crc32(b"7/3/layers.0.w") << 31
    first = 123_456_789
    expected = [((splitmix64(key + first + i) & 0xFFFFFF) + 1) / 2**24 for i in range(50)]
    assert draw(50, first, seed=7, interval=3).tolist() == expected


@pytest.mark.parametrize("num_shards", [2, 3, 7])
def test_random_does_not_depend_on_the_sharding(num_shards):
    pieces, first = [], 0
    for piece in torch.arange(1000).tensor_split(num_shards):
        pieces.append(draw(len(piece), first))
        first += len(piece)
    assert torch.equal(torch.cat(pieces), draw(1000))


def test_random_does_not_depend_on_the_weights():
    score = RandomImportance()(torch.randn(100), torch.randn(100), W, 1)
    assert torch.equal(score, draw(100))


@pytest.mark.parametrize("other", [{"seed": 1}, {"interval": 2}, {"name": "layers.1.w"}])
def test_random_is_unrelated_for_another_seed_interval_or_parameter(other):
    one, two = draw(20_000), draw(20_000, **other)
    assert (one == two).float().mean() < 0.01
    assert torch.corrcoef(torch.stack([one, two]))[0, 1].abs() < 0.05


def test_random_is_about_uniform_in_0_to_1_and_never_0():
    score = draw(100_000)
    assert score.min() > 0 and score.max() <= 1 and score.dtype is torch.float32
    counts = torch.histc(score, bins=20, min=0, max=1)
    # 5,000 a bin with a standard deviation of 69
    assert (counts - 5000).abs().max() < 5 * 69
    assert score.unique().numel() > 99_000


def test_random_neighbours_are_unrelated():
    score = draw(100_000)
    assert torch.corrcoef(torch.stack([score[:-1], score[1:]]))[0, 1].abs() < 0.02


def test_random_of_an_empty_shard_is_empty():
    assert draw(0).shape == (0,)


def test_the_members_are_these():
    assert IMPORTANCES.names() == ["abs_change", "fisher", "random"]


# RL's second moments


def test_fisher_is_the_second_moment_of_adamw_after_two_steps_by_hand():
    """v <- 0.9 v + 0.1 g^2: of gradients 1, 2 and 3, 0 it is 0.9 * 0.1 * 1 + 0.1 * 9 and 0.9 * 0.1 * 4."""
    weights = torch.nn.Parameter(torch.zeros(2))
    adamw = torch.optim.AdamW([weights], betas=(0.9, 0.9))
    for gradient in ([1.0, 2.0], [3.0, 0.0]):
        weights.grad = torch.tensor(gradient)
        adamw.step()
    states = [(0, name, adamw.state[weights][name]) for name in ("exp_avg", "exp_avg_sq")]
    (moment,) = second_moments(states, [weights])
    score = Fisher()(torch.zeros(2), torch.ones(2), W, 1, moment)
    assert score.tolist() == pytest.approx([0.99, 0.36])
    score.zero_()  # what is made of a score leaves the optimizer alone
    assert moment.tolist() == pytest.approx([0.99, 0.36])


def test_before_its_first_step_an_optimizer_holds_nothing_dear():
    assert [moment.tolist() for moment in second_moments([], [torch.ones(2), torch.ones(0)])] == [[0.0, 0.0], []]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (RunFacts(optimizer="AdamW8bit"), [("actor_rollout_ref.actor.optim.optimizer", True)]),
        (RunFacts(sft_optimizer="shared"), [("mifo.sft.optimizer", False)]),
        (RunFacts(sft_optimizer="shared", optimizer="SGD", has_sft_phases=False), []),
        (RunFacts(), []),
    ],
)
def test_fisher_says_where_there_are_no_second_moments_of_rl_alone(facts, said):
    assert [(problem.setting, problem.is_error) for problem in Fisher().problems(facts)] == said
