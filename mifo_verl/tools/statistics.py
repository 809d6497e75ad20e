"""Intervals over seeds (Student's t) and over questions (bootstrap), paired differences, and what may be claimed of them.

Seeds get no bootstrap: five values have 126 different resamples, and the percentile interval of so few is too narrow by
a factor of sqrt(4/5) * 1.96 / 2.776 = 0.63. The t interval is exact if the values are normal, and a run's accuracy
over hundreds of prompts is a mean already.

Shapes: Q questions of a benchmark, D bootstrap draws.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from mifo_verl.errors import require
from mifo_verl.probes.coupling import ROUNDING

LEVEL = 0.95
DRAWS, TAIL_DRAWS = 10_000, 100
"""The fewest bootstrap draws, and the fewest that lie beyond each end of an interval."""
CHUNK = 20_000_000
"""Counts held in memory at a time."""


@dataclass(frozen=True)
class Interval:
    """A mean and its interval; the ends are None if a single value leaves them unknown."""

    mean: float
    low: float | None
    high: float | None
    num_values: int
    """Seeds or questions."""

    @property
    def half_width(self) -> float | None:
        """Half of the interval; None for a single value."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def has_width(self) -> bool:
        """Whether the values say how far they scatter: several, and not all the same up to rounding."""
        return self.half_width is not None and self.half_width > ROUNDING * max(1.0, abs(self.mean))

    def excludes_zero(self) -> bool:
        """Whether 0 lies outside; never without a width."""
        return self.has_width and (self.low > 0 or self.high < 0)  # type: ignore[operator]

    def scaled(self, factor: float) -> "Interval":
        """The interval of the values times ``factor`` > 0: 100 for percentage points."""
        low, high = (None if end is None else factor * end for end in (self.low, self.high))
        return Interval(factor * self.mean, low, high, self.num_values)


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The mean with its Student's t interval. Raises ValueError without a value."""
    require(len(values) > 0, "values", len(values), "at least 1", "a mean of none is nothing")
    mean, number = float(np.mean(values)), len(values)
    if number < 2:
        return Interval(mean, None, None, 1)
    half = float(stdtrit(number - 1, (1 + level) / 2) * np.std(values, ddof=1) / math.sqrt(number))
    return Interval(mean, mean - half, mean + half, number)


def paired_by_seed(first: Mapping[int, float], second: Mapping[int, float], level: float = LEVEL) -> Interval:
    """first - second over the seeds that both have. Raises ValueError if they share none.

    What a seed does to both (its data, its first rollouts) cancels out.
    """
    return t_interval([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())], level)


def fieller(tops: Sequence[float], bottoms: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """The interval of mean(tops) / mean(bottoms), values of the same seeds: every r whose tops - r * bottoms has 0 in
    its t interval (Fieller 1954). None if that is unbounded: the interval of the bottoms holds 0.

    The ends are the roots of r^2 (g^2 - G) - 2 r (l g - B) + l^2 - L: l and g are the means; L, G and B the variances
    and the covariance of these means times t^2. Raises ValueError for fewer than two values.
    """
    n = len(tops)
    if n < 2 or len(bottoms) != n:
        raise ValueError(
            f"{n} tops and {len(bottoms)} bottoms must be as many, at least two; give those of the same seeds"
        )
    covariance = np.cov(tops, bottoms) * stdtrit(n - 1, (1 + level) / 2) ** 2 / n
    top, bottom = np.mean(tops), np.mean(bottoms)
    square, middle, rest = bottom**2 - covariance[1, 1], top * bottom - covariance[0, 1], top**2 - covariance[0, 0]
    if square <= ROUNDING**2:
        return None
    root = math.sqrt(max(0.0, middle**2 - square * rest))
    return float((middle - root) / square), float((middle + root) / square)


def num_draws(level: float) -> int:
    """The bootstrap draws of an interval: at least ``TAIL_DRAWS`` beyond each of its ends, which the end rests on."""
    return max(DRAWS, math.ceil(2 * TAIL_DRAWS / (1 - level) * (1 - 1e-9)))


def bootstrap(
    benchmarks_Q: Sequence[Sequence[float]],
    level: float = LEVEL,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """The mean over benchmarks of the means over their questions, with a percentile bootstrap interval.

    The question is what a benchmark has drawn, so questions are resampled: those of each benchmark by themselves. Every
    benchmark weighs the same, as in the papers' averages. Source: Efron and Tibshirani 1993, chapter 13. The same seed
    gives the same numbers.

    If all resamples are alike, they would claim certainty. Then a share of up to q of all questions, of which none was
    drawn, may have any value in ``bounds``; q is the exact binomial bound for 0 of Q (Clopper and Pearson 1934). For 0
    of 30 questions right this is [0, 11.6] percent. Raises ValueError on a benchmark without questions.
    """
    for values_Q in benchmarks_Q:
        require(len(values_Q) > 0, "questions", len(values_Q), "at least 1", "a benchmark without any has no mean")
    draws, tail, number = num_draws(level), (1 - level) / 2, sum(map(len, benchmarks_Q))
    mean = float(np.mean([np.mean(values_Q) for values_Q in benchmarks_Q]))
    if all(len(set(values_Q)) == 1 for values_Q in benchmarks_Q):
        unseen = float(np.mean([1 - tail ** (1 / len(values_Q)) for values_Q in benchmarks_Q]))
        return Interval(mean, mean - unseen * (mean - bounds[0]), mean + unseen * (bounds[1] - mean), number)
    means_D = np.mean([_resampled_means(one, draws, seed + place) for place, one in enumerate(benchmarks_Q)], axis=0)
    low, high = np.quantile(means_D, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), number)


def paired_by_question(
    pairs_Q: Sequence[Sequence[tuple[float, float]]], level: float = LEVEL, seed: int = 0
) -> Interval:
    """The mean difference of two models, first - second, on the same questions of each benchmark, by ``bootstrap``.

    Both models' values of a question are resampled together: what a question's difficulty does to both cancels out.
    """
    return bootstrap([[first - second for first, second in one] for one in pairs_Q], level, seed, bounds=(-1.0, 1.0))


def _resampled_means(values_Q: Sequence[float], draws: int, seed: int) -> NDArray[np.float64]:
    """means_D of resamples with replacement.

    How often a resample holds each distinct value is one multinomial draw: the law of ``scipy.stats.bootstrap``, at a
    cost that grows with the distinct values and not with the questions.
    """
    values, counts = np.unique(np.asarray(values_Q, dtype=np.float64), return_counts=True)
    generator, number, step = np.random.Generator(np.random.Philox(seed)), len(values_Q), CHUNK // len(values) + 1
    parts = (
        generator.multinomial(number, counts / number, min(step, draws - first)) for first in range(0, draws, step)
    )
    return np.concatenate([part @ values for part in parts]) / number


@dataclass(frozen=True)
class Difference:
    """``first`` minus ``second`` in one number, paired by seed or by question."""

    first: str
    second: str
    number: str
    paired: Interval
    """At 95 %: what holds if the difference is read alone."""
    corrected: Interval
    """At 1 - 5 % / ``num_tests`` (Bonferroni): what holds if all tests are read together."""
    num_tests: int


def corrected_level(num_tests: int) -> float:
    """The level at which each of ``num_tests`` intervals has to hold for all of them to hold at 95 % (Bonferroni)."""
    return 1 - (1 - LEVEL) / max(num_tests, 1)


def holm(p: Sequence[float]) -> list[float]:
    """The p-values of a family of tests, each as it counts among all of them, in their order (Holm 1979)."""
    adjusted, largest = [0.0] * len(p), 0.0
    for done, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - done) * p[place]))
        adjusted[place] = largest
    return adjusted


def told(one: Difference, what: str, of: str, in_points: bool) -> str:
    """The difference in words: ``a - b in entropy: +0.1 [+0.05, +0.15], 3 seeds``. ``of``: seeds or questions."""
    value, unit = (one.paired.scaled(100), " points") if in_points else (one.paired, "")
    ends = "" if value.low is None else f" [{value.low:+.3g}, {value.high:+.3g}]"
    return f"{one.first} - {one.second}{what}: {value.mean:+.3g}{unit}{ends}, {value.num_values} {of}"


def claim(one: Difference, what: str, of: str, in_points: bool, at: str = "") -> str:
    """What can be claimed of a difference, and what cannot. ``at``: what was not equal, such as the compute."""
    text, alone, together = told(one, what, of, in_points), one.paired, one.corrected
    if alone.low is None or alone.high is None:
        return f"{text.removesuffix(f', 1 {of}')} for one {of.removesuffix('s')}: no claim."
    if not alone.has_width:
        return (
            f"{text}: the same difference for every {of.removesuffix('s')}, which no interval can be made of: no claim."
        )
    scale, unit = (100.0, " points") if in_points else (1.0, "")
    least = f"A difference below {scale * (together.half_width or 0.0):.3g}{unit} could not have been claimed."
    if not alone.excludes_zero():
        most = scale * max(-alone.low, alone.high)
        return f"{text}: no claim{at}; the interval allows up to {most:.2g}{unit} in size. {least}"
    word = ("higher" if alone.mean > 0 else "lower") + at
    if not together.excludes_zero():
        return f"{text}: {word}, read alone; among all {one.num_tests} tests no claim (Bonferroni). {least}"
    return f"{text}: {word}. {least}"
