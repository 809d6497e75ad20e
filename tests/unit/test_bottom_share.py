"""The bottom share by hand, on one shard and on several."""

import math

import pytest
import torch

from mifo_verl.method.bottom_share import select_bottom_share, upside_down
from mifo_verl.method.constraint import CONSTRAINTS
from mifo_verl.method.top_share import InvalidScores, select_top_share, select_top_share_per_tensor


def masks(scores: list[list[float]], share: object, rule=select_top_share) -> list[list[bool]]:
    found = select_bottom_share(rule, [torch.tensor(score_N) for score_N in scores], share)
    return [mask_N.tolist() for mask_N in found.frozen]


def test_the_smallest_scores_are_selected_zeros_among_them():
    found = select_bottom_share(select_top_share, [torch.tensor([3.0, 0.0, 2.0]), torch.tensor([0.5, 9.0])], "3/5")
    assert [mask_N.tolist() for mask_N in found.frozen] == [[False, True, True], [True, False]]
    assert (found.num_frozen, found.num_coordinates, found.num_positive, found.threshold) == (3, 5, 4, 2.0)


def test_of_equal_scores_the_earlier_coordinates_are_selected():
    assert masks([[1.0, 0.0, 0.0, 0.0]], 0.5) == [[False, True, True, False]]
    assert masks([[2.0, 1.0], [1.0, 1.0]], 0.5) == [[False, True], [True, False]]


def test_per_tensor_takes_the_share_of_every_tensor():
    assert masks([[1.0, 2.0], [8.0, 7.0]], 0.5, select_top_share_per_tensor) == [[True, False], [False, True]]


def test_a_share_of_0_selects_nothing():
    assert masks([[1.0, 0.0]], 0) == [[False, False]]


def test_top_and_bottom_halves_of_different_scores_share_no_coordinate():
    draw = torch.Generator().manual_seed(0)
    scores = [torch.rand(1000, generator=draw) * 1e-9, torch.rand(500, generator=draw)]
    top, bottom = select_top_share(scores, 0.5), select_bottom_share(select_top_share, scores, 0.5)
    assert all(torch.equal(one, ~two) for one, two in zip(top.frozen, bottom.frozen, strict=True))


def test_the_order_is_reversed_and_twice_reversed_is_the_same():
    scores = torch.tensor([0.0, 1e-45, 1e-30, 1.0, 1e30, 3e38])
    turned = upside_down(scores)
    assert (turned.diff() < 0).all() and torch.equal(upside_down(turned), scores)
    assert upside_down(torch.tensor([-0.0])).tolist() == turned[:1].tolist()


@pytest.mark.parametrize("bad", [-1.0, -1e-45, math.inf, -math.inf, math.nan, -math.nan])
def test_a_score_that_is_negative_or_not_finite_is_refused(bad):
    with pytest.raises(InvalidScores):
        masks([[1.0, bad, 2.0]], 0.5)


def test_a_history_remembers_what_was_frozen_at_the_top_alone():
    for name in ("strict", "gradient"):
        assert CONSTRAINTS.build({"name": name, "side": "bottom", "history": 0}).needs == {"start"}
        with pytest.raises(ValueError, match=r"mifo.constraint.side=bottom must be top with a history, .*history=0"):
            CONSTRAINTS.build({"name": name, "side": "bottom"})
    with pytest.raises(ValueError, match=r"mifo.constraint.side=middle must be one of top, bottom"):
        CONSTRAINTS.build({"name": "strict", "side": "middle"})
