"""From verdicts to numbers: a question's counts, a benchmark's metrics with intervals, and their average.

A result is written so that every number of it can be computed again from the counts of its questions.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import comb
from statistics import fmean
from typing import Any, Literal

import msgspec

from mifo_verl.errors import require
from mifo_verl.rewards.boxed import normalise
from mifo_verl.rewards.extract import answer_part, last_boxed
from mifo_verl.rewards.verdict import Verdict
from mifo_verl.tools.statistics import Interval, bootstrap

AVG = "avg"
"""The share of correct responses: avg@n with n samples a question."""
StopReason = Literal["completed", "length"]


@dataclass(frozen=True)
class Generation:
    """One response as text. Its stop reason is ``length`` if it was cut at the most tokens allowed."""

    text: str
    num_tokens: int
    stop_reason: StopReason


@dataclass(frozen=True)
class QuestionResult:
    """What one model did with one question: counts, and maj@k for each k that was asked for."""

    id: str
    num_samples: int
    num_correct: int
    majority: dict[int, float]
    mean_tokens: float
    num_truncated: int
    log_likelihood: float | None = None
    """Of its demonstration, in nats; None if it has none that the model has room for."""
    demonstration_tokens: int = 0

    @property
    def metrics(self) -> list[str]:
        """The names of its metrics, ``avg`` first; the same for all questions of a benchmark."""
        ks = sorted(self.majority)
        return [AVG, *(f"pass@{k}" for k in ks), *(f"maj@{k}" for k in ks if k > 1)]

    def value(self, metric: str) -> float:
        """The question's ``avg``, ``pass@<k>`` or ``maj@<k>``."""
        kind, _, k = metric.partition("@")
        if kind == AVG:
            return self.num_correct / self.num_samples
        return pass_at_k(self.num_samples, self.num_correct, int(k)) if kind == "pass" else self.majority[int(k)]


Results = dict[str, list[QuestionResult]]
"""What one model did: by benchmark, every question."""


def question_result(
    question_id: str, generations: Sequence[Generation], verdicts: Sequence[Verdict], ks: Sequence[int]
) -> QuestionResult:
    """The counts of a question; of ``ks`` those that its number of responses allows."""
    votes = [_vote(made.text, verdict) for made, verdict in zip(generations, verdicts, strict=True)]
    return QuestionResult(
        id=question_id,
        num_samples=len(generations),
        num_correct=sum(verdict.correct for verdict in verdicts),
        majority={k: majority_at_k(votes, k) for k in ks if k <= len(votes)},
        mean_tokens=fmean(made.num_tokens for made in generations),
        num_truncated=sum(made.stop_reason == "length" for made in generations),
    )


def _vote(text: str, verdict: Verdict) -> str | None:
    """Whatever the reward calls correct is one answer; a wrong one is what the reward read as the answer, or else what
    the last box holds; no answer, no vote."""
    if verdict.correct:
        return CORRECT
    found = verdict.extracted or last_boxed(answer_part(text))
    return None if found is None else f"wrong: {normalise(found)}"


def cross_entropy(questions: Sequence[QuestionResult]) -> float | None:
    """The mean over all tokens of the questions' demonstrations of -log pi, in nats; None if they have none."""
    tokens = sum(one.demonstration_tokens for one in questions)
    return -sum(one.log_likelihood or 0.0 for one in questions) / tokens if tokens else None


def average(results: Results) -> dict[str, Interval]:
    """The mean over benchmarks of each metric that all of them have; every benchmark weighs the same."""
    first, *others = ([*questions[0].metrics] for questions in results.values())
    shared = [metric for metric in first if all(metric in other for other in others)]
    return {metric: _interval(metric, *results.values()) for metric in shared}


def _interval(metric: str, *benchmarks: Sequence[QuestionResult]) -> Interval:
    return bootstrap([[question.value(metric) for question in questions] for questions in benchmarks])


def model_table(name: str, path: str, digest: str, results: Results, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A model's results as plain JSON values: every metric with its 95 % bootstrap interval over questions."""
    return {
        "name": name,
        "path": path,
        "digest": digest,
        "settings": dict(settings),
        "average": {metric: _ends(value) for metric, value in average(results).items()},
        "benchmarks": {
            benchmark: {
                "num_questions": len(questions),
                "num_samples": questions[0].num_samples,
                "metrics": {metric: _ends(_interval(metric, questions)) for metric in questions[0].metrics},
                "cross_entropy": cross_entropy(questions),
                "mean_tokens": fmean(one.mean_tokens for one in questions),
                "truncated_share": sum(one.num_truncated for one in questions) / sum(q.num_samples for q in questions),
                "questions": [asdict(one) for one in questions],
            }
            for benchmark, questions in results.items()
        },
    }


def _ends(value: Interval) -> dict[str, float | None]:
    return {"mean": value.mean, "low": value.low, "high": value.high}


def results_of(table: Mapping[str, Any]) -> Results:
    questions = {name: benchmark["questions"] for name, benchmark in table["benchmarks"].items()}
    return msgspec.convert(questions, Results, str_keys=True)


CORRECT = "correct"
"""The vote of a response that the reward calls correct."""


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The share of subsets of k responses with a correct one: 1 - C(n-c, k) / C(n, k).

    Source: Chen et al. 2021 (arXiv 2107.03374), equation 1. Exact up to the last rounding to a float. Raises ValueError
    if not 1 <= k <= n or not 0 <= c <= n.
    """
    _require_sizes(num_samples, k)
    require(0 <= num_correct <= num_samples, "num_correct", num_correct, f"in [0, {num_samples}]", "count again")
    return float(1 - Fraction(comb(num_samples - num_correct, k), comb(num_samples, k)))


def majority_at_k(votes: Sequence[str | None], k: int) -> float:
    """The chance that the most frequent answer of k responses, drawn without replacement, is the correct one.

    ``votes`` holds one answer a response: ``CORRECT``, the wrong answer's text, or None, which is no vote. A tie is
    drawn by lot: t answers on top count 1/t each. A subset without any vote is wrong. Exact up to the last rounding.
    maj@k is the self-consistency of Wang et al. 2023 (arXiv 2203.11171). Raises ValueError if not 1 <= k <= n.
    """
    _require_sizes(len(votes), k)
    counts = Counter(votes)
    num_correct, num_silent = counts.pop(CORRECT, 0), counts.pop(None, 0)
    wrong = list(counts.values())
    won = sum(
        (_won_with(top, num_correct, num_silent, wrong, k) for top in range(1, min(num_correct, k) + 1)), Fraction(0)
    )
    return float(won / comb(len(votes), k))


def _won_with(top: int, num_correct: int, num_silent: int, wrong: Sequence[int], k: int) -> Fraction:
    """Subsets of k with ``top`` correct responses and no answer above them, each by its share of the lot."""
    rest = k - top
    # ways[tied][size]: subsets of the other responses of that size, in which ``tied`` wrong answers have ``top`` votes
    ways: list[list[int]] = [[comb(num_silent, size) for size in range(rest + 1)]]
    for count in wrong:
        grown = [[0] * (rest + 1) for _ in range(len(ways) + 1)]
        for tied, row in enumerate(ways):
            for size, number in enumerate(row):
                for votes in range(min(count, top, rest - size) + 1 if number else 0):
                    grown[tied + (votes == top)][size + votes] += number * comb(count, votes)
        ways = grown if any(grown[-1]) else grown[:-1]
    return comb(num_correct, top) * sum((Fraction(row[rest], tied + 1) for tied, row in enumerate(ways)), Fraction(0))


def _require_sizes(num_samples: int, k: int) -> None:
    require(
        1 <= k <= num_samples, "k", k, f"in [1, {num_samples}], the responses a question", "sample more, or lower k"
    )
