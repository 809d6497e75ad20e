"""Intervals over a few seeds: of means by Student's t, paired by seed, and of ratios of means by Fieller.

Not a bootstrap: five values have 126 different resamples, and the percentile interval of so few is too narrow by a
factor of sqrt(4/5) * 1.96 / 2.776 = 0.63, so that it holds the mean far less often than it says. The t interval is
exact where the values are normal, and a run's accuracy over hundreds of prompts is a mean already.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import covariance, fmean

from mifo_verl.probes.coupling import ROUNDING
from mifo_verl.tools.report.bands import mean_interval, t_quantile

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds; the interval's ends are None where one value leaves them unknown."""

    mean: float
    low: float | None
    high: float | None
    num_seeds: int

    @property
    def half_width(self) -> float | None:
        """Half of the interval; None for a single seed."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def is_degenerate(self) -> bool:
        """Whether all seeds give the same number up to rounding, which no interval can be made of."""
        return self.half_width is not None and self.half_width <= ROUNDING * max(1.0, abs(self.mean))

    @property
    def has_width(self) -> bool:
        """Whether the values say how far they scatter: several seeds, not all the same."""
        return self.half_width is not None and not self.is_degenerate

    def excludes_zero(self) -> bool:
        """Whether 0 lies outside; never for a single seed, nor where all seeds give the same number."""
        return self.has_width and (self.low > 0 or self.high < 0)  # type: ignore[operator]


def interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The mean with its t interval. Raises ValueError without a value."""
    if not values:
        raise ValueError("values= must hold at least one; a mean of none is nothing")
    mean, half = mean_interval(values, level)
    if half is None:
        return Interval(mean, None, None, 1)
    return Interval(mean, mean - half, mean + half, len(values))


def paired(first: Mapping[int, float], second: Mapping[int, float], level: float = LEVEL) -> Interval | None:
    """first - second over the seeds that both have; None where they share none.

    What a seed does to both (its data, its first rollouts) cancels out.
    """
    seeds = sorted(first.keys() & second.keys())
    return interval([first[seed] - second[seed] for seed in seeds], level) if seeds else None


def fieller(tops: Sequence[float], bottoms: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """The interval of mean(tops) / mean(bottoms), values of the same seeds: every r whose tops - r * bottoms has 0 in
    its t interval. None where that is unbounded: the interval of the bottoms holds 0.

    The ends are the roots of r^2 (g^2 - G) - 2 r (l g - B) + l^2 - L: l and g are the means; L, G and B the variances
    and the covariance of these means times t^2. Raises ValueError for fewer than two values.
    """
    n = len(tops)
    if n < 2 or len(bottoms) != n:
        raise ValueError(
            f"{n} tops and {len(bottoms)} bottoms must be as many, at least two; give those of the same seeds"
        )
    scale = t_quantile(n - 1, (1 + level) / 2) ** 2 / n
    top, bottom = fmean(tops), fmean(bottoms)
    square = bottom**2 - scale * covariance(bottoms, bottoms)
    middle = top * bottom - scale * covariance(tops, bottoms)
    rest = top**2 - scale * covariance(tops, tops)
    if square <= ROUNDING**2:
        return None
    root = math.sqrt(max(0.0, middle**2 - square * rest))
    return (middle - root) / square, (middle + root) / square
