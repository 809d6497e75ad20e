"""Quantiles, intervals of means and of ratios, by hand."""

import math

import pytest

from mifo_verl.tools.report.bands import t_cdf, t_quantile
from mifo_verl.tools.sweep.statistics import fieller, interval, paired


@pytest.mark.parametrize(
    ("freedom", "probability", "value"),
    [
        (1, 0.975, 12.7062),
        (2, 0.975, 4.3027),
        (4, 0.975, 2.7764),
        (4, 0.995, 4.6041),
        (9, 0.975, 2.2622),
        (30, 0.975, 2.0423),
    ],
)
def test_quantiles_are_those_of_the_printed_tables(freedom, probability, value):
    assert t_quantile(freedom, probability) == pytest.approx(value, abs=5e-5)


def test_one_degree_of_freedom_is_cauchy_and_half_lies_below_0():
    assert t_cdf(1.0, 1) == pytest.approx(0.75)
    assert [t_cdf(0.0, freedom) for freedom in (1, 2, 5, 8)] == [0.5] * 4


def test_the_interval_of_five_values_by_hand():
    # mean 3, standard deviation sqrt(2.5), half = 2.7764 * sqrt(2.5 / 5)
    found = interval([1, 2, 3, 4, 5])
    half = 2.776445 * math.sqrt(0.5)
    assert (found.mean, found.num_seeds) == (3.0, 5)
    assert (found.low, found.high) == (pytest.approx(3 - half), pytest.approx(3 + half))


def test_a_pair_cancels_what_the_seed_does_to_both_and_needs_common_seeds():
    first, second = {0: 10.0, 1: 20.0, 2: 30.0, 7: 99.0}, {0: 9.0, 1: 18.0, 2: 27.0}
    found = paired(first, second)
    # differences 1, 2, 3: mean 2, deviation 1, half = 4.3027 / sqrt(3)
    assert found.mean == 2.0 and found.num_seeds == 3
    assert found.low == pytest.approx(2 - 4.302653 / math.sqrt(3))
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_one_seed_has_no_interval_and_no_claim():
    found = interval([0.5])
    assert (found.low, found.high) == (None, None) and not found.excludes_zero()
    assert not interval([0.25, 0.25]).excludes_zero()  # of no width


def test_seeds_that_differ_by_rounding_alone_make_no_interval():
    values = [0.30 - 0.25, 0.60 - 0.55, 0.80 - 0.75]
    assert len(set(values)) > 1  # in floats
    found = interval(values)
    assert found.is_degenerate and not found.has_width and not found.excludes_zero()
    assert not interval([0.05, 0.06, 0.07]).is_degenerate and not interval([0.05]).is_degenerate


def test_the_interval_of_a_ratio_over_a_number_without_scatter_is_that_of_the_top_divided():
    # 1, 2, 3: 2 +- 4.3027 / sqrt(3), by 4
    low, high = fieller([1, 2, 3], [4, 4, 4])
    half = 4.302653 / math.sqrt(3)
    assert (low, high) == (pytest.approx((2 - half) / 4), pytest.approx((2 + half) / 4))


def test_the_ends_of_a_ratios_interval_are_where_that_of_the_difference_touches_0():
    tops, bottoms = [1.0, 2.0, 4.0, 3.0], [5.0, 6.0, 6.0, 8.0]
    ends = fieller(tops, bottoms)
    touching = [interval([top - end * bottom for top, bottom in zip(tops, bottoms, strict=True)]) for end in ends]
    assert touching[0].low == pytest.approx(0, abs=1e-9) and touching[1].high == pytest.approx(0, abs=1e-9)
    assert ends[0] < 10 / 25 < ends[1]


def test_a_ratio_whose_bottom_may_be_0_is_unbounded_and_one_seed_has_none():
    assert fieller([1.0, 2.0, 3.0], [-1.0, 2.0, 3.0]) is None
    with pytest.raises(ValueError, match="1 tops and 1 bottoms must be as many, at least two"):
        fieller([1.0], [1.0])
