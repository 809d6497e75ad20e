"""Questions with their answers, from a file or from the hub, in the file's order."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mifo_verl.data.demonstrations import prompt_id_of
from mifo_verl.data.parquet import check_columns
from mifo_verl.tools.evaluate.benchmarks import Benchmark, check_row_count, known_benchmark
from mifo_verl.tools.evaluate.records import question_and_answer
from mifo_verl.tools.prepare.rows import Dropped
from mifo_verl.tools.prepare.sources import read_records

SUFFIXES = (".jsonl.gz", ".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True)
class Question:
    """One row of a benchmark. ``benchmark`` is its name in the tables: of a parquet row, its ``data_source``."""

    benchmark: str
    id: str
    text: str
    answer: str
    index: str
    """The row's number in its data set, as training names it: part of the name of its random stream."""
    messages: tuple[Mapping[str, str], ...] = ()
    """The row's own chat; empty where the template makes it."""
    extra_info: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class QuestionSet:
    """The questions of one entry of ``benchmarks``, and how often each is asked."""

    name: str
    questions: tuple[Question, ...]
    num_samples: int


def load_set(entry: str, data: Path | None, num_samples: int, limit: int | None) -> QuestionSet:
    """The questions of ``<name or file>[@<samples>]``, the first ``limit`` of them.

    A known name is looked for in the folder ``data``, by its name or an alias; without ``data`` it comes from the hub.
    Raises ValueError on an unknown name, a missing or malformed file, or a known benchmark of the wrong size.
    """
    where, at, number = entry.rpartition("@")
    if at and number.isdecimal() and int(number):
        entry, num_samples = where, int(number)
    questions = list(_read(entry, data))
    name = questions[0].benchmark if _is_known(entry) else Path(entry).name.split(".")[0]
    return QuestionSet(name, tuple(_distinct(questions)[:limit]), num_samples)


def _is_known(entry: str) -> bool:
    return not entry.endswith(SUFFIXES)


def _read(entry: str, data: Path | None) -> Iterable[Question]:
    if not _is_known(entry):
        return _from_file(Path(entry).expanduser(), None)
    benchmark = known_benchmark(entry)
    if data is None:
        return _from_hub(benchmark)
    names = (benchmark.name, *benchmark.aliases)
    found = [data / f"{name}{suffix}" for name in names for suffix in SUFFIXES if (data / f"{name}{suffix}").is_file()]
    if not found:
        raise ValueError(
            f"data={data} must hold a file for {benchmark.name}, such as {benchmark.name}.jsonl.gz; leave data= away "
            "to take it from the hub"
        )
    return _from_file(found[0], benchmark)


def _from_file(path: Path, benchmark: Benchmark | None) -> list[Question]:
    if path.suffix == ".parquet" and path.is_file() and "prompt" in _columns(path):
        questions = list(_from_parquet(path, benchmark))
    else:
        name = benchmark.name if benchmark else path.name.split(".")[0]
        questions = _from_records(str(path), name)
    if benchmark is not None:
        check_row_count(benchmark, len(questions), str(path))
    if not questions:
        raise ValueError(f"benchmarks={path} must hold at least one question; it is empty")
    return questions


def _from_records(source: str, name: str, hub: str = "") -> list[Question]:
    questions = []
    for row, record in enumerate(read_records("benchmarks", source, hub)):
        if isinstance(record, Dropped):
            raise ValueError(f"benchmarks={source}: record {row} must be an object with question and answer ({record})")
        questions.append(_question(record, name, row, f"{hub or source}, record {row}"))
    return questions


def _from_parquet(path: Path, benchmark: Benchmark | None) -> Iterator[Question]:
    check_columns(path, "benchmarks")
    for place, row in enumerate(pq.read_table(path).to_pylist()):
        extra = row.get("extra_info") or {}
        users = [message["content"] for message in row["prompt"] if message["role"] == "user"]
        yield Question(
            benchmark=benchmark.name if benchmark else row["data_source"],
            id=prompt_id_of(row),
            text=users[-1] if users else row["prompt"][-1]["content"],
            answer=str(row["reward_model"]["ground_truth"]),
            index=str(extra.get("index", place)),
            messages=tuple(row["prompt"]),
            extra_info=extra,
        )


def _columns(path: Path) -> list[str]:
    """The columns of a parquet file. Raises ValueError where it is none."""
    try:
        return list(pq.read_schema(path).names)
    except pa.ArrowException as error:
        raise ValueError(f"benchmarks={path} must be a parquet file; {error}") from None


def _from_hub(benchmark: Benchmark) -> list[Question]:
    hub = ":".join(part or "" for part in benchmark.hub)
    questions = _from_records("hub", benchmark.name, hub)
    check_row_count(benchmark, len(questions), f"{hub} on the hub")
    return questions


def _question(record: Mapping[str, Any], name: str, place: int, where: str) -> Question:
    text, answer = question_and_answer(record, where)
    return Question(name, str(record.get("id") or f"{name}-{place}"), text, answer, str(place))


def _distinct(questions: Iterable[Question]) -> list[Question]:
    """The questions with ids that differ within a benchmark: a second ``x`` becomes ``x#2``."""
    seen: Counter[tuple[str, str]] = Counter()
    distinct = []
    for question in questions:
        key = (question.benchmark, question.id)
        seen[key] += 1
        distinct.append(question if seen[key] == 1 else replace(question, id=f"{question.id}#{seen[key]}"))
    return distinct
