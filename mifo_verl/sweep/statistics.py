"""Intervals of means over a few seeds: Student's t, and paired by seed.

Not a bootstrap: five values have 126 different resamples, and the percentile interval of so few is too narrow by a
factor of sqrt(4/5) * 1.96 / 2.776 = 0.63, so that it holds the mean far less often than it says. The t interval is
exact where the values are normal, and a run's accuracy over hundreds of prompts is a mean already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mifo_verl.report.bands import mean_interval

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
