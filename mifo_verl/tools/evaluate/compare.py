"""Two models on the same questions: the paired difference with its interval, and what it does and does not show."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from mifo_verl.tools.evaluate.bootstrap import LEVEL, Interval, paired
from mifo_verl.tools.evaluate.report import FORMAT, RESULTS
from mifo_verl.tools.evaluate.results import AVG, BenchmarkResult, benchmarks_of

FEW_QUESTIONS = 30
"""With fewer questions a percentile bootstrap interval is noticeably too narrow."""
_SAME = ("template", "system", "temperature", "top_p", "max_tokens", "reward", "require_think", "engine", "dtype")


@dataclass(frozen=True)
class Difference:
    """``first`` minus ``second`` on one benchmark (or on the average of all), for one metric."""

    first: str
    second: str
    benchmark: str
    metric: str
    num_questions: int
    points: Interval
    """In percentage points, at 95 %."""
    corrected: Interval
    """The same at 1 - 5 % / comparisons (Bonferroni): what still holds when all comparisons are read together."""


def read_models(paths: Sequence[str]) -> list[dict[str, Any]]:
    """The models of folders or result files, in order, with names that differ. Raises ValueError on anything else."""
    models: list[dict[str, Any]] = []
    for given in paths:
        path = Path(given).expanduser()
        file = path / RESULTS if path.is_dir() else path
        try:
            found = json.loads(file.read_text())
            if found["format"] != FORMAT:
                raise ValueError(f"format {found['format']}, and this version reads format {FORMAT}")
            models += [model | {"from": given} for model in found["models"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"compare {given} must be a {RESULTS} of mifo_verl.tools.evaluate, or its folder; {error}"
            ) from None
    if len(models) < 2:
        raise ValueError(f"compare {' '.join(paths)} must hold at least two models; give another folder")
    names = [model["name"] for model in models]
    return [
        model if names.count(model["name"]) == 1 else model | {"name": f"{model['name']} ({model['from']})"}
        for model in models
    ]


def differences(models: Sequence[Mapping[str, Any]], metric: str = AVG) -> list[Difference]:
    """Every pair of models on every benchmark that both have, and on the average of those (where more than one).

    Only questions that both have answered are compared. Benchmarks without a common question are left out.
    """
    compared = []
    for first, second in combinations(models, 2):
        pairs = _paired_values(first, second, metric)
        compared += [(first, second, name, [values]) for name, values in pairs.items()]
        if len(pairs) > 1:
            compared.append((first, second, "average", list(pairs.values())))
    made = []
    for first, second, name, pairs_of in compared:
        first_Q, second_Q = [values[0] for values in pairs_of], [values[1] for values in pairs_of]
        both = [paired(first_Q, second_Q, level) for level in (LEVEL, 1 - (1 - LEVEL) / len(compared))]
        number = sum(len(values) for values in first_Q)
        made.append(Difference(first["name"], second["name"], name, metric, number, *map(_in_points, both)))
    return made


def _paired_values(
    first: Mapping[str, Any], second: Mapping[str, Any], metric: str
) -> dict[str, tuple[list[float], list[float]]]:
    found = {}
    ours, theirs = benchmarks_of(first), benchmarks_of(second)
    for name in ours:
        if name in theirs and metric in ours[name].metrics() and metric in theirs[name].metrics():
            values = [_by_id(result, metric) for result in (ours[name], theirs[name])]
            common = [question for question in values[0] if question in values[1]]
            if common:
                found[name] = ([values[0][q] for q in common], [values[1][q] for q in common])
    return found


def _by_id(result: BenchmarkResult, metric: str) -> dict[str, float]:
    return {question.id: question.value(metric) for question in result.questions}


def _in_points(value: Interval) -> Interval:
    return Interval(100 * value.mean, 100 * value.low, 100 * value.high)


def sentence(difference: Difference, num_comparisons: int) -> str:
    """What can be claimed, and what cannot."""
    points = difference.points
    where = f"on {difference.benchmark}" if difference.benchmark != "average" else "on the average of the benchmarks"
    metric = "" if difference.metric == AVG else f" in {difference.metric}"
    shown = f"[{points.low:.1f}, {points.high:.1f}]"
    few = f"; only {difference.num_questions} questions: read the interval as wider than it is"
    tail = few if difference.num_questions < FEW_QUESTIONS else ""
    if points.low == points.mean == points.high == 0:
        return f"{difference.first} and {difference.second} are equal on all questions {where}{metric}: no claim{tail}."
    if not points.excludes_zero():
        return (
            f"{difference.first} against {difference.second} {where}{metric}: {points.mean:+.1f} points {shown}; "
            f"no claim: the interval holds 0{tail}."
        )
    winner, loser, sign = (difference.first, difference.second, 1)
    if points.mean < 0:
        winner, loser, sign = loser, winner, -1
        shown = f"[{-points.high:.1f}, {-points.low:.1f}]"
    text = f"{winner} beats {loser} {where}{metric} by {sign * points.mean:.1f} points {shown}"
    if num_comparisons > 1 and not difference.corrected.excludes_zero():
        text += f", read alone; among these {num_comparisons} comparisons it is no claim (Bonferroni)"
    return f"{text}{tail}."


def warnings(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """What makes the models not comparable, or less so: settings, samples and questions that differ."""
    found = []
    for first, second in combinations(models, 2):
        pair = f"{first['name']} and {second['name']}"
        for name in _SAME:
            ours, theirs = first["settings"].get(name), second["settings"].get(name)
            if ours != theirs:
                found.append(f"{pair} were evaluated with {name}={ours} and {name}={theirs}.")
        if first["digest"] == second["digest"]:
            found.append(f"{pair} are the same model: what differs is chance or settings.")
        a, b = benchmarks_of(first), benchmarks_of(second)
        for name in (*a, *(other for other in b if other not in a)):
            found += _benchmark_warnings(pair, name, a.get(name), b.get(name))
    return found


def _benchmark_warnings(
    pair: str, name: str, ours: BenchmarkResult | None, theirs: BenchmarkResult | None
) -> list[str]:
    if ours is None or theirs is None:
        return [f"{pair}: only one of them was evaluated on {name}; it is left out of the comparison."]
    found = []
    a, b = ({question.id for question in result.questions} for result in (ours, theirs))
    if a != b:
        found.append(
            f"{pair} answered different questions of {name}: {len(a)} and {len(b)}, {len(a & b)} in common; only those "
            "are compared."
        )
    if ours.num_samples != theirs.num_samples:
        found.append(f"{pair} have {ours.num_samples} and {theirs.num_samples} samples a question of {name}.")
    return found
