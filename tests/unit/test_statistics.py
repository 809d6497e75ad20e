"""Intervals that cover what they claim and pair what belongs together; claims that say what they rest on."""

import math

import numpy as np
import pytest
from scipy import stats

from mifo_verl.tools import statistics
from mifo_verl.tools.statistics import (
    Difference,
    Interval,
    bootstrap,
    claim,
    corrected_level,
    fieller,
    num_draws,
    paired_by_question,
    paired_by_seed,
    t_interval,
)


def paired(first, second):
    """The difference on one benchmark."""
    return paired_by_question([list(zip(first, second, strict=True))])


T = {0.95: 4.302653, 0.975: 6.205347}
"""Student's t at two degrees of freedom, from a printed table."""


# Over seeds


@pytest.mark.parametrize(
    ("num_values", "level", "quantile"),
    [
        (2, 0.95, 12.7062),
        (3, 0.95, 4.3027),
        (5, 0.95, 2.7764),
        (5, 0.99, 4.6041),
        (10, 0.95, 2.2622),
        (31, 0.95, 2.0423),
    ],
)
def test_the_interval_is_the_printed_tables_quantile_times_the_standard_error(num_values, level, quantile):
    values = [0.0] * (num_values - 1) + [1.0]
    error = (1 / num_values) ** 0.5 / num_values**0.5  # variance of one 1 among zeros: 1/n, divided by n
    assert t_interval(values, level).half_width == pytest.approx(quantile * error, rel=2e-5)


def test_the_interval_of_five_values_by_hand():
    # mean 3, standard deviation sqrt(2.5), half = 2.7764 * sqrt(2.5 / 5)
    found, half = t_interval([1, 2, 3, 4, 5]), 2.776445 * math.sqrt(0.5)
    assert (found.mean, found.num_values) == (3.0, 5)
    assert (found.low, found.high) == (pytest.approx(3 - half), pytest.approx(3 + half))


def test_a_pair_cancels_what_the_seed_does_to_both_and_needs_common_seeds():
    first, second = {0: 10.0, 1: 20.0, 2: 30.0, 7: 99.0}, {0: 9.0, 1: 18.0, 2: 27.0}
    found = paired_by_seed(first, second)
    # differences 1, 2, 3: mean 2, deviation 1
    assert (found.mean, found.num_values) == (2.0, 3)
    assert found.low == pytest.approx(2 - T[0.95] / math.sqrt(3))
    with pytest.raises(ValueError, match="values=0 must be at least 1"):
        paired_by_seed({0: 1.0}, {1: 1.0})


def test_values_are_paired_by_their_seed_and_not_by_their_rank_or_place():
    # by seed the differences are -2, 0, 2; by rank, and by place in the mapping, all would be 0
    first, second = {2: 3.0, 1: 2.0, 0: 1.0}, {0: 3.0, 1: 2.0, 2: 1.0}
    found = paired_by_seed(first, second)
    assert found.mean == 0.0
    assert found.half_width == pytest.approx(T[0.95] * 2 / math.sqrt(3))
    # a seed that only one has does not move the others' partners: 11 - 1 and 12 - 2, not 10 - 1 and 11 - 2
    assert paired_by_seed({0: 10.0, 1: 11.0, 2: 12.0}, {1: 1.0, 2: 2.0}) == Interval(10.0, 10.0, 10.0, 2)


def test_one_seed_and_seeds_that_are_all_the_same_say_nothing():
    found = t_interval([0.5])
    assert (found.low, found.high, found.has_width, found.excludes_zero()) == (None, None, False, False)
    assert not t_interval([0.25, 0.25]).excludes_zero()
    values = [0.30 - 0.25, 0.60 - 0.55, 0.80 - 0.75]
    assert len(set(values)) > 1  # in floats
    assert not t_interval(values).has_width and not t_interval(values).excludes_zero()
    assert t_interval([0.05, 0.06, 0.07]).has_width


def test_no_values_have_no_mean():
    with pytest.raises(ValueError, match="values=0 must be at least 1"):
        t_interval([])
    with pytest.raises(ValueError, match="questions=0 must be at least 1"):
        bootstrap([[1.0], []])


def test_the_interval_of_a_ratio_over_a_number_without_scatter_is_that_of_the_top_divided():
    # 1, 2, 3: 2 +- 4.3027 / sqrt(3), by 4
    low, high = fieller([1, 2, 3], [4, 4, 4])
    half = T[0.95] / math.sqrt(3)
    assert (low, high) == (pytest.approx((2 - half) / 4), pytest.approx((2 + half) / 4))


def test_the_ends_of_a_ratios_interval_are_where_that_of_the_difference_touches_0():
    tops, bottoms = [1.0, 2.0, 4.0, 3.0], [5.0, 6.0, 6.0, 8.0]
    ends = fieller(tops, bottoms)
    touching = [t_interval([top - end * bottom for top, bottom in zip(tops, bottoms, strict=True)]) for end in ends]
    assert touching[0].low == pytest.approx(0, abs=1e-9) and touching[1].high == pytest.approx(0, abs=1e-9)
    assert ends[0] < 10 / 25 < ends[1]


def test_a_ratio_whose_bottom_may_be_0_is_unbounded_and_one_seed_has_none():
    assert fieller([1.0, 2.0, 3.0], [-1.0, 2.0, 3.0]) is None
    with pytest.raises(ValueError, match="1 tops and 1 bottoms must be as many, at least two"):
        fieller([1.0], [1.0])


# Over questions


def test_the_interval_of_a_mean_is_the_normal_one_if_questions_are_many():
    found = bootstrap([[1.0] * 300 + [0.0] * 700])
    half = 1.96 * (0.3 * 0.7 / 1000) ** 0.5  # the normal approximation
    assert (found.mean, found.num_values) == (0.3, 1000)
    assert found.low == pytest.approx(0.3 - half, abs=0.002)
    assert found.high == pytest.approx(0.3 + half, abs=0.002)


def test_the_ends_are_those_of_scipys_bootstrap_within_what_the_draws_leave_open():
    values = np.random.default_rng(2).integers(0, 5, 60) / 4
    reference = stats.bootstrap((values,), np.mean, n_resamples=40_000, method="percentile", batch=4000, rng=1)
    found = bootstrap([values])
    assert found.low == pytest.approx(reference.confidence_interval.low, abs=0.004)
    assert found.high == pytest.approx(reference.confidence_interval.high, abs=0.004)


def test_the_95_percent_interval_covers_the_truth_about_95_times_in_100(monkeypatch):
    monkeypatch.setattr(statistics, "DRAWS", 1000)
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        difficulty = random.beta(1, 2, size=100)  # mean 1/3; four samples a question
        found = bootstrap([random.binomial(4, difficulty) / 4], seed=trial)
        covered += found.low <= 1 / 3 <= found.high
    assert 0.92 <= covered / 400 <= 0.975  # three standard errors around 0.95, less what a percentile interval lacks


def test_the_average_weighs_every_benchmark_alike_and_resamples_each_by_itself():
    small, large = [1.0, 0.0] * 10, [1.0] * 1000
    found, alone = bootstrap([small, large]), bootstrap([small])
    assert (found.mean, found.num_values) == (pytest.approx((0.5 + 1.0) / 2), 1020)
    # the large one is constant: the average moves by half of what the small one does
    assert found.high - found.low == pytest.approx((alone.high - alone.low) / 2, abs=1e-9)


def test_two_benchmarks_of_the_same_values_are_drawn_independently():
    values = [1.0, 0.0] * 50
    together, alone = bootstrap([values, values]), bootstrap([values])
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(0.5**0.5, abs=0.08)  # 1 would mean that both were drawn with the same draws


def test_a_paired_difference_is_much_narrower_than_two_intervals():
    random = np.random.default_rng(1)
    hard = random.random(500) < 0.5  # half of the questions no model can do
    second = np.where(hard, 0.0, 1.0)
    first = second.copy()
    first[np.flatnonzero(hard)[:10]] = 1.0  # ten more
    found = paired(first, second)
    assert found.mean == pytest.approx(10 / 500)
    assert found.high - found.low < 0.03  # 2 * 1.96 * sqrt(0.02 * 0.98 / 500) = 0.0245
    assert bootstrap([first]).high - bootstrap([first]).low > 3 * (found.high - found.low)


def test_the_order_of_the_models_turns_the_sign_and_nothing_else():
    first, second = [1.0, 1.0, 0.0, 0.5] * 20, [0.0, 1.0, 0.25, 0.0] * 20
    there, back = paired(first, second), paired(second, first)
    assert there.mean == -back.mean == pytest.approx((1 + 0 - 0.25 + 0.5) / 4)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.01)


def test_the_same_seed_gives_the_same_interval_whatever_is_drawn_at_a_time(monkeypatch):
    values = [number**0.5 for number in range(20)]
    whole = bootstrap([values], seed=3)
    assert whole == bootstrap([values], seed=3) != bootstrap([values], seed=4)
    monkeypatch.setattr(statistics, "CHUNK", 20 * 999)  # pieces of 1000 draws
    assert bootstrap([values], seed=3) == whole


def test_there_are_as_many_draws_as_the_tail_of_the_level_needs():
    # 100 beyond each end: 0.05 / 50 / 2 of the draws
    assert [num_draws(corrected_level(tests)) for tests in (1, 2, 50)] == [10_000, 10_000, 200_000]
    assert num_draws(0.95) == 10_000  # 250 beyond each end


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, 0.0, 0.1157), (1.0, 0.8843, 1.0)])
def test_all_wrong_or_all_right_is_no_certainty(value, low, high):
    # Clopper and Pearson for 0 of 30 at 95 %: 1 - 0.025 ** (1/30)
    found = bootstrap([[value] * 30])
    assert found.mean == value
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    exact = stats.binomtest(int(30 * value), 30).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_a_difference_that_is_the_same_on_every_question_is_no_certainty():
    # 1 - 0.025 ** (1/30) = 0.1157 of all questions may be unlike these, and at worst the other way round
    better = paired([1.0] * 30, [0.0] * 30)
    assert (better.mean, better.low, better.high) == pytest.approx((1.0, 1 - 2 * 0.1157, 1.0), abs=1e-4)
    equal = paired([1.0, 0.0] * 15, [1.0, 0.0] * 15)
    assert (equal.low, equal.high) == pytest.approx((-0.1157, 0.1157), abs=1e-4)


def test_a_wider_level_gives_a_wider_interval():
    values = [[1.0] * 40 + [0.0] * 60]
    assert bootstrap(values, 0.99).low < bootstrap(values, 0.95).low < bootstrap(values, 0.95).high


@pytest.mark.parametrize(
    ("low", "high", "excludes"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0.0, 0.1, False)]
)
def test_zero_on_the_edge_is_not_excluded(low, high, excludes):
    assert Interval(0.0, low, high, 9).excludes_zero() is excludes


# Claims


def difference(paired, corrected, num_tests=1):
    return Difference("a", "b", "accuracy", paired, corrected, num_tests)


WIDE, NARROW = Interval(0.1, -0.02, 0.22, 3), Interval(0.1, 0.04, 0.16, 3)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (
            difference(NARROW, NARROW),
            "a - b: +10 points [+4, +16], 3 seeds: higher. A difference below 6 points could not have been claimed.",
        ),
        (
            difference(NARROW, WIDE, 6),
            "a - b: +10 points [+4, +16], 3 seeds: higher, read alone; among all 6 tests no claim "
            "(Bonferroni). A difference below 12 points could not have been claimed.",
        ),
        (
            difference(WIDE, WIDE),
            "a - b: +10 points [-2, +22], 3 seeds: no claim; the interval allows up to 22 points in size. A difference "
            "below 12 points could not have been claimed.",
        ),
        (difference(*[Interval(0.1, None, None, 1)] * 2), "a - b: +10 points for one seed: no claim."),
        (
            difference(*[Interval(0.1, 0.1, 0.1, 3)] * 2),
            "a - b: +10 points [+10, +10], 3 seeds: the same difference for every seed, which no interval can be made "
            "of: no claim.",
        ),
    ],
)
def test_a_claim_says_what_it_rests_on(one, said):
    assert claim(one, "", "seeds", in_points=True) == said


def test_a_claim_names_its_number_its_unit_and_what_was_not_equal():
    one = Difference("a", "b", "entropy", *[Interval(-0.5, -0.75, -0.25, 40)] * 2, 1)
    assert claim(one, " in entropy", "questions", in_points=False, at=" at 2 times the compute") == (
        "a - b in entropy: -0.5 [-0.75, -0.25], 40 questions: lower at 2 times the compute. A difference below 0.25 "
        "could not have been claimed."
    )
