"""Models on the same questions: paired differences with their intervals, and what they do and do not show."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from mifo_verl.tools.evaluate.report import AVERAGE, FORMAT, RESULTS
from mifo_verl.tools.evaluate.results import AVG, Results, results_of
from mifo_verl.tools.statistics import LEVEL, Difference, claim, corrected_level, num_draws, paired_by_question
from mifo_verl.tools.tables import print_frame, say

FEW_QUESTIONS = 30
"""With fewer questions a percentile bootstrap interval is noticeably too narrow."""
_FREE = ("seed", "limit")
"""The settings of an evaluation that two models may differ in and still be compared."""
_Pairs = list[tuple[float, float]]


@dataclass(frozen=True)
class Compared(Difference):
    """``first`` minus ``second`` on one benchmark (or on the average of all); ``number`` is the metric."""

    benchmark: str = AVERAGE


def compare(arguments: Sequence[str]) -> list[Compared]:
    """``mifo compare``: all models of the result files in all metrics, and what can be claimed of them."""
    paths = [one for one in arguments if not one.startswith("metric=")]
    asked = [one.removeprefix("metric=").strip("[]").split(",") for one in arguments if one.startswith("metric=")]
    metrics = list(dict.fromkeys(metric.strip() for metrics in asked for metric in metrics)) or [AVG]
    models = read_models(paths)
    for warning in warnings(models):
        say(f"warning: {warning}")
    made = differences(models, metrics)
    if absent := [metric for metric in metrics if metric not in {one.number for one in made}]:
        raise ValueError(
            f"compare {' '.join(paths)} must hold a common benchmark with metric={','.join(absent)}; evaluate both on one"
        )
    print_frame(_frame(made), "points: first - second, in percentage points", keys=2)
    for one in made:
        say(sentence(one))
    say(_about(len(made)))
    return made


def _frame(made: Sequence[Compared]) -> pd.DataFrame:
    rows = []
    for one in made:
        row = {"first - second": f"{one.first} - {one.second}", "benchmark": one.benchmark}
        row |= {"metric": one.number} if len({each.number for each in made}) > 1 else {}
        row |= {"questions": str(one.paired.num_values), "points": f"{100 * one.paired.mean:+.1f}"}
        spans = {"95 %": one.paired.scaled(100), f"all {one.num_tests} together": one.corrected.scaled(100)}
        rows.append(row | {name: f"[{span.low:.1f}, {span.high:.1f}]" for name, span in spans.items()})
    return pd.DataFrame(rows)


def _about(num_tests: int) -> str:
    """How many tests there are, and on how many draws their intervals rest."""
    level = corrected_level(num_tests)
    draws, beyond = num_draws(level), num_draws(level) * (1 - level) / 2
    told = f"{draws:,} bootstrap draws, {beyond:.0f} beyond each end of an interval."
    if num_tests == 1:
        return f"One test at 95 %, {told}"
    return (
        f"{num_tests} tests (pairs of models by benchmarks by metrics) at 95 %: of as many without any difference, about "
        f"{(1 - LEVEL) * num_tests:.1f} would look like one. A claim without a remark holds for all of them together "
        f"(Bonferroni, 1 - 5 %/{num_tests}): {told} What is compared in another call is not counted here."
    )


def read_models(paths: Sequence[str]) -> list[dict[str, Any]]:
    """The models of folders or result files, in order, with names that differ. Raises ValueError on anything else."""
    models: list[dict[str, Any]] = []
    for given in paths:
        path = Path(given).expanduser()
        try:
            found = json.loads((path / RESULTS if path.is_dir() else path).read_text())
            if found["format"] != FORMAT:
                raise ValueError(f"format {found['format']}, and this version reads format {FORMAT}")
            models += [model | {"from": given} for model in found["models"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"compare {given} must be a {RESULTS} of mifo evaluate, or its folder; {error}") from None
    if len(models) < 2:
        raise ValueError(f"compare {' '.join(paths)} must hold at least two models; give another folder")
    names = [model["name"] for model in models]
    return [
        model if names.count(model["name"]) == 1 else model | {"name": f"{model['name']} ({model['from']})"}
        for model in models
    ]


def differences(models: Sequence[Mapping[str, Any]], metrics: Sequence[str] = (AVG,)) -> list[Compared]:
    """Every pair of models in every metric on every benchmark that both have, and on the average of those (of several).

    Only questions that both have answered are compared, by their ids. Benchmarks without a common question are left
    out. All that is compared counts as one family of tests.
    """
    found: list[tuple[str, str, str, str, list[_Pairs]]] = []
    for first, second in combinations(models, 2):
        for metric in metrics:
            pairs = _paired_values(results_of(first), results_of(second), metric)
            named = {name: [values] for name, values in pairs.items()}
            named |= {AVERAGE: list(pairs.values())} if len(pairs) > 1 else {}
            found += [(first["name"], second["name"], metric, name, values) for name, values in named.items()]
    made = []
    for first_name, second_name, metric, benchmark, pairs_of in found:
        alone, together = (paired_by_question(pairs_of, level) for level in (LEVEL, corrected_level(len(found))))
        made.append(Compared(first_name, second_name, metric, alone, together, len(found), benchmark))
    return made


def _paired_values(ours: Results, theirs: Results, metric: str) -> dict[str, _Pairs]:
    """By benchmark, the two models' values of every question that both have."""
    found = {}
    for name in (name for name in ours if name in theirs):
        if all(metric in results[name][0].metrics for results in (ours, theirs)):
            other = {question.id: question.value(metric) for question in theirs[name]}
            found[name] = [(one.value(metric), other[one.id]) for one in ours[name] if one.id in other]
    return {name: pairs for name, pairs in found.items() if pairs}


def sentence(one: Compared) -> str:
    """What can be claimed, and what cannot."""
    where = f" on {one.benchmark}" if one.benchmark != AVERAGE else " on the average of the benchmarks"
    said = claim(one, where + ("" if one.number == AVG else f" in {one.number}"), "questions", in_points=True)
    few = f" Only {one.paired.num_values} questions: read the interval as wider than it is."
    return said + (few if one.paired.num_values < FEW_QUESTIONS else "")


def warnings(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """What makes the models not comparable, or less so: settings, samples and questions that differ."""
    found = []
    for first, second in combinations(models, 2):
        pair, (ours, theirs) = f"{first['name']} and {second['name']}", (first["settings"], second["settings"])
        for name in (name for name in ours | theirs if name not in _FREE and ours.get(name) != theirs.get(name)):
            found.append(f"{pair} were evaluated with {name}={ours.get(name)} and {name}={theirs.get(name)}.")
        if first["digest"] == second["digest"]:
            found.append(f"{pair} are the same model: what differs is chance or settings.")
        results = results_of(first), results_of(second)
        for name in dict.fromkeys([*results[0], *results[1]]):
            if not all(name in one for one in results):
                found.append(f"{pair}: only one of them was evaluated on {name}; it is left out of the comparison.")
                continue
            a, b = ({question.id for question in one[name]} for one in results)
            if a != b:
                found.append(
                    f"{pair} answered different questions of {name}: {len(a)} and {len(b)}, {len(a & b)} in common; only "
                    "those are compared."
                )
            samples = [one[name][0].num_samples for one in results]
            if samples[0] != samples[1]:
                found.append(f"{pair} have {samples[0]} and {samples[1]} samples a question of {name}.")
    return found
