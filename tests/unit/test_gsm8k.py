"""GSM8K in both of its formats, and the real file where it is at hand."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mifo_verl.data.demonstrations import demonstration_of
from mifo_verl.rewards.boxed import is_correct
from mifo_verl.tools.prepare.recipe import INSTRUCTION, Row, Split, with_system
from mifo_verl.tools.prepare.recipes.published import Gsm8k
from mifo_verl.tools.prepare.sources import Dropped
from tests.unit.conftest import SHARED

SOLUTION = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nShe sold 48+24 = <<48+24=72>>72 clips altogether."
TEXT = "Natalia sold 48/2 = 24 clips in May.\nShe sold 48+24 = 72 clips altogether.\nThe answer is \\boxed{72}."


def write(path: Path, *records: Any) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n")
    return path


def read_rows(path: Path, split: Split) -> tuple[list[Row], Counter[str]]:
    made = list(Gsm8k().rows(split, str(path)))
    dropped = Counter(one.reason for one in made if isinstance(one, Dropped))
    return [one for one in made if not isinstance(one, Dropped)], dropped


def test_marks_are_stripped_and_the_answer_is_boxed() -> None:
    assert Gsm8k().demonstration({"answer": "72", "solution": SOLUTION}) == TEXT


def test_both_formats_give_the_same_demonstration(tmp_path: Path) -> None:
    ours = {"id": "g0", "question": "How many?", "solution": SOLUTION, "answer": "72"}
    original = {"question": "How many?", "answer": f"{SOLUTION}\n#### 72"}
    rows, dropped = read_rows(write(tmp_path / "a.jsonl", ours, original), "train")
    assert not dropped
    assert [row["target"] for row in rows] == [[{"role": "assistant", "content": TEXT}]] * 2
    assert [row["reward_model"]["ground_truth"] for row in rows] == ["72", "72"]
    assert [row["prompt_id"] for row in rows] == ["g0", "gsm8k-train-1"]


def test_a_row_asks_for_a_boxed_answer_after_an_optional_system_message(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"question": "How many? ", "answer": "72"})
    user = {"role": "user", "content": f"How many?\n{INSTRUCTION}"}
    assert "\\boxed{}" in INSTRUCTION
    assert read_rows(path, "train")[0][0]["prompt"] == [user]
    brief = with_system(read_rows(path, "train")[0][0], "Be brief.")
    assert brief["prompt"] == [{"role": "system", "content": "Be brief."}, user]
    assert with_system(brief, "none")["prompt"] == [user]
    assert with_system(brief, None) == brief


@pytest.mark.parametrize(
    ("written", "truth"), [("1,250", "1250"), ("$5", "5"), ("-7", "-7"), ("2.5", "2.5"), (" 42 ", "42"), (42, "42")]
)
def test_answers_are_bare_numbers(tmp_path: Path, written: Any, truth: str) -> None:
    rows, _ = read_rows(write(tmp_path / "a.jsonl", {"question": "q", "answer": written}), "train")
    assert rows[0]["reward_model"]["ground_truth"] == truth


def test_a_question_without_a_solution_is_kept_without_a_demonstration(tmp_path: Path) -> None:
    rows, dropped = read_rows(write(tmp_path / "a.jsonl", {"question": "q", "answer": "3"}), "validation")
    assert rows[0]["target"] is None and demonstration_of(rows[0]) is None and not dropped


def test_malformed_lines_are_counted_by_reason(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        "{not json",
        "3",
        {"answer": "1"},
        {"question": " ", "answer": "1"},
        {"question": "q"},
        {"question": "q", "answer": "many"},
        {"question": "q", "answer": "steps\n####"},
        "",
        {"question": "q", "answer": "1"},
    )
    rows, dropped = read_rows(path, "train")
    assert len(rows) == 1
    assert dropped == {"not a JSON object": 2, "no question": 2, "no answer": 1, "answer is not a number": 2}


def test_gzip_is_read_and_a_broken_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    line = json.dumps({"question": "q", "answer": "1"}).encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line))
    assert len(read_rows(tmp_path / "a.jsonl.gz", "train")[0]) == 1
    (tmp_path / "b.jsonl.gz").write_bytes(line)
    for name in ("b.jsonl.gz", "missing.jsonl"):
        with pytest.raises(ValueError, match=name):
            read_rows(tmp_path / name, "train")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real GSM8K: {SHARED} is not there")
@pytest.mark.parametrize(("name", "num_rows"), [("gsm8k_train", 7473), ("gsm8k_test", 1319)])
def test_every_real_row_is_read_and_its_demonstration_verifies(name: str, num_rows: int) -> None:
    rows, dropped = read_rows(SHARED / f"{name}.jsonl.gz", "train")
    assert len(rows) == num_rows and not dropped
    assert len({row["prompt_id"] for row in rows}) == num_rows
    for row in rows:
        demonstration = demonstration_of(row)
        assert demonstration is not None and "<<" not in demonstration.text
        assert is_correct(demonstration.text, demonstration.answer)
