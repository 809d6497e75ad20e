"""Intervals of means over a few seeds: Student's t, and paired by seed.

Not a bootstrap: five values have 126 different resamples, and the percentile interval of so few is too narrow by a
factor of sqrt(4/5) * 1.96 / 2.776 = 0.63, so that it holds the mean far less often than it says. The t interval is
exact where the values are normal, and a run's accuracy over hundreds of prompts is a mean already.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds; the interval's ends are None where one value leaves them unknown."""

    mean: float
    low: float | None
    high: float | None
    num_seeds: int

    def excludes_zero(self) -> bool:
        """Whether 0 lies outside; never for a single seed, nor where all seeds give the same number."""
        known = self.low is not None and self.high is not None and self.high > self.low
        return known and (self.low > 0 or self.high < 0)  # type: ignore[operator]


def interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The mean with its t interval. Raises ValueError without a value."""
    if not values:
        raise ValueError("values= must hold at least one; a mean of none is nothing")
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, None, None, 1)
    half = t_quantile(len(values) - 1, (1 + level) / 2) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, len(values))


def paired(first: Mapping[int, float], second: Mapping[int, float], level: float = LEVEL) -> Interval | None:
    """first - second over the seeds that both have; None where they share none.

    What a seed does to both (its data, its first rollouts) cancels out.
    """
    seeds = sorted(first.keys() & second.keys())
    return interval([first[seed] - second[seed] for seed in seeds], level) if seeds else None


def t_quantile(freedom: int, probability: float) -> float:
    """The value that Student's t with ``freedom`` degrees of freedom stays below with this probability (> 1/2)."""
    low, high = 0.0, 1.0
    while t_cdf(high, freedom) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def t_cdf(t: float, freedom: int) -> float:
    """P(T <= t), t >= 0, by the finite series for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine = math.cos(angle)
    odd = freedom % 2 == 1
    term, total = (cosine if odd else 1.0), 0.0
    for step in range(1 if odd else 0, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (step + 1) / (step + 2)
    inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return 0.5 + inside / 2
