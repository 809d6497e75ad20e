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

StopReason = Literal["completed", "length"]
AVG = "avg"
"""The share of correct responses: avg@n with n samples a question."""


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

    def value(self, metric: str) -> float:
        """The question's ``avg``, ``pass@<k>`` or ``maj@<k>``."""
        kind, _, k = metric.partition("@")
        if kind == AVG:
            return self.num_correct / self.num_samples
        return pass_at_k(self.num_samples, self.num_correct, int(k)) if kind == "pass" else self.majority[int(k)]


@dataclass(frozen=True)
class BenchmarkResult:
    """What one model did with one benchmark."""

    name: str
    questions: tuple[QuestionResult, ...]

    @property
    def num_samples(self) -> int:
        """Responses a question, the same for all."""
        return self.questions[0].num_samples

    @property
    def metrics(self) -> list[str]:
        """The names of its metrics, ``avg`` first."""
        ks = sorted(self.questions[0].majority)
        return [AVG, *(f"pass@{k}" for k in ks), *(f"maj@{k}" for k in ks if k > 1)]

    def values(self, metric: str) -> list[float]:
        """The metric of every question, in order."""
        return [question.value(metric) for question in self.questions]

    @property
    def mean_tokens(self) -> float:
        """Mean length of a response in tokens."""
        return fmean(question.mean_tokens for question in self.questions)

    @property
    def truncated_share(self) -> float:
        """The share of responses that were cut at the most tokens allowed."""
        return sum(question.num_truncated for question in self.questions) / (len(self.questions) * self.num_samples)


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


def average(benchmarks: Sequence[BenchmarkResult]) -> dict[str, Interval]:
    """The mean over benchmarks of each metric that all of them have; every benchmark weighs the same."""
    shared = [metric for metric in benchmarks[0].metrics if all(metric in other.metrics for other in benchmarks)]
    return {metric: bootstrap([result.values(metric) for result in benchmarks]) for metric in shared}


def model_table(
    name: str, path: str, digest: str, benchmarks: Sequence[BenchmarkResult], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """A model's results as plain JSON values: every metric with its 95 % bootstrap interval over questions."""
    return {
        "name": name,
        "path": path,
        "digest": digest,
        "settings": dict(settings),
        "average": {metric: _ends(value) for metric, value in average(benchmarks).items()},
        "benchmarks": {
            result.name: {
                "num_questions": len(result.questions),
                "num_samples": result.num_samples,
                "metrics": {metric: _ends(bootstrap([result.values(metric)])) for metric in result.metrics},
                "mean_tokens": result.mean_tokens,
                "truncated_share": result.truncated_share,
                "questions": [asdict(question) for question in result.questions],
            }
            for result in benchmarks
        },
    }


def _ends(value: Interval) -> dict[str, float | None]:
    return {"mean": value.mean, "low": value.low, "high": value.high}


def benchmarks_of(table: Mapping[str, Any]) -> dict[str, BenchmarkResult]:
    """The benchmarks of a model's results as read from JSON."""
    kind = tuple[QuestionResult, ...]
    return {
        name: BenchmarkResult(name, msgspec.convert(values["questions"], kind, str_keys=True))
        for name, values in table["benchmarks"].items()
    }
