"""TopK over shards: method.md part 1 step 5, trap 2."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mifo_verl.method import packed
from mifo_verl.method.top_share import OneShard, median, select_top_share, select_top_share_per_tensor

SHARDS = (1, 2, 3, 4, 7)
FLOAT32_MAX = torch.finfo(torch.float32).max
SMALLEST_SUBNORMAL = 2.0**-149


def tensors(*rows) -> list[torch.Tensor]:
    return [torch.tensor(row, dtype=torch.float32) for row in rows]


def slow_masks(scores: list[torch.Tensor], share) -> list[list[bool]]:
    """Sort all coordinates by (score down, position up); the first floor(share * N) that are above 0."""
    flat = [(-value, tensor, index) for tensor, row in enumerate(scores) for index, value in enumerate(row.tolist())]
    count = math.floor(Fraction(str(share)) * len(flat))
    chosen = {(tensor, index) for value, tensor, index in sorted(flat)[:count] if value < 0}
    return [[(tensor, i) in chosen for i in range(len(row))] for tensor, row in enumerate(scores)]


def shard(scores: list[torch.Tensor], rank: int, num_shards: int) -> list[torch.Tensor]:
    """The rank's contiguous chunk of each tensor; where a tensor is short, some ranks hold nothing of it."""
    return [row.tensor_split(num_shards)[rank].clone() for row in scores]


def masks_over(over_shards, scores, share, num_shards, rule=select_top_share):
    """(masks of the whole tensors, the selections of all shards)."""
    parts = over_shards(lambda shards: rule(shard(scores, shards.rank, num_shards), share, shards), num_shards)
    masks = [torch.cat([part.frozen[i] for part in parts]).tolist() for i in range(len(scores))]
    return masks, parts


def frozen(scores, share) -> list[list[int]]:
    return [mask.int().tolist() for mask in select_top_share(scores, share).frozen]


# By hand


def test_the_share_is_of_all_coordinates_of_all_tensors():
    """The scope is global: the first tensor, all of it small, is not frozen at all."""
    assert frozen(tensors([1, 2, 3], [10, 30, 20]), 0.5) == [[0, 0, 0], [1, 1, 1]]


def test_per_tensor_takes_the_share_of_each_tensor():
    selection = select_top_share_per_tensor(tensors([1, 2, 3, 4], [10, 30, 20]), 0.5)
    assert [mask.int().tolist() for mask in selection.frozen] == [[0, 0, 1, 1], [0, 1, 0]]
    assert (selection.num_coordinates, selection.num_positive, selection.num_frozen) == (7, 7, 3)
    assert selection.threshold == 3


def test_per_tensor_freezes_nothing_in_a_tensor_that_did_not_change():
    selection = select_top_share_per_tensor(tensors([0, 0, 0], [5, 6, 7]), "2/3")
    assert [mask.int().tolist() for mask in selection.frozen] == [[0, 0, 0], [0, 1, 1]]
    assert (selection.num_positive, selection.num_frozen, selection.threshold) == (3, 2, 6)


def test_a_selection_reports_its_counts_and_its_threshold():
    selection = select_top_share(tensors([0, 5, 1, 2], [4, 0, 3, 0, 0, 0]), 0.3)
    assert (selection.num_coordinates, selection.num_positive, selection.num_frozen) == (10, 5, 3)
    assert selection.threshold == 3


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([[3.0, 1.0], [2.0]], 2.0), ([[3.0, 1.0], [2.0, 4.0]], 2.0), ([[0.0, 0.0], [5.0]], 0.0), ([[], []], None)],
)
def test_the_median_is_the_middle_of_all_tensors_and_the_lower_of_two(scores, expected):
    assert median([torch.tensor(values) for values in scores]) == expected


def test_the_median_does_not_depend_on_the_shards(over_shards):
    scores = torch.rand(1001, generator=torch.Generator().manual_seed(0))
    parts = scores[:300], scores[300:]
    assert over_shards(lambda shards: median([parts[shards.rank]], shards), 2) == [float(scores.median())] * 2


def test_a_score_of_0_is_never_frozen():
    """Trap 2: `score >= threshold` would freeze all."""
    selection = select_top_share(tensors([0, 0, 3], [0, 1, 0]), 0.5)
    assert [mask.int().tolist() for mask in selection.frozen] == [[0, 0, 1], [0, 1, 0]]
    assert (selection.num_positive, selection.num_frozen) == (2, 2)


@pytest.mark.parametrize("share", [0.5, 1, "1/3"])
def test_nothing_is_frozen_where_nothing_changed(share):
    selection = select_top_share(tensors([0, 0, 0], [0, -0.0]), share)
    assert not any(mask.any() for mask in selection.frozen)
    assert (selection.num_frozen, selection.num_positive, selection.threshold) == (0, 0, math.inf)


def test_minus_zero_is_a_zero():
    assert frozen(tensors([-0.0, 1.0, -0.0, 0.0]), 1) == [[0, 1, 0, 0]]


def test_ties_at_the_threshold_freeze_the_exact_number_and_the_earliest():
    """Trap 2: 10 equal scores, 5 frozen."""
    assert frozen(tensors([1, 1, 1], [1, 1, 1, 1, 1, 1, 1]), 0.5) == [[1, 1, 1], [1, 1, 0, 0, 0, 0, 0]]


def test_ties_share_the_places_that_the_larger_scores_leave():
    assert frozen(tensors([2, 5, 2], [2, 9, 2, 1]), "4/7") == [[1, 1, 1], [0, 1, 0, 0]]


@pytest.mark.parametrize(
    ("share", "num", "count"),
    [
        (0.29, 100, 29),  # 0.29 * 100 = 28.999999999999996 in floats
        (0.57, 100, 57),
        (0.07, 100, 7),
        (0.7, 10, 7),
        (0.5, 7, 3),  # floor, not round or ceil
        ("1/3", 8, 2),
        ("1/3", 9, 3),
        (0.999, 1000, 999),
        (0.1, 9, 0),
        (0, 50, 0),
        (1, 13, 13),
        (0.3333333333333333, 3, 0),
    ],
)
def test_the_number_frozen_is_exactly_the_floor_of_share_times_n(share, num, count):
    scores = [torch.rand(num, generator=torch.Generator().manual_seed(1)) + 0.5]
    selection = select_top_share(scores, share)
    assert selection.num_frozen == count == int(selection.frozen[0].sum())


def test_one_coordinate():
    assert frozen(tensors([3]), 1) == [[1]]
    assert frozen(tensors([3]), 0.5) == [[0]]
    assert frozen(tensors([0]), 1) == [[0]]


def test_empty_tensors_are_allowed():
    assert frozen(tensors([], [2, 1], []), 0.5) == [[], [1, 0], []]
    assert frozen(tensors([], []), 0.5) == [[], []]
    assert select_top_share(tensors([]), 1).num_coordinates == 0


def test_neighbouring_floats_are_told_apart():
    one = torch.tensor(1.0)
    up = torch.nextafter(one, torch.tensor(2.0)).item()
    down = torch.nextafter(one, torch.tensor(0.0)).item()
    assert frozen(tensors([down, 1, up, 1]), 0.5) == [[0, 1, 1, 0]]
    assert frozen(tensors([SMALLEST_SUBNORMAL, 2 * SMALLEST_SUBNORMAL, 0]), "1/3") == [[0, 1, 0]]
    assert frozen(tensors([FLOAT32_MAX, SMALLEST_SUBNORMAL, 0]), "2/3") == [[1, 1, 0]]


def test_the_threshold_is_the_smallest_score_selected_exactly():
    scores = [torch.rand(1000, generator=torch.Generator().manual_seed(2)) * 1e-7]
    selection = select_top_share(scores, 0.25)
    assert selection.threshold == scores[0].sort(descending=True).values[249].item()


def test_scores_are_not_written_to():
    scores = tensors([3, 0, 1], [2, 2])
    copies = [score.clone() for score in scores]
    select_top_share(scores, 0.5)
    assert all(torch.equal(score, copy) for score, copy in zip(scores, copies, strict=True))


# Against the slow reference


VALUES = st.one_of(
    st.sampled_from([0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0**-20, 65536.0, 65537.0]),
    st.sampled_from([SMALLEST_SUBNORMAL, 2 * SMALLEST_SUBNORMAL, 1e-40, FLOAT32_MAX, 3e38, 1.17549435e-38]),
    st.floats(min_value=0, allow_infinity=False, width=32),
)
ROWS = st.lists(st.lists(VALUES, max_size=24), min_size=1, max_size=4)
SHARES = st.sampled_from([0, 0.1, 0.29, "1/3", 0.5, 0.5, "2/3", 0.9, 1])


@settings(max_examples=40, deadline=None)
@given(ROWS, SHARES)
def test_agrees_with_a_sort_for_every_number_of_shards(over_shards, rows, share):
    scores = tensors(*rows)
    expected = slow_masks(scores, share)
    count = sum(map(sum, expected))
    chosen = [row[torch.tensor(mask, dtype=torch.bool)] for row, mask in zip(scores, expected, strict=True)]
    smallest = min(torch.cat(chosen).tolist(), default=math.inf)
    for num_shards in SHARDS:
        masks, parts = masks_over(over_shards, scores, share, num_shards)
        assert masks == expected, num_shards
        for part in parts:
            assert (part.num_coordinates, part.num_frozen) == (sum(map(len, rows)), count)
            assert part.num_positive == sum(value > 0 for row in scores for value in row.tolist())
            assert part.threshold == smallest


@settings(max_examples=10, deadline=None)
@given(ROWS, SHARES)
def test_per_tensor_agrees_with_a_sort_of_each_tensor_for_every_number_of_shards(over_shards, rows, share):
    scores = tensors(*rows)
    expected = [slow_masks([row], share)[0] for row in scores]
    for num_shards in (1, 3):
        masks, parts = masks_over(over_shards, scores, share, num_shards, select_top_share_per_tensor)
        assert masks == expected
        assert {part.num_frozen for part in parts} == {sum(map(sum, expected))}


@pytest.mark.parametrize("num_shards", SHARDS)
@pytest.mark.parametrize("levels", [1, 3, 50, 10**6])
def test_larger_tensors_with_ties_are_cut_exactly_however_they_are_sharded(over_shards, num_shards, levels):
    generator = torch.Generator().manual_seed(levels)
    scores = [torch.randint(0, levels + 1, (n,), generator=generator).float() / 64 for n in (997, 5, 0, 1500, 2)]
    masks, parts = masks_over(over_shards, scores, 0.4, num_shards)
    assert masks == slow_masks(scores, 0.4)
    assert sum(int(mask.sum()) for part in parts for mask in part.frozen) == parts[0].num_frozen


@pytest.mark.parametrize("share", [0.35, 0.6])
@pytest.mark.parametrize("chunk", [8, 64])
def test_the_chunk_size_does_not_change_the_mask(monkeypatch, chunk, share):
    """Ties that go on over several chunks keep their quota."""
    scores = [torch.randint(0, 4, (n,), generator=torch.Generator().manual_seed(n)).float() for n in (50, 7, 130)]
    expected = slow_masks(scores, share)
    monkeypatch.setattr(packed, "CHUNK", chunk)
    assert [mask.tolist() for mask in select_top_share(scores, share).frozen] == expected


def test_a_permutation_of_distinct_scores_permutes_the_mask():
    generator = torch.Generator().manual_seed(5)
    score = torch.rand(500, generator=generator)
    order = torch.randperm(500, generator=generator)
    mask = select_top_share([score], 0.3).frozen[0]
    assert torch.equal(select_top_share([score[order]], 0.3).frozen[0], mask[order])


def test_a_power_of_two_does_not_change_the_mask():
    score = torch.rand(500, generator=torch.Generator().manual_seed(6))
    mask = select_top_share([score], 0.3).frozen[0]
    assert torch.equal(select_top_share([score * 2.0**-30], 0.3).frozen[0], mask)


def test_a_shard_may_hold_nothing_at_all(over_shards):
    scores = tensors([5, 4, 3])
    parts = over_shards(lambda s: select_top_share([scores[0] if s.rank == 1 else torch.zeros(0)], "2/3", s), 3)
    assert [part.frozen[0].int().tolist() for part in parts] == [[], [1, 1, 0], []]


def coarse(num: int) -> torch.Tensor:
    """Half zeros, the others of 50 values."""
    return (torch.randn(num, generator=torch.Generator().manual_seed(7)).clamp_(min=0) * 10).round_()


def misleading(num: int) -> torch.Tensor:
    """A sample takes coordinates 0 to 15 of every 976: here they are small, and all others large."""
    score = 1 + torch.rand(num, generator=torch.Generator().manual_seed(8))
    score.view(-1, 976)[:, :16] *= 2.0**-20
    return score


@pytest.mark.parametrize(
    "score", [torch.rand(976 * 300), coarse(976 * 300), misleading(976 * 300)], ids="plain coarse misleading".split()
)
@pytest.mark.parametrize("share", [0.001, 0.5, 0.99])
def test_a_sample_that_helps_or_misleads_gives_the_mask_of_a_stable_sort(score, share):
    selection = select_top_share([score[:100_003], score[100_003:]], share)
    values, order = score.sort(descending=True, stable=True)
    count = min(int(Fraction(str(share)) * len(score)), int((score > 0).sum()))
    expected = torch.zeros(len(score), dtype=torch.bool)
    expected[order[:count]] = True
    assert torch.equal(torch.cat(list(selection.frozen)), expected)
    assert (selection.num_frozen, selection.threshold) == (count, float(values[count - 1]))


# Errors


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.0, -SMALLEST_SUBNORMAL])
def test_a_score_that_is_negative_or_not_finite_is_refused_on_every_shard(over_shards, bad):
    scores = tensors([1, 2, 3, bad], [1, 2])
    with pytest.raises(ValueError) as error:
        select_top_share(scores, 0.5)
    assert str(error.value) == "1 importance scores are negative or not finite; the RL phase diverged"

    def refused(shards) -> str:
        try:
            select_top_share(shard(scores, shards.rank, 3), 0.5, shards)
        except ValueError as caught:
            return str(caught)
        return ""

    assert set(over_shards(refused, 3)) == {str(error.value)}


@pytest.mark.parametrize("share", [-0.1, 1.1, "half"])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match=f"share={share} must be a share in"):
        select_top_share(tensors([1.0]), share)


def test_one_shard_is_its_own_sum_and_its_own_only_row():
    counts = torch.tensor([1, 2])
    assert OneShard().sum(counts).tolist() == [1, 2]
    assert OneShard().gather(counts).tolist() == [[1, 2]] and OneShard.rank == 0
