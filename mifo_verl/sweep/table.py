"""The table of a sweep: means over the seeds of every arm, and paired differences to the baseline."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mifo_verl.sweep.definition import Question
from mifo_verl.sweep.numbers import ACCURACY
from mifo_verl.sweep.statistics import LEVEL, Interval, interval, paired

FORMAT = 1

Values = dict[str, dict[int, float]]
"""Of one arm: number -> seed -> its value."""


@dataclass(frozen=True)
class Difference:
    """``first`` minus ``second`` in one number, over the seeds that both have."""

    first: str
    second: str
    number: str
    paired: Interval
    corrected: Interval
    """At 1 - 5 % / comparisons of this number (Bonferroni): what holds when all of them are read together."""
    num_comparisons: int


def compared(arms: Mapping[str, Values], pairs: Sequence[tuple[str, str]]) -> list[Difference]:
    """The differences of these pairs, number by number."""
    found = []
    for number in numbers_in(arms.values()):
        held = [(a, b) for a, b in pairs if number in arms.get(a, {}) and number in arms.get(b, {})]
        both = [(a, b) for a, b in held if arms[a][number].keys() & arms[b][number].keys()]
        for first, second in both:
            values = arms[first][number], arms[second][number]
            plain, strict = (paired(*values, level) for level in (LEVEL, 1 - (1 - LEVEL) / len(both)))
            assert plain is not None and strict is not None
            found.append(Difference(first, second, number, plain, strict, len(both)))
    return found


def numbers_in(arms: Iterable[Values]) -> list[str]:
    """Every number that an arm has, in the order in which they come."""
    return list(dict.fromkeys(number for arm in arms for number in arm))


def make_table(arms: Mapping[str, Values], baseline: str | bool, questions: Sequence[Question]) -> dict[str, Any]:
    """``table.json``: arms, their numbers by seed and with intervals, differences, answers to the questions."""
    pairs = [(arm, baseline) for arm in arms if arm != baseline] if isinstance(baseline, str) else []
    return {
        "format": FORMAT,
        "level": LEVEL,
        "baseline": baseline,
        "arms": [
            {
                "arm": arm,
                "numbers": {
                    number: {"by_seed": {str(seed): values[seed] for seed in sorted(values)}}
                    | asdict(interval([values[seed] for seed in sorted(values)]))
                    for number, values in numbers.items()
                },
            }
            for arm, numbers in arms.items()
        ],
        "differences": [asdict(one) | {"claim": claim(one)} for one in compared(arms, pairs)],
        "questions": [
            {
                "ask": question.ask,
                "differences": [asdict(one) | {"claim": claim(one)} for one in compared(arms, question.pairs)],
            }
            for question in questions
        ],
    }


def is_share(number: str) -> bool:
    """Whether a number is an accuracy, of which a difference is told in points."""
    return "accuracy" in number or number == "gain"


def claim(one: Difference) -> str:
    """What can be claimed of a difference, and what cannot."""
    scale, unit = (100.0, " points") if is_share(one.number) else (1.0, "")
    value = one.paired
    what = "" if one.number == ACCURACY else f" in {one.number}"
    if value.low is None or value.high is None:
        return f"{one.first} - {one.second}{what}: {scale * value.mean:+.3g}{unit} for one seed: no claim."
    ends = f"[{scale * value.low:+.3g}, {scale * value.high:+.3g}]"
    told = f"{one.first} - {one.second}{what}: {scale * value.mean:+.3g}{unit} {ends}, {value.num_seeds} seeds"
    if value.low == value.high:
        return f"{told}: the same difference for every seed, which no interval can be made of: no claim."
    if not value.excludes_zero():
        half = scale * (value.high - value.low) / 2
        return f"{told}: no claim; a difference below {half:.2g}{unit} would not have been seen."
    word = "higher" if value.mean > 0 else "lower"
    if one.num_comparisons > 1 and not one.corrected.excludes_zero():
        return f"{told}: {word}, read alone; among these {one.num_comparisons} comparisons no claim (Bonferroni)."
    return f"{told}: {word}."
