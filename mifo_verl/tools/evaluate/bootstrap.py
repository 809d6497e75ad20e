"""Bootstrap intervals over questions: the question is what a benchmark has drawn, so the question is resampled.

Shapes: Q questions of a benchmark, D bootstrap draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mifo_verl.errors import require

DRAWS = 10_000
LEVEL = 0.95
_CHUNK = 2_000_000
"""Indices held in memory at a time."""


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap interval."""

    mean: float
    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


def interval(benchmarks_Q: Sequence[Sequence[float]], level: float = LEVEL, seed: int = 0) -> Interval:
    """The mean over benchmarks of the means over their questions, with a percentile bootstrap interval.

    One benchmark gives its own interval. Of several, each has its own questions resampled (stratified), and every
    benchmark weighs the same, as in the papers' averages. A question's value is its mean over samples, its pass@k or
    maj@k; for a paired comparison it is the difference of two models on that question (``paired``).
    Source: Efron and Tibshirani 1993, chapter 13 (percentile interval). The same seed gives the same numbers.
    Raises ValueError where a benchmark has no questions.
    """
    means_D = np.mean([_resampled_means(values_Q, seed + place) for place, values_Q in enumerate(benchmarks_Q)], axis=0)
    mean = float(np.mean([np.mean(values_Q) for values_Q in benchmarks_Q]))
    tail = (1 - level) / 2
    low, high = np.quantile(means_D, [tail, 1 - tail])
    return Interval(mean, float(low), float(high))


def share_interval(values_Q: Sequence[float], level: float = LEVEL, seed: int = 0) -> Interval:
    """The interval of one benchmark's metric in [0, 1].

    Where every question has the value 0, or every one 1, all resamples are alike and a bootstrap would claim certainty:
    there it is the exact binomial interval (Clopper and Pearson 1934), such as [0, 11.6] percent for 0 of 30 questions.
    """
    found = interval([values_Q], level, seed)
    bound = ((1 - level) / 2) ** (1 / len(values_Q))
    if all(value == 0 for value in values_Q):
        return Interval(0.0, 0.0, 1 - bound)
    if all(value == 1 for value in values_Q):
        return Interval(1.0, bound, 1.0)
    return found


def paired(
    first_Q: Sequence[Sequence[float]], second_Q: Sequence[Sequence[float]], level: float = LEVEL, seed: int = 0
) -> Interval:
    """The mean difference first - second on the same questions, with its interval.

    Both models' values of a question are resampled together: what a question's difficulty does to both cancels out.
    Raises ValueError where the questions are not as many.
    """
    pairs = zip(first_Q, second_Q, strict=True)
    return interval([[a - b for a, b in zip(a_Q, b_Q, strict=True)] for a_Q, b_Q in pairs], level, seed)


def _resampled_means(values_Q: Sequence[float], seed: int) -> NDArray[np.float64]:
    """means_D of DRAWS resamples with replacement."""
    values = np.asarray(values_Q, dtype=np.float64)
    require(len(values) > 0, "questions", len(values), "at least 1", "a benchmark without questions has no mean")
    generator = np.random.Generator(np.random.Philox(seed))
    means, rows = np.empty(DRAWS), max(1, _CHUNK // len(values))
    for first in range(0, DRAWS, rows):
        last = min(first + rows, DRAWS)
        means[first:last] = values[generator.integers(0, len(values), (last - first, len(values)))].mean(axis=1)
    return means
