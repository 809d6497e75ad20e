"""From verdicts to numbers: a question's counts, a benchmark's metrics with intervals, and their average.

A result is written so that every number of it can be computed again from the counts of its questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal

import msgspec

from mifo_verl.rewards.boxed import normalise
from mifo_verl.rewards.extract import answer_part, last_boxed
from mifo_verl.rewards.verdict import Verdict
from mifo_verl.tools.evaluate.estimators import CORRECT, majority_at_k, pass_at_k
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
    """A model's results as read from JSON."""
    questions = {name: benchmark["questions"] for name, benchmark in table["benchmarks"].items()}
    return msgspec.convert(questions, Results, str_keys=True)
