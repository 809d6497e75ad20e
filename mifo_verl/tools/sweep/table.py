"""The table of a sweep: means over the seeds of every arm, and paired differences that answer what was asked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

from mifo_verl.tools import statistics
from mifo_verl.tools.statistics import LEVEL, Difference, Interval, corrected_level, fieller, paired_by_seed, t_interval
from mifo_verl.tools.sweep.definition import Question, planned_tests
from mifo_verl.tools.sweep.numbers import ACCURACY

FORMAT = 4
Values = dict[str, dict[int, float]]
"""Of one arm: number -> seed -> its value."""
_EQUAL_COMPUTE = 1.1
"""The largest ratio of mean FLOPs that counts as equal: a budget's last step is a whole one."""


@dataclass(frozen=True)
class Mean(Interval):
    """A mean over seeds with its interval, and the values that it is of."""

    by_seed: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ArmDifference(Difference):
    """Of two arms, over the seeds that both have."""

    is_primary: bool
    """Whether the number was named before the runs as one that answers the question."""
    compute_ratio: float | None
    """Mean FLOPs of the first arm by those of the second, over these seeds; None if a run did not record them."""
    claim: str = ""
    """What can be claimed of it, and what cannot; of an exploratory one nothing can."""

    @property
    def pair(self) -> frozenset[str]:
        """The two arms, whichever way round."""
        return frozenset((self.first, self.second))

    @property
    def is_explored(self) -> bool:
        """Whether it is listed as exploratory: one that scatters. ``gain``, paired, is the same as accuracy."""
        shown = self.number == ACCURACY or self.number.startswith(("sft/", "rl/"))
        return shown and not self.is_primary and self.paired.has_width


@dataclass(frozen=True)
class Answer(Question):
    """A question with its differences, and its pairs that have no runs to compare yet."""

    missing: list[tuple[str, str]] = field(default_factory=list)
    differences: list[ArmDifference] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """``table.json``, but for what `finish` knows of the runs."""

    arms: dict[str, dict[str, Mean]]
    """Of every arm its numbers, by their names."""
    traded: dict[str, dict[str, Any]]
    """Of every arm that was asked around its SFT phases, what `traded` says."""
    questions: list[Answer]
    num_tests: int
    """The tests of the plan, whatever runs are finished."""
    level: float = LEVEL
    format: int = FORMAT

    @property
    def differences(self) -> list[ArmDifference]:
        return [one for answer in self.questions for one in answer.differences]

    @property
    def primaries(self) -> list[ArmDifference]:
        """Every planned test that has runs, once, whichever question names it and whichever way round."""
        found: dict[Any, ArmDifference] = {}
        for one in self.differences:
            if one.is_primary:
                found.setdefault((one.pair, one.number), one)
        return list(found.values())


def make_table(arms: Mapping[str, Values], questions: Sequence[Question]) -> Table:
    """The table of the arms' values by seed. A difference that another question names as primary is told there."""
    tests = planned_tests(questions)
    answers = []
    for one in questions:
        found = _compared(arms, one, len(tests))
        told = [each for each in found if each.is_primary or (each.pair, each.number) not in tests]
        missing = [pair for pair in one.pairs if not any(_seeds(arms, pair, number) for number in one.numbers)]
        answers.append(Answer(one.ask, one.pairs, one.numbers, one.late, missing, told))
    return Table(
        arms={arm: {number: _mean(values) for number, values in own.items()} for arm, own in arms.items()},
        traded={arm: row for arm, own in arms.items() if (row := traded(own))},
        questions=answers,
        num_tests=len(tests),
    )


def _mean(values: Mapping[int, float]) -> Mean:
    by_seed = {seed: values[seed] for seed in sorted(values)}
    return Mean(**asdict(t_interval(list(by_seed.values()))), by_seed=by_seed)


def _seeds(arms: Mapping[str, Values], pair: tuple[str, str], number: str) -> set[int]:
    """The seeds that have the number in both arms."""
    first, second = (arms.get(arm, {}).get(number, {}) for arm in pair)
    return first.keys() & second.keys()


def _compared(arms: Mapping[str, Values], question: Question, num_tests: int) -> list[ArmDifference]:
    """The differences of a question's pairs, number by number, the primary ones first."""
    known = dict.fromkeys(number for arm in arms.values() for number in arm)
    found = []
    for number in sorted(known, key=lambda one: question.numbers.index(one) if one in question.numbers else len(known)):
        is_primary = number in question.numbers and not question.late
        for pair in (pair for pair in question.pairs if _seeds(arms, pair, number)):
            first, second = (arms[arm] for arm in pair)
            levels = LEVEL, corrected_level(num_tests)
            alone, together = (paired_by_seed(first[number], second[number], level) for level in levels)
            ratio = _compute_ratio(first, second, _seeds(arms, pair, number))
            one = ArmDifference(*pair, number, alone, together, num_tests, is_primary, ratio)
            found.append(replace(one, claim=_claim(one)))
    return found


def _compute_ratio(first: Values, second: Values, seeds: Iterable[int]) -> float | None:
    flops = [(first.get("flops", {}).get(seed), second.get("flops", {}).get(seed)) for seed in seeds]
    known = [(one, two) for one, two in flops if one is not None and two]
    return fmean(one for one, _ in known) / fmean(two for _, two in known) if len(known) == len(flops) else None


def is_share(number: str) -> bool:
    """Whether a number is an accuracy, of which a difference is told in points."""
    return "accuracy" in number or number == "gain"


def _claim(one: ArmDifference) -> str:
    what = "" if one.number == ACCURACY else f" in {one.number}"
    if not one.is_primary and one.paired.low is not None:
        return f"{statistics.told(one, what, 'seeds', is_share(one.number))}: exploratory, no claim."
    at, ratio = "", one.compute_ratio
    if ratio is None:
        at = " at a compute that the records do not tell"
    elif not ratio > 0 or max(ratio, 1 / ratio) > _EQUAL_COMPUTE:
        at = f" at {ratio:.3g} times the compute"
    return statistics.claim(one, what, "seeds", is_share(one.number), at)


def traded(numbers: Values) -> dict[str, Any]:
    """What an arm's SFT phases lost on solved prompts and gained on hard ones, and their ratio with its interval.

    Over the seeds that have both; nothing if none has. ``asked``: prompts of each kind, summed over a run's phases.
    ``ratio`` is None if nothing was gained, ``low`` and ``high`` if the interval is unbounded or a single seed has none.
    """
    solved, hard = (numbers.get(f"sft/{kind}_accuracy", {}) for kind in ("solved", "hard"))
    seeds = sorted(solved.keys() & hard.keys())
    if not seeds:
        return {}
    losses, gains = [-solved[seed] for seed in seeds], [hard[seed] for seed in seeds]
    lost, gained = fmean(losses), fmean(gains)
    ends = fieller(losses, gains) if len(seeds) > 1 and gained > 0 else None
    return {
        "asked": [fmean(numbers[f"{kind}_asked"].values()) for kind in ("solved", "hard")],
        "lost": lost,
        "gained": gained,
        "ratio": lost / gained if gained > 0 else None,
        "low": ends and ends[0],
        "high": ends and ends[1],
        "num_seeds": len(seeds),
    }
