"""Intervals that cover what they claim, and that pair what belongs together."""

import numpy as np
import pytest

from mifo_verl.tools.evaluate import bootstrap
from mifo_verl.tools.evaluate.bootstrap import Interval, interval, paired, share_interval


def test_the_interval_of_a_mean_is_the_normal_one_where_questions_are_many():
    values = [1.0] * 300 + [0.0] * 700
    found = interval([values])
    half = 1.96 * (0.3 * 0.7 / 1000) ** 0.5  # the normal approximation
    assert found.mean == pytest.approx(0.3)
    assert found.low == pytest.approx(0.3 - half, abs=0.002)
    assert found.high == pytest.approx(0.3 + half, abs=0.002)


def test_the_95_percent_interval_covers_the_truth_about_95_times_in_100(monkeypatch):
    monkeypatch.setattr(bootstrap, "DRAWS", 1000)
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        difficulty = random.beta(1, 2, size=100)  # mean 1/3; four samples a question
        values = random.binomial(4, difficulty) / 4
        found = interval([values], seed=trial)
        covered += found.low <= 1 / 3 <= found.high
    assert 0.92 <= covered / 400 <= 0.975  # three standard errors around 0.95, less what a percentile interval lacks


def test_the_average_weighs_every_benchmark_alike_and_resamples_each_by_itself():
    small, large = [1.0, 0.0] * 10, [1.0] * 1000
    found = interval([small, large])
    alone = interval([small])
    assert found.mean == pytest.approx((0.5 + 1.0) / 2)
    # the large one is constant: the average moves by half of what the small one does
    assert found.high - found.low == pytest.approx((alone.high - alone.low) / 2, abs=1e-9)


def test_two_benchmarks_of_the_same_values_are_drawn_independently():
    values = [1.0, 0.0] * 50
    together, alone = interval([values, values]), interval([values])
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(0.5**0.5, abs=0.08)  # 1 would mean that both were drawn with the same draws


def test_a_paired_difference_is_much_narrower_than_two_intervals():
    random = np.random.default_rng(1)
    hard = random.random(500) < 0.5  # half of the questions no model can do
    second = np.where(hard, 0.0, 1.0)
    first = second.copy()
    first[np.flatnonzero(hard)[:10]] = 1.0  # ten more
    found = paired([first], [second])
    assert found.mean == pytest.approx(10 / 500)
    assert found.high - found.low < 0.03  # 2 * 1.96 * sqrt(0.02 * 0.98 / 500) = 0.0245
    assert interval([first]).high - interval([first]).low > 3 * (found.high - found.low)


def test_the_order_of_the_models_turns_the_sign_and_nothing_else():
    first, second = [1.0, 1.0, 0.0, 0.5], [0.0, 1.0, 0.25, 0.0]
    there, back = paired([first], [second]), paired([second], [first])
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))


def test_the_same_seed_gives_the_same_interval():
    values = [0.0, 1.0, 0.5, 0.25]
    assert interval([values], seed=3) == interval([values], seed=3)
    assert interval([values * 20], seed=3) != interval([values * 20], seed=4)


def test_many_questions_are_drawn_in_pieces_that_give_the_same_numbers(monkeypatch):
    values = [0.0, 1.0, 1.0]
    whole = interval([values])
    monkeypatch.setattr(bootstrap, "_CHUNK", 3 * 1000)
    assert interval([values]) == whole


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, 0.0, 0.1157), (1.0, 0.8843, 1.0)])
def test_all_wrong_or_all_right_is_no_certainty(value, low, high):
    # Clopper and Pearson for 0 of 30 at 95 %: 1 - 0.025 ** (1/30)
    found = share_interval([value] * 30)
    assert found.mean == value
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_a_mixed_benchmark_keeps_its_bootstrap_interval():
    assert share_interval([0.0, 1.0]) == interval([[0.0, 1.0]])


def test_a_wider_level_gives_a_wider_interval():
    values = [[1.0] * 40 + [0.0] * 60]
    assert interval(values, 0.99).low < interval(values, 0.95).low < interval(values, 0.95).high


@pytest.mark.parametrize(
    ("low", "high", "excludes"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0.0, 0.1, False)]
)
def test_zero_on_the_edge_is_not_excluded(low, high, excludes):
    assert Interval(0.0, low, high).excludes_zero() is excludes


def test_no_questions_have_no_mean():
    with pytest.raises(ValueError, match="questions=0 must be at least 1"):
        interval([[]])


def test_pairs_need_as_many_questions():
    with pytest.raises(ValueError):
        paired([[1.0, 0.0]], [[1.0]])
