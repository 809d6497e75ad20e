"""Paired differences between arms, and how many of them a sweep's plan tests."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from mifo_verl.tools.sweep.definition import Question
from mifo_verl.tools.sweep.statistics import LEVEL, Interval, paired

Values = dict[str, dict[int, float]]
"""Of one arm: number -> seed -> its value."""


@dataclass(frozen=True)
class Difference:
    """``first`` minus ``second`` in one number, over the seeds that both have."""

    first: str
    second: str
    number: str
    is_primary: bool
    """Whether the number was named before the runs as one that answers the question."""
    paired: Interval
    corrected: Interval
    """At 1 - 5 % / ``num_tests`` (Bonferroni): what holds when all tests of the plan are read together."""
    num_tests: int
    compute_ratio: float | None
    """Mean FLOPs of the first arm by those of the second, over these seeds; None where a run did not record them."""


def num_tests(questions: Iterable[Question]) -> int:
    """The distinct tests of a plan: unordered pairs of arms by primary numbers, of what was asked before the runs."""
    asked = (one for one in questions if not one.late)
    return len({(frozenset(pair), number) for one in asked for pair in one.pairs for number in one.numbers})


def compared(arms: Mapping[str, Values], question: Question, tests: int) -> list[Difference]:
    """The differences of a question's pairs, number by number, the primary ones first; ``tests``: those of the plan."""
    known = numbers_in(arms.values())
    found = []
    for number in sorted(known, key=lambda one: question.numbers.index(one) if one in question.numbers else len(known)):
        is_primary = number in question.numbers and not question.late
        for first, second in question.pairs:
            if have_both(arms, (first, second), number):
                found.append(_difference(arms, first, second, number, is_primary, tests))
    return found


def _difference(
    arms: Mapping[str, Values], first: str, second: str, number: str, is_primary: bool, tests: int
) -> Difference:
    values = arms[first][number], arms[second][number]
    plain, strict = paired(*values), paired(*values, 1 - (1 - LEVEL) / max(tests, 1))
    assert plain is not None and strict is not None
    ratio = _compute_ratio(arms[first], arms[second], values[0].keys() & values[1].keys())
    return Difference(first, second, number, is_primary, plain, strict, tests, ratio)


def _compute_ratio(first: Values, second: Values, seeds: Iterable[int]) -> float | None:
    flops = [(first.get("flops", {}).get(seed), second.get("flops", {}).get(seed)) for seed in seeds]
    known = [(one, two) for one, two in flops if one is not None and two]
    return fmean(one for one, _ in known) / fmean(two for _, two in known) if len(known) == len(flops) else None


def have_both(arms: Mapping[str, Values], pair: tuple[str, str], number: str) -> bool:
    """Whether some seed has the number in both arms."""
    one, two = (arms.get(arm, {}).get(number, {}) for arm in pair)
    return bool(one.keys() & two.keys())


def numbers_in(arms: Iterable[Values]) -> list[str]:
    """Every number that an arm has, in the order in which they come."""
    return list(dict.fromkeys(number for arm in arms for number in arm))
