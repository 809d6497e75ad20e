"""Questions with their answers, from a file or from the hub, in the file's order."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mifo_verl.data.demonstrations import demonstration_of, prompt_id_of
from mifo_verl.data.parquet import check_columns
from mifo_verl.errors import nearest
from mifo_verl.tools.prepare.recipes.published import FINAL_LINE, bare
from mifo_verl.tools.prepare.sources import Dropped, read_records
from mifo_verl.types import Demonstration

_QUESTION = ("question", "problem", "Question")
_ANSWER = ("answer", "final_answer", "answerKey", "Correct Answer", "ground_truth")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SUFFIXES = (".jsonl.gz", ".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True)
class Benchmark:
    """A published set of questions. ``num_rows`` is its size as published: a file of another size is another set."""

    name: str
    num_rows: int
    hub: str
    """The hub's repository, configuration and split."""
    aliases: tuple[str, ...] = ()


BENCHMARKS = (
    Benchmark("aime24", 30, "HuggingFaceH4/aime_2024::train", ("aime2024",)),
    Benchmark("aime25", 30, "math-ai/aime25::test", ("aime2025",)),
    Benchmark("amc", 40, "math-ai/amc23::test", ("amc23",)),
    Benchmark("math500", 500, "HuggingFaceH4/MATH-500::test", ("math-500", "math_500")),
    Benchmark("olympiad", 674, "Hothan/OlympiadBench:OE_TO_maths_en_COMP:train", ("olympiadbench", "olympiad_bench")),
    Benchmark("minerva", 272, "math-ai/minervamath::test", ("minerva_math",)),
    Benchmark("gsm8k", 1319, "openai/gsm8k:main:test", ("gsm8k_test",)),
    Benchmark("mmlu_pro", 12032, "TIGER-Lab/MMLU-Pro::test", ("mmlu-pro",)),
    Benchmark("gpqa", 198, "Idavidrein/gpqa:gpqa_diamond:train", ("gpqa_diamond",)),
    Benchmark("arc_c", 1172, "allenai/ai2_arc:ARC-Challenge:test", ("arc_challenge", "arc-c")),
)


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
    """The row's own chat; empty if the template makes it."""
    extra_info: Mapping[str, Any] | None = None
    demonstration: Demonstration | None = None
    """The row's own, whose cross-entropy is taken too."""


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
    if entry.endswith(SUFFIXES):
        name, questions = Path(entry).name.split(".")[0], _from_file(Path(entry).expanduser(), None)
    else:
        benchmark = known_benchmark(entry)
        name, questions = benchmark.name, _known(benchmark, data)
    return QuestionSet(name, tuple(_distinct(questions)[:limit]), num_samples)


def known_benchmark(name: str) -> Benchmark:
    """The benchmark of a name or alias. Raises ValueError, with the nearest name, if there is none."""
    for benchmark in BENCHMARKS:
        if name.lower() in (benchmark.name, *benchmark.aliases):
            return benchmark
    names = [benchmark.name for benchmark in BENCHMARKS]
    raise ValueError(
        f"benchmarks={name} must be one of {', '.join(names)}{nearest(name, names)}, or a file that exists "
        "(.parquet, .jsonl, .jsonl.gz, .json, .csv); correct it"
    )


def _known(benchmark: Benchmark, data: Path | None) -> list[Question]:
    """The whole of a known benchmark. Raises ValueError if it is not there, or not of its published size."""
    if data is None:
        source = f"{benchmark.hub} on the hub"
        questions = _from_records("hub", benchmark.name, benchmark.hub)
    else:
        named = [f"{name}{suffix}" for name in (benchmark.name, *benchmark.aliases) for suffix in SUFFIXES]
        file = next((data / one for one in named if (data / one).is_file()), None)
        if file is None:
            raise ValueError(
                f"data={data} must hold a file for {benchmark.name}, such as {benchmark.name}.jsonl.gz; leave data= "
                "away to take it from the hub"
            )
        source, questions = str(file), _from_file(file, benchmark)
    if len(questions) != benchmark.num_rows:
        raise ValueError(
            f"benchmarks={benchmark.name}: {source} has {len(questions)} rows and must have {benchmark.num_rows}; get "
            "the whole set, or give the file's own path to evaluate it under its own name (limit=<rows> takes the first)"
        )
    return questions


def _from_file(path: Path, benchmark: Benchmark | None) -> list[Question]:
    if path.suffix == ".parquet" and path.is_file() and "prompt" in _columns(path):
        questions = list(_from_parquet(path, benchmark))
    else:
        questions = _from_records(str(path), benchmark.name if benchmark else path.name.split(".")[0])
    if not questions:
        raise ValueError(f"benchmarks={path} must hold at least one question; it is empty")
    return questions


def _from_records(source: str, name: str, hub: str = "") -> list[Question]:
    questions = []
    for row, record in enumerate(read_records("benchmarks", source, hub)):
        if isinstance(record, Dropped):
            raise ValueError(f"benchmarks={source}: record {row} must be an object with question and answer ({record})")
        text, answer = question_and_answer(record, f"{hub or source}, record {row}")
        questions.append(Question(name, str(record.get("id") or f"{name}-{row}"), text, answer, str(row)))
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
            demonstration=demonstration_of(row),
        )


def _columns(path: Path) -> list[str]:
    """The columns of a parquet file. Raises ValueError if it is none."""
    try:
        return list(pq.read_schema(path).names)
    except pa.ArrowException as error:
        raise ValueError(f"benchmarks={path} must be a parquet file; {error}") from None


def _distinct(questions: Iterable[Question]) -> list[Question]:
    """The questions with ids that differ within a benchmark: a second ``x`` becomes ``x#2``."""
    seen: Counter[tuple[str, str]] = Counter()
    distinct = []
    for question in questions:
        key = (question.benchmark, question.id)
        seen[key] += 1
        distinct.append(question if seen[key] == 1 else replace(question, id=f"{question.id}#{seen[key]}"))
    return distinct


def question_and_answer(record: Mapping[str, Any], where: str) -> tuple[str, str]:
    """The text to ask and the answer to expect; of a multiple-choice record the choices follow, A to Z, and the answer
    is a letter.

    Choices are ``choices`` or ``options`` (a list, or ARC's texts with labels), or GPQA's one correct and three
    incorrect answers, put in an order that the question's own hash decides. GSM8K's answer is what follows ``####``.
    Raises ValueError, naming ``where``, without a question or an answer.
    """
    question = _first(record, _QUESTION)
    answer = _first(record, _ANSWER)
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        answer = ", ".join(map(str, answer))  # OlympiadBench lists its answers
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"benchmarks: {where} must have a text in one of {', '.join(_QUESTION)}; correct the file")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or not str(answer).strip():
        raise ValueError(f"benchmarks: {where} must have a value in one of {', '.join(_ANSWER)}; correct the file")
    text, wanted = question.strip(), str(answer).strip()
    choices, letter = _choices(record, text, wanted)
    if choices:
        listed = "\n".join(f"{mark}. {choice}" for mark, choice in zip(_LETTERS, choices, strict=False))
        return f"{text}\n\n{listed}", letter
    final = FINAL_LINE.findall(wanted)
    return text, (final[-1].replace(",", "") if final else bare(wanted))


def _choices(record: Mapping[str, Any], question: str, answer: str) -> tuple[list[str], str]:
    """The choices in order and the letter of the right one; no choices if the question is free-form."""
    if "Incorrect Answer 1" in record:
        choices = [answer, *(str(record[f"Incorrect Answer {number}"]).strip() for number in (1, 2, 3))]
        order = list(range(4))
        Random(hashlib.sha256(question.encode()).hexdigest()).shuffle(order)
        return [choices[place] for place in order], _LETTERS[order.index(0)]
    given = record.get("choices") or record.get("options")
    if not given:
        return [], answer
    if isinstance(given, Mapping):
        texts, labels = list(given["text"]), [str(label) for label in given["label"]]
        return texts, _LETTERS[labels.index(answer)] if answer in labels else answer
    texts = [str(choice) for choice in given]
    return texts, answer if len(answer) == 1 and answer in _LETTERS[: len(texts)] else _LETTERS[texts.index(answer)]


def _first(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)
