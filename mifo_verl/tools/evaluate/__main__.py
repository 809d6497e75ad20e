"""Evaluate models: ``python -m mifo_verl.tools.evaluate model=<folder> benchmarks=[<name or file>,...]``; without
arguments, every setting. ``python -m mifo_verl.tools.evaluate compare <folder> <folder>`` compares."""

import gc
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from mifo_verl.tools.command_line import run
from mifo_verl.tools.evaluate.compare import Difference, differences, read_models, sentence, warnings
from mifo_verl.tools.evaluate.models import distinct_names, find_model
from mifo_verl.tools.evaluate.questions import QuestionSet, load_set
from mifo_verl.tools.evaluate.report import wide_console, write_results
from mifo_verl.tools.evaluate.results import AVG, model_table
from mifo_verl.tools.evaluate.settings import USAGE, Settings, parse_settings


def evaluate(settings: Settings) -> list[dict[str, Any]]:
    """Evaluate every model on every benchmark, and write the results."""
    from mifo_verl.tools.evaluate.run import evaluate_model  # imports torch and transformers

    sets = [load_set(entry, settings.data, settings.samples, settings.limit) for entry in settings.benchmarks]
    _check_distinct(sets)
    _, dtype = settings.engine_and_dtype()
    models = distinct_names([find_model(path, dtype) for path in settings.model])
    tables = []
    for model, path in zip(models, settings.model, strict=True):
        results = evaluate_model(model, sets, settings)
        tables.append(model_table(model.name, path, model.digest, results, settings.kept()))
        gc.collect()  # what an engine holds ends with it: the next model needs the memory
    write_results(tables, settings.out)
    return tables


def _check_distinct(sets: Sequence[QuestionSet]) -> None:
    names = Counter(name for entry in sets for name in {question.benchmark for question in entry.questions})
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise ValueError(f"benchmarks must give {', '.join(twice)} once; two of the entries hold it")


def compare(paths: Sequence[str]) -> list[Difference]:
    """Compare all models of the result files, and say what can be claimed."""
    console = wide_console()
    metric = AVG
    if paths and paths[-1].startswith("metric="):
        metric, paths = paths[-1].removeprefix("metric="), paths[:-1]
    models = read_models(paths)
    for warning in warnings(models):
        console.print(f"[yellow]warning:[/yellow] {warning}", soft_wrap=True, highlight=False)
    made = differences(models, metric)
    if not made:
        raise ValueError(
            f"compare {' '.join(paths)} must hold a common benchmark with metric={metric}; evaluate both on one"
        )
    _print_differences(made, console)
    for difference in made:
        console.print(sentence(difference, len(made)), soft_wrap=True, highlight=False, markup=False)
    if len(made) > 1:
        console.print(
            f"{len(made)} comparisons at 95 %: of as many without any difference, about {0.05 * len(made):.1f} would "
            "look like one. Claims that hold for all of them together are those without a remark.",
            soft_wrap=True,
            highlight=False,
        )
    return made


def _print_differences(made: Sequence[Difference], console: Console) -> None:
    table = Table("first", "second", "benchmark", "metric", "questions", "first - second, points", "95 %", "corrected")
    for difference in made:
        values: Mapping[str, Any] = asdict(difference)
        spans = [f"\\[{values[key]['low']:.1f}, {values[key]['high']:.1f}]" for key in ("points", "corrected")]
        table.add_row(
            difference.first,
            difference.second,
            difference.benchmark,
            difference.metric,
            str(difference.num_questions),
            f"{difference.points.mean:+.1f}",
            *spans,
        )
    console.print(table)


def main(arguments: list[str]) -> int:
    """The exit code: 0, or 2 after one line on stderr that says what is wrong with the input."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] == "compare":
        return run(lambda: compare(arguments[1:]))
    return run(lambda: evaluate(parse_settings(arguments)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
