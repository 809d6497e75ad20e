"""pass@k and maj@k against a slow reference: the average over all subsets."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mifo_verl.tools.evaluate.results import CORRECT, majority_at_k, pass_at_k


def average_over_subsets(items, k, value):
    subsets = list(combinations(items, k))
    return sum(value(subset) for subset in subsets) / len(subsets)


def majority_is_correct(votes):
    """By hand: count, find the top, share the lot."""
    cast = [vote for vote in votes if vote is not None]
    if not cast:
        return 0.0
    top = max(cast.count(vote) for vote in cast)
    winners = {vote for vote in cast if cast.count(vote) == top}
    return 1 / len(winners) if CORRECT in winners else 0.0


@pytest.mark.parametrize("num_samples", range(1, 9))
def test_pass_at_k_is_the_average_over_all_subsets(num_samples):
    for num_correct in range(num_samples + 1):
        responses = [True] * num_correct + [False] * (num_samples - num_correct)
        for k in range(1, num_samples + 1):
            expected = average_over_subsets(responses, k, any)
            assert pass_at_k(num_samples, num_correct, k) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("num_samples", "num_correct", "k", "expected"),
    [
        (4, 1, 1, 1 / 4),
        (4, 1, 2, 1 / 2),  # 3 of the 6 pairs hold it
        (5, 2, 3, 9 / 10),  # 1 of 10 triples misses both
        (8, 0, 8, 0.0),
        (8, 1, 8, 1.0),
        (8, 8, 1, 1.0),
    ],
)
def test_pass_at_k_by_hand(num_samples, num_correct, k, expected):
    assert pass_at_k(num_samples, num_correct, k) == expected


def test_pass_at_k_stays_exact_where_binomials_have_hundreds_of_digits():
    # one correct of n: the subset holds it with k in n
    assert pass_at_k(4096, 1, 2048) == 0.5
    assert pass_at_k(1024, 1, 1) == 1 / 1024


@given(st.lists(st.sampled_from([CORRECT, "a", "b", "c", None]), min_size=1, max_size=7), st.data())
@settings(deadline=None, max_examples=200)
def test_majority_at_k_is_the_average_over_all_subsets(votes, data):
    k = data.draw(st.integers(1, len(votes)))
    expected = average_over_subsets(votes, k, majority_is_correct)
    assert majority_at_k(votes, k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("votes", "k", "expected"),
    [
        ([CORRECT, "7"], 2, 1 / 2),  # a tie: by lot
        ([CORRECT, "7", "8"], 3, 1 / 3),  # three on top
        ([CORRECT, "7", "7"], 3, 0.0),
        ([CORRECT, CORRECT, "7"], 3, 1.0),
        ([CORRECT, None, None], 3, 1.0),  # no box is no vote
        ([None, None], 2, 0.0),
        (["7", "7"], 1, 0.0),
        ([CORRECT, CORRECT, "7", "8"], 2, (1 + 4 / 2) / 6),  # the pair, and four ties of 1 to 1
    ],
)
def test_majority_at_k_by_hand(votes, k, expected):
    assert majority_at_k(votes, k) == pytest.approx(expected, abs=1e-15)


def test_majority_at_1_is_the_share_of_correct_responses():
    votes = [CORRECT] * 3 + ["7"] * 4 + [None]
    assert majority_at_k(votes, 1) == 3 / 8


def test_majority_of_many_samples_is_quick():
    votes = [CORRECT] * 20 + [str(number % 40) for number in range(100)] + [None] * 8
    assert 0.9 < majority_at_k(votes, 64) < 1.0  # 20 votes against 2 or 3


@pytest.mark.parametrize("k", [0, 5])
def test_k_has_to_lie_between_1_and_the_samples(k):
    for estimate in (lambda: pass_at_k(4, 2, k), lambda: majority_at_k([CORRECT] * 4, k)):
        with pytest.raises(ValueError, match=rf"^k={k} must be in \[1, 4\]"):
            estimate()


@pytest.mark.parametrize("num_correct", [-1, 5])
def test_more_correct_than_responses_is_refused(num_correct):
    with pytest.raises(ValueError, match=f"num_correct={num_correct} must be"):
        pass_at_k(4, num_correct, 1)
