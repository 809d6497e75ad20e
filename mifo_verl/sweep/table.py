"""The table of a sweep: means over the seeds of every arm, and paired differences to the baseline."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mifo_verl.sweep.definition import Question
from mifo_verl.sweep.numbers import ACCURACY
from mifo_verl.sweep.statistics import LEVEL, Interval, interval, paired

FORMAT = 2

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
    """At 1 - 5 % / ``num_comparisons`` (Bonferroni): what holds when all pairs of a page are read together."""
    num_comparisons: int


def num_comparisons(arms: Mapping[str, Values], pairs: Iterable[tuple[str, str]]) -> int:
    """The distinct unordered pairs among these that can be compared in some number."""
    distinct = {(min(pair), max(pair)) for pair in pairs}
    return sum(any(_have_both(arms, pair, number) for number in numbers_in(arms.values())) for pair in distinct)


def compared(
    arms: Mapping[str, Values], pairs: Sequence[tuple[str, str]], primary: Sequence[str], comparisons: int
) -> list[Difference]:
    """The differences of these pairs, number by number, the primary ones first; ``comparisons``: pairs of the page."""
    found = []
    level = 1 - (1 - LEVEL) / max(comparisons, 1)
    known = numbers_in(arms.values())
    for number in [*(one for one in primary if one in known), *(one for one in known if one not in primary)]:
        for first, second in pairs:
            if _have_both(arms, (first, second), number):
                values = arms[first][number], arms[second][number]
                plain, strict = paired(*values), paired(*values, level)
                assert plain is not None and strict is not None
                found.append(Difference(first, second, number, number in primary, plain, strict, comparisons))
    return found


def _have_both(arms: Mapping[str, Values], pair: tuple[str, str], number: str) -> bool:
    one, two = (arms.get(arm, {}).get(number, {}) for arm in pair)
    return bool(one.keys() & two.keys())


def numbers_in(arms: Iterable[Values]) -> list[str]:
    """Every number that an arm has, in the order in which they come."""
    return list(dict.fromkeys(number for arm in arms for number in arm))


def make_table(
    arms: Mapping[str, Values], baseline: str | bool, primary: Sequence[str], questions: Sequence[Question]
) -> dict[str, Any]:
    """``table.json``: arms, their numbers by seed and with intervals, differences, answers to the questions."""
    pairs = [(arm, baseline) for arm in arms if arm != baseline] if isinstance(baseline, str) else []
    page = [Question("", pairs, list(primary)), *questions]
    comparisons = num_comparisons(arms, [pair for one in page for pair in one.pairs])
    named = {(frozenset(pair), number) for one in page for pair in one.pairs for number in one.numbers}

    def told(question: Question) -> list[dict[str, Any]]:
        """Without what another comparison of the page has named."""
        return [
            asdict(one) | {"claim": claim(one)}
            for one in compared(arms, question.pairs, question.numbers, comparisons)
            if one.is_primary or (frozenset((one.first, one.second)), one.number) not in named
        ]

    return {
        "format": FORMAT,
        "level": LEVEL,
        "baseline": baseline,
        "num_comparisons": comparisons,
        "arms": [{"arm": arm, "numbers": _means(numbers)} for arm, numbers in arms.items()],
        "differences": told(page[0]),
        "questions": [
            {
                "ask": one.ask,
                "numbers": one.numbers,
                "missing": [pair for pair in one.pairs if not any(_have_both(arms, pair, n) for n in one.numbers)],
                "differences": told(one),
            }
            for one in questions
        ],
    }


def _means(numbers: Values) -> dict[str, Any]:
    return {
        number: {"by_seed": {str(seed): values[seed] for seed in sorted(values)}}
        | asdict(interval([values[seed] for seed in sorted(values)]))
        for number, values in numbers.items()
    }


def is_share(number: str) -> bool:
    """Whether a number is an accuracy, of which a difference is told in points."""
    return "accuracy" in number or number == "gain"


def claim(one: Difference) -> str:
    """What can be claimed of a difference, and what cannot; of an exploratory one nothing can."""
    scale, unit = (100.0, " points") if is_share(one.number) else (1.0, "")
    value = one.paired
    what = "" if one.number == ACCURACY else f" in {one.number}"
    if value.low is None or value.high is None:
        return f"{one.first} - {one.second}{what}: {scale * value.mean:+.3g}{unit} for one seed: no claim."
    ends = f"[{scale * value.low:+.3g}, {scale * value.high:+.3g}]"
    told = f"{one.first} - {one.second}{what}: {scale * value.mean:+.3g}{unit} {ends}, {value.num_seeds} seeds"
    if not one.is_primary:
        return f"{told}: exploratory, no claim."
    if value.low == value.high:
        return f"{told}: the same difference for every seed, which no interval can be made of: no claim."
    if not value.excludes_zero():
        most = scale * max(-value.low, value.high)
        return f"{told}: no claim; the interval allows up to {most:.2g}{unit} in size."
    word = "higher" if value.mean > 0 else "lower"
    if not one.corrected.excludes_zero():
        return f"{told}: {word}, read alone; among the {one.num_comparisons} pairs of this page no claim (Bonferroni)."
    return f"{told}: {word}."
