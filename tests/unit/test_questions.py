"""Benchmarks from files: the real ones where they are at hand, small ones of every format, and every way to be wrong."""

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mifo_verl.data.parquet import write_rows
from mifo_verl.tools.evaluate.questions import BENCHMARKS, known_benchmark, load_set, question_and_answer
from mifo_verl.tools.prepare import addition

SHARED = Path(os.environ.get("MIFO_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
real_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real benchmarks: {SHARED} is not there")


def write(path, records):
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@real_data
@pytest.mark.parametrize(
    ("entry", "name", "rows"),
    [
        ("aime24", "aime24", 30),
        ("aime25", "aime25", 30),
        ("amc", "amc", 40),
        ("amc23", "amc", 40),
        ("math500", "math500", 500),
        ("olympiad", "olympiad", 674),
        ("olympiadbench", "olympiad", 674),
        ("minerva", "minerva", 272),
        ("gsm8k", "gsm8k", 1319),
    ],
)
def test_the_real_benchmarks_are_found_by_name_and_alias_and_are_whole(entry, name, rows):
    found = load_set(entry, SHARED, 1, None)
    assert (found.name, len(found.questions)) == (name, rows)
    assert len({question.id for question in found.questions}) == rows
    assert all(question.benchmark == name and question.text and question.answer for question in found.questions)
    answers = [question.answer for question in found.questions]
    assert not any(answer[0] == answer[-1] == "$" and answer.count("$") == 2 for answer in answers)


@real_data
def test_a_known_benchmark_with_a_row_missing_is_an_error(tmp_path):
    lines = gzip.decompress((SHARED / "aime24.jsonl.gz").read_bytes()).splitlines(keepends=True)
    (tmp_path / "aime24.jsonl").write_bytes(b"".join(lines[:29]))
    with pytest.raises(ValueError, match=r"benchmarks=aime24: .*aime24.jsonl has 29 rows and must have 30"):
        load_set("aime24", tmp_path, 1, 5)
    assert len(load_set(str(tmp_path / "aime24.jsonl"), None, 1, None).questions) == 29  # a file is its own benchmark


def test_the_limit_takes_the_first_questions_of_a_whole_benchmark(tmp_path):
    write(tmp_path / "amc23.jsonl", [{"question": f"q{n}", "answer": n} for n in range(40)])
    found = load_set("amc@8", tmp_path, 1, 3)
    assert [question.text for question in found.questions] == ["q0", "q1", "q2"]
    assert [question.answer for question in found.questions] == ["0", "1", "2"]
    assert found.num_samples == 8
    assert load_set("amc", tmp_path, 4, 3).num_samples == 4


def test_known_row_counts_are_those_published():
    counts = {benchmark.name: benchmark.num_rows for benchmark in BENCHMARKS}
    assert counts == {
        "aime24": 30,
        "aime25": 30,
        "amc": 40,
        "math500": 500,
        "olympiad": 674,
        "minerva": 272,
        "gsm8k": 1319,
        "mmlu_pro": 12032,
        "gpqa": 198,
        "arc_c": 1172,
    }
    names = [name for benchmark in BENCHMARKS for name in (benchmark.name, *benchmark.aliases)]
    assert len(names) == len(set(names))


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"benchmarks=aime2 must be one of .*\(did you mean aime2[45]\?\)"):
        known_benchmark("aime2")


def test_a_parquet_of_verls_schema_keeps_its_chat_and_its_sources(tmp_path):
    rows = addition.rows({2: 2, 3: 1}, "validation", 0)
    write_rows(rows, tmp_path / "validation.parquet")
    found = load_set(str(tmp_path / "validation.parquet"), None, 1, None)
    assert found.name == "validation"
    assert [question.benchmark for question in found.questions] == ["addition/level_2"] * 2 + ["addition/level_3"]
    for question, row in zip(found.questions, rows, strict=True):
        assert question.id == row["prompt_id"]
        assert list(question.messages) == row["prompt"] and question.text == row["prompt"][0]["content"]
        assert question.answer == row["reward_model"]["ground_truth"]
        assert question.index == str(row["extra_info"]["index"])


def test_csv_json_and_parquet_of_other_columns_are_read_too(tmp_path):
    (tmp_path / "a.csv").write_text("problem,answer\n1+1?,2\n")
    (tmp_path / "b.json").write_text('[{"problem": "1+1?", "answer": "2"}]')
    pq.write_table(pa.table({"problem": ["1+1?"], "answer": [2]}), tmp_path / "c.parquet")
    for name in ("a.csv", "b.json", "c.parquet"):
        [question] = load_set(str(tmp_path / name), None, 1, None).questions
        assert (question.text, question.answer, question.benchmark) == ("1+1?", "2", name[0])


def test_questions_of_one_id_are_told_apart(tmp_path):
    path = write(tmp_path / "mine.jsonl.gz", [{"id": "x", "question": f"q{n}", "answer": "1"} for n in range(3)])
    assert [question.id for question in load_set(str(path), None, 1, None).questions] == ["x", "x#2", "x#3"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"question": " 1+1? ", "answer": "2"}, ("1+1?", "2")),
        ({"problem": "1+1?", "answer": 2}, ("1+1?", "2")),
        ({"question": "q", "final_answer": ["3"]}, ("q", "3")),
        ({"question": "q", "answer": "$\\frac{1}{2}$"}, ("q", "\\frac{1}{2}")),
        ({"question": "q", "answer": "$1$ or $2$"}, ("q", "$1$ or $2$")),
        ({"question": "q", "answer": "steps\n#### 1,250"}, ("q", "1250")),
        ({"question": "q", "options": ["x", "y"], "answer": "B"}, ("q\n\nA. x\nB. y", "B")),
        ({"question": "q", "choices": ["x", "y"], "answer": "y"}, ("q\n\nA. x\nB. y", "B")),
        (
            {"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
            ("q\n\nA. x\nB. y", "B"),
        ),
    ],
)
def test_records_of_the_published_sets_are_read(record, expected):
    assert question_and_answer(record, "here") == expected


def test_gpqas_choices_are_shuffled_by_the_question_alone():
    def record(number):
        wrong = {f"Incorrect Answer {place}": f"wrong{place}" for place in (1, 2, 3)}
        return {"Question": f"q{number}", "Correct Answer": " right ", **wrong}

    letters = []
    for number in range(200):
        text, letter = question_and_answer(record(number), "here")
        assert f"{letter}. right" in text.splitlines()
        assert question_and_answer(record(number), "there") == (text, letter)
        letters.append(letter)
    assert all(30 <= letters.count(letter) <= 70 for letter in "ABCD")


@pytest.mark.parametrize(
    "record", [{}, {"question": " ", "answer": "1"}, {"question": "q"}, {"question": "q", "answer": ""}]
)
def test_a_record_without_question_or_answer_is_an_error_that_names_its_row(record):
    with pytest.raises(ValueError, match=r"benchmarks: f, row 3 must have a"):
        question_and_answer(record, "f, row 3")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "must hold at least one question"),
        ("a.jsonl", b"{\n", "record 0 must be an object"),
        ("a.jsonl", b"\n[]\n", "record 0 must be an object"),
        ("a.jsonl", b"\xff\n", "must be a readable .jsonl file"),
        ("a.jsonl.gz", b"no gzip", "must be a readable .jsonl file"),
        ("a.parquet", b"no parquet", "must be a parquet file"),
    ],
)
def test_a_broken_file_is_an_error_that_names_it(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"benchmarks.*{name}.*{message}"):
        load_set(str(tmp_path / name), None, 1, None)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"missing.jsonl"):
        load_set(str(tmp_path / "missing.jsonl"), None, 1, None)
    with pytest.raises(ValueError, match=r"data=.* must hold a file for aime24"):
        load_set("aime24", tmp_path, 1, None)


def test_a_benchmark_that_the_hub_does_not_give_is_named():
    with pytest.raises(
        ValueError, match=r"benchmarks=hub:Idavidrein/gpqa:gpqa_diamond:train must be .* or give a file"
    ):
        load_set("gpqa", None, 1, None)
