"""The table of a sweep: means over the seeds of every arm, and the answers to what was asked."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mifo_verl.tools.sweep.claims import claim
from mifo_verl.tools.sweep.definition import Question
from mifo_verl.tools.sweep.differences import Values, compared, have_both, num_tests
from mifo_verl.tools.sweep.statistics import LEVEL, fieller, interval

FORMAT = 3


def make_table(
    arms: Mapping[str, Values],
    baseline: str | bool,
    primary: Sequence[str],
    questions: Sequence[Question],
    planned: Sequence[str] = (),
) -> dict[str, Any]:
    """``table.json``: arms, their numbers by seed and with intervals, differences, answers to the questions.

    ``planned``: the arms of the plan, finished or not; those that have runs where it is empty.
    """
    pairs = [(arm, baseline) for arm in planned or arms if arm != baseline] if isinstance(baseline, str) else []
    page = [Question("", pairs, list(primary)), *questions]
    tests = num_tests(page)
    named = {(frozenset(pair), n) for one in page if not one.late for pair in one.pairs for n in one.numbers}

    def told(question: Question) -> list[dict[str, Any]]:
        """Without what another comparison of the page has named."""
        return [
            asdict(one) | {"claim": claim(one)}
            for one in compared(arms, question, tests)
            if one.is_primary or (frozenset((one.first, one.second)), one.number) not in named
        ]

    return {
        "format": FORMAT,
        "level": LEVEL,
        "baseline": baseline,
        "num_tests": tests,
        "arms": [{"arm": arm, "numbers": _means(numbers)} for arm, numbers in arms.items()],
        "traded": [{"arm": arm} | row for arm, numbers in arms.items() if (row := traded(numbers))],
        "differences": told(page[0]),
        "questions": [
            {
                "ask": one.ask,
                "numbers": one.numbers,
                "late": one.late,
                "missing": [pair for pair in one.pairs if not any(have_both(arms, pair, n) for n in one.numbers)],
                "differences": told(one),
            }
            for one in questions
        ],
    }


def traded(numbers: Values) -> dict[str, Any]:
    """What an arm's SFT phases lost on solved prompts and gained on hard ones, and their ratio with its interval.

    Over the seeds that have both; nothing where none has. ``asked``: prompts of each kind, summed over a run's phases.
    ``ratio`` is null where nothing was gained, ``low`` and ``high`` where the interval is unbounded or a single seed
    has none.
    """
    solved, hard = (numbers.get(f"sft/{kind}_accuracy", {}) for kind in ("solved", "hard"))
    seeds = sorted(solved.keys() & hard.keys())
    if not seeds:
        return {}
    lost, gained = [-solved[seed] for seed in seeds], [hard[seed] for seed in seeds]
    means = interval(lost).mean, interval(gained).mean
    ends = fieller(lost, gained) if len(seeds) > 1 and means[1] > 0 else None
    return {
        "asked": [interval(list(numbers[f"{kind}_asked"].values())).mean for kind in ("solved", "hard")],
        "lost": means[0],
        "gained": means[1],
        "ratio": means[0] / means[1] if means[1] > 0 else None,
        "low": ends and ends[0],
        "high": ends and ends[1],
        "num_seeds": len(seeds),
    }


def _means(numbers: Values) -> dict[str, Any]:
    return {
        number: {"by_seed": {str(seed): values[seed] for seed in sorted(values)}}
        | asdict(interval([values[seed] for seed in sorted(values)]))
        for number, values in numbers.items()
    }
