"""The command: files to the byte, reports that an independent count confirms, errors in one line."""

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mifo_verl.data.parquet import check_columns, count_demonstrations
from mifo_verl.tools.prepare.__main__ import main
from mifo_verl.tools.prepare.preparation import summary
from tests.unit.conftest import SHARED

shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real questions: {SHARED} is not there")


def lines(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def report(folder: Path, split: str = "train") -> dict[str, Any]:
    return json.loads((folder / f"{split}.report.json").read_text())


RECORDS = [
    {"id": "a", "question": "One and one?", "solution": "1+1=2, so \\boxed{2}", "answer": "2"},
    {"id": "b", "question": "Two and two?", "solution": "so \\boxed{5}", "answer": "4"},
    {"id": "c", "question": "Three and three?", "answer": "6"},
    {"id": "d", "question": "One and one?", "solution": "\\boxed{2}", "answer": "2"},
    {"id": "a", "question": "Four and four?", "answer": "8"},
    {"id": "e", "question": "Five and five, evaluated?", "answer": "10"},
    {"id": "f", "question": "", "answer": "10"},
    {"id": "g", "question": "Six and six?"},
]


def test_every_record_is_a_row_or_has_a_reason(tmp_path: Path) -> None:
    source = lines(tmp_path / "own.jsonl", *RECORDS)
    evaluation = lines(tmp_path / "bench.jsonl", {"question": "five and FIVE evaluated"})
    assert (
        main(["prepare", "own", f"train={source}", f"val={source}", f"decontaminate={evaluation}", f"out={tmp_path}"])
        == 0
    )
    found = report(tmp_path)
    assert (found["records"], found["rows"], found["demonstrations"], found["verified"]) == (8, 3, 2, 1)
    assert found["dropped"] == {
        "the same prompt again": 1,
        "the same id again": 1,
        "contaminated (exact)": 1,
        "no question": 1,
        "no column answer": 1,
    }
    assert found["contaminated_by"] == {"bench": 1} and found["evaluation_questions"] == {"bench": 1}
    assert found["verified_share"] == 0.5 and found["by_source"] == {"own": 3}
    assert found["lengths"]["demonstration_chars"] == {"min": 12, "median": 16, "p95": 19, "max": 19}
    assert found["sha256"] == hashlib.sha256((tmp_path / "train.parquet").read_bytes()).hexdigest()
    assert report(tmp_path, "validation")["rows"] == 4, (
        "a validation split is never decontaminated against its own kind"
    )
    rows = pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert [row["prompt_id"] for row in rows] == ["own/a", "own/b", "own/c"]
    check_columns(tmp_path / "train.parquet")


@pytest.mark.parametrize(("choice", "ids", "targets"), [("keep", "abc", 2), ("null", "abc", 1), ("drop", "ac", 1)])
def test_a_demonstration_that_does_not_verify_is_kept_nulled_or_dropped(
    tmp_path: Path, choice: str, ids: str, targets: int
) -> None:
    source = lines(tmp_path / "own.jsonl", *RECORDS[:3])
    assert main(["prepare", "own", f"train={source}", f"unverified={choice}", f"out={tmp_path}"]) == 0
    rows = pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert "".join(row["prompt_id"].removeprefix("own/") for row in rows) == ids
    assert count_demonstrations(tmp_path / "train.parquet")[1] == targets
    assert report(tmp_path)["dropped"] == ({"the demonstration does not verify": 1} if choice == "drop" else {})


def test_settings_of_all_recipes_limit_rows_and_set_the_system_message(tmp_path: Path) -> None:
    source = lines(tmp_path / "own.jsonl", *RECORDS)
    assert main(["prepare", "own", f"train={source}", "max_rows=2", "system=Be brief.", f"out={tmp_path}"]) == 0
    rows = pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert len(rows) == 2
    assert [row["prompt"][0] for row in rows] == [{"role": "system", "content": "Be brief."}] * 2


def test_lengths_are_counted_in_a_tokenizers_tokens_too(tmp_path: Path) -> None:
    import mifo_verl.data

    tokenizer = Path(mifo_verl.data.__file__).parent / "addition_start"
    assert main(["prepare", "addition", "train=3", "val=1", f"tokenizer={tokenizer}", f"out={tmp_path}"]) == 0
    tokens = report(tmp_path)["lengths"]["prompt_tokens"]
    assert tokens == {"min": 5, "median": 5, "p95": 5, "max": 5}  # a digit, +, a digit, =, ?


def test_the_same_input_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    source = lines(tmp_path / "own.jsonl", *RECORDS)
    recipes = [["own", f"train={source}"]]
    try:
        import reasoning_gym  # noqa: F401

        recipes.append(["reasoning_gym", "family=word_ladder,chain_sum", "train=3"])
    except ImportError:
        pass
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"  # not this process's own
    for recipe in recipes:
        made = ["prepare", *recipe]
        assert main([*made, f"out={tmp_path / '1'}"]) == 0
        command = [sys.executable, "-m", "mifo_verl.tools.prepare", *made, f"out={tmp_path / '2'}"]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed})
        for name in ("train.parquet", "train.report.json"):
            assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), recipe


def test_the_short_command_is_the_long_one(tmp_path: Path) -> None:
    assert main(["addition", "train=5", "val=5", f"out={tmp_path / 'a'}"]) == 0
    assert main(["prepare", "addition", "train=5", "val=5", f"out={tmp_path / 'b'}"]) == 0
    assert (tmp_path / "a" / "train.parquet").read_bytes() == (tmp_path / "b" / "train.parquet").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gsm"], r"what=gsm must be one of .* \(did you mean gsm8k\?\)"),
        (["own", "train=x"], "out must be set for own"),
        (["own", "out=x"], "train or val must be set for own"),
        (["own", "out=x", "train=nowhere.jsonl"], "train=nowhere.jsonl must be a file that exists"),
        (["own", "out=x", "val=nowhere.jsonl"], "val=nowhere.jsonl must be a file that exists"),
        (["own", "out=x", "train=x", "max_rows=-1"], "max_rows=-1 must be a whole number"),
        (["own", "out=x", "train=x", "unverified=no"], "unverified=no must be keep, null or drop"),
        (
            ["own", "out=x", "train=x", "anwser=a"],
            r"anwser=a must be key=value, key one of .* \(did you mean answer\?\)",
        ),
        (["own", "out=x", "train=x", "decontaminate=nowhere.jsonl"], "decontaminate=nowhere.jsonl must be a file"),
        (["own", "out=x", "train"], "train must be key=value"),
        (["own", "out=x", "train=x", "val_share=2"], "val_share=2 must be a share between 0 and 1"),
        (
            ["own", "out=x", "train=x", "val=x", "val_share=0.1"],
            "val_share=0.1 must be used with train and without val",
        ),
        (["own", "out=x", "train=x", "demonstrations=no"], "demonstrations=no must be required or optional"),
        (["deepmath", "out=x", "train=x", "trace=two"], "trace=two must be a whole number"),
    ],
)
def test_what_a_user_can_fix_is_one_line_and_exit_code_2(arguments: list[str], message: str, capsys: Any) -> None:
    assert main(["prepare", *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1


def test_a_file_without_a_row_for_the_recipe_is_exit_code_2_and_nothing_is_written(tmp_path: Path, capsys: Any) -> None:
    source = lines(tmp_path / "a.jsonl", {"problem": "q", "answer": "1"}, {"problem": "r", "answer": "2"})
    assert main(["gsm8k", f"train={source}", f"out={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert re.search(
        r"train=.* must have a row for the recipe gsm8k: of 2 records it dropped: no question \(2\); it reads GSM8K",
        error,
    )
    assert not (tmp_path / "train.parquet").exists()


def test_a_train_split_without_a_demonstration_is_exit_code_2_unless_none_is_needed(
    tmp_path: Path, capsys: Any
) -> None:
    source = lines(tmp_path / "a.jsonl", {"problem": "q", "answer": "1"})
    assert main(["math", f"train={source}", f"out={tmp_path}"]) == 2
    assert "must have a demonstration: none of 1 rows has one" in capsys.readouterr().err
    assert main(["math", f"train={source}", "demonstrations=optional", f"out={tmp_path}"]) == 0
    assert main(["math", f"val={source}", f"out={tmp_path}"]) == 0


def test_demonstrations_of_which_none_verifies_are_exit_code_2_as_if_there_were_none(
    tmp_path: Path, capsys: Any
) -> None:
    source = lines(tmp_path / "a.jsonl", {"id": "x", "question": "q", "answer": "1", "solution": "\\boxed{2}"})
    for choice in ("keep", "drop", "null"):
        assert main(["own", f"train={source}", f"unverified={choice}", f"out={tmp_path}"]) == 2
        said = capsys.readouterr().err
        assert "must have a demonstration that verifies: of 1 none does, such as row 0 (own/x)" in said
    assert not (tmp_path / "train.parquet").exists()
    assert main(["own", f"train={source}", "demonstrations=optional", f"out={tmp_path}"]) == 0


def test_the_same_prompt_with_another_answer_is_told_apart_from_a_repeat(tmp_path: Path) -> None:
    said = [{"question": "q", "answer": answer, "solution": "\\boxed{1}"} for answer in ("1", "1", "2")]
    assert main(["own", f"train={lines(tmp_path / 'a.jsonl', *said)}", f"out={tmp_path}"]) == 0
    assert report(tmp_path)["dropped"] == {"the same prompt again": 1, "the same prompt with another answer": 1}


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz"])
def test_a_mark_of_the_byte_order_is_no_part_of_the_data(tmp_path: Path, name: str) -> None:
    row = {"question": "q", "answer": "007", "solution": "\\boxed{7}"}
    text = {".json": json.dumps([row]), ".csv": "question,answer,solution\nq,007,\\boxed{7}\n"}
    data = ("\ufeff" + text.get(Path(name).suffix, json.dumps(row))).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert main(["own", f"train={tmp_path / name}", f"out={tmp_path}"]) == 0
    (found,) = pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert found["reward_model"]["ground_truth"] == "007" and found["prompt"][0]["content"].startswith("q\n")


def test_cells_that_commas_do_not_separate_are_named(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a.csv").write_text("question;answer;solution\nq;1;s\n")
    assert main(["own", f"train={tmp_path / 'a.csv'}", f"out={tmp_path}"]) == 2
    assert "its cells are separated by ';', not by commas" in capsys.readouterr().err


def test_a_column_of_booleans_is_refused_and_an_empty_object_is_no_answer(tmp_path: Path, capsys: Any) -> None:
    source = lines(tmp_path / "a.jsonl", {"question": "q", "answer": True, "solution": "s"})
    assert main(["own", f"train={source}", f"out={tmp_path}"]) == 2
    assert "answer=answer must be a column of texts or numbers, and it holds booleans" in capsys.readouterr().err
    good = {"question": "r", "answer": "1", "solution": "\\boxed{1}"}
    source = lines(tmp_path / "a.jsonl", {"question": "q", "answer": "{}", "solution": "s"}, good)
    assert main(["own", f"train={source}", f"out={tmp_path}"]) == 0
    assert report(tmp_path)["dropped"] == {"no answer": 1}


def test_messages_in_parts_are_their_text_and_an_image_is_refused(tmp_path: Path) -> None:
    def said(*parts: dict[str, Any]) -> dict[str, Any]:
        answer = {"role": "assistant", "content": [{"type": "text", "text": "\\boxed{1}"}]}
        return {"messages": [{"role": "user", "content": list(parts)}, answer]}

    first, second, image = (
        {"type": "text", "text": "a "},
        {"type": "text", "text": "b"},
        {"type": "image", "image": "x"},
    )
    source = lines(tmp_path / "a.jsonl", said(first, second), said(first, image))
    assert main(["own", f"train={source}", "instruction=none", f"out={tmp_path}"]) == 0
    (row,) = pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert (row["prompt"][0]["content"], row["target"][0]["content"]) == ("a b", "\\boxed{1}")
    assert report(tmp_path)["dropped"] == {"a message that is not text alone": 1}


def test_a_share_that_leaves_a_side_without_a_question_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: Any
) -> None:
    rows = ({"question": f"q{n}", "answer": n, "solution": f"\\boxed{{{n}}}"} for n in range(6))
    source = lines(tmp_path / "a.jsonl", *rows)
    assert main(["own", f"train={source}", "val_share=0.001", f"out={tmp_path}"]) == 2
    assert "val_share=0.001 must be a share that leaves a question for validation" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.parquet"))


def test_validation_questions_that_are_trained_on_are_warned_of_and_the_cure_drops_them(
    tmp_path: Path, capsys: Any
) -> None:
    rows = [{"question": f"what is {n} and one?", "answer": n, "solution": f"\\boxed{{{n}}}"} for n in range(6)]
    train, val = lines(tmp_path / "a.jsonl", *rows), lines(tmp_path / "b.jsonl", *rows[:2])
    assert main(["own", f"train={train}", f"val={val}", f"out={tmp_path}"]) == 0
    said = capsys.readouterr().err
    assert f"2 of 2 validation questions are in the train split too; add decontaminate={val}" in said
    assert main(["own", f"train={train}", f"val={val}", f"decontaminate={val}", f"out={tmp_path}"]) == 0
    assert "warning" not in capsys.readouterr().err and report(tmp_path)["rows"] == 4


def test_a_share_of_the_train_questions_becomes_validation(tmp_path: Path) -> None:
    source = lines(tmp_path / "a.jsonl", *({"question": f"q{n}", "answer": n, "solution": f"{n}"} for n in range(400)))
    assert main(["own", f"train={source}", "val_share=0.25", f"out={tmp_path}"]) == 0
    splits = {name: pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("train", "validation")}
    assert len(splits["train"]) + len(splits["validation"]) == 400 and 70 < len(splits["validation"]) < 130
    assert not {row["prompt_id"] for row in splits["train"]} & {row["prompt_id"] for row in splits["validation"]}
    assert {row["extra_info"]["split"] for row in splits["validation"]} == {"validation"}


def test_summaries_are_of_whole_numbers() -> None:
    assert summary([]) == {}
    assert summary([7]) == {"min": 7, "median": 7, "p95": 7, "max": 7}
    assert summary(list(range(101))) == {"min": 0, "median": 50, "p95": 95, "max": 100}


def independent_words(text: str) -> list[str]:
    """Words found letter by letter, with nothing of the package."""
    import unicodedata

    words, word = [], ""
    for letter in unicodedata.normalize("NFKC", text).casefold() + " ":
        if letter.isalnum() or letter == "_" or unicodedata.category(letter) in ("Nl", "No"):
            word += letter
        elif word:
            words.append(word)
            word = ""
    return words


@shared
def test_gsm8ks_report_is_confirmed_by_an_independent_count(tmp_path: Path) -> None:
    train, test = (SHARED / f"gsm8k_{name}.jsonl.gz" for name in ("train", "test"))
    assert main(["gsm8k", f"train={train}", f"val={test}", f"decontaminate={test}", f"out={tmp_path}"]) == 0
    with gzip.open(train, "rt") as file:
        questions = [independent_words(json.loads(line)["question"]) for line in file]
    with gzip.open(test, "rt") as file:
        evaluated = [independent_words(json.loads(line)["question"]) for line in file]
    whole = {tuple(words) for words in evaluated}
    runs = {tuple(words[start : start + 13]) for words in evaluated for start in range(max(0, len(words) - 12))}
    exact = [words for words in questions if tuple(words) in whole]
    shared_run = [
        words
        for words in questions
        if tuple(words) not in whole
        and any(tuple(words[start : start + 13]) in runs for start in range(max(0, len(words) - 12)))
    ]
    found = report(tmp_path)
    expected = {"contaminated (exact)": len(exact), "contaminated (13-gram)": len(shared_run)}
    assert found["dropped"] == {reason: count for reason, count in expected.items() if count}
    assert found["records"] == len(questions) == 7473
    assert found["rows"] == found["verified"] == 7473 - len(exact) - len(shared_run)
    assert report(tmp_path, "validation")["rows"] == len(evaluated) == 1319


@shared
@pytest.mark.parametrize(
    ("name", "count", "unreadable"),
    [
        ("aime24", 30, []),
        ("aime25", 30, []),
        ("amc23", 40, []),
        ("math500", 500, []),
        ("minerva", 272, []),
        ("olympiadbench", 674, ["t(0,4]"]),  # damaged in its source
    ],
)
def test_real_competition_files_go_through_math_and_own(
    tmp_path: Path, name: str, count: int, unreadable: list[str]
) -> None:
    path = SHARED / f"{name}.jsonl.gz"
    with gzip.open(path, "rt") as file:
        questions = [json.loads(line)["question"].strip() for line in file]
    repeated = len(questions) - len(set(questions))
    for recipe in ("math", "own"):
        assert main(["prepare", recipe, f"val={path}", f"out={tmp_path / recipe}"]) == 0
        found = report(tmp_path / recipe, "validation")
        rows = count - repeated - len(unreadable)
        assert found["records"] == count and found["rows"] == rows
        assert found["unreadable"] == unreadable
        assert sum(found["dropped"].values()) == count - rows
        assert count_demonstrations(tmp_path / recipe / "validation.parquet") == (rows, 0)
        check_columns(tmp_path / recipe / "validation.parquet")


WORDS = "proof notfound nan inf null None N/A Proof. TBD - ? unanswerable".split()


def test_words_for_no_answer_and_answers_that_nobody_can_read_are_dropped_and_counted(tmp_path: Path) -> None:
    answers = [*WORDS, "1, 2, \\ldots, n", "7"]
    records = [{"question": f"{n}?", "answer": answer, "solution": "so 7"} for n, answer in enumerate(answers)]
    assert main(["own", f"train={lines(tmp_path / 'own.jsonl', *records)}", f"out={tmp_path}"]) == 0
    found = report(tmp_path)
    assert (found["rows"], found["unreadable"]) == (1, ["1, 2, \\ldots, n"])
    assert found["dropped"]["the reward cannot read the answer"] == 1
    assert found["dropped"]["no answer but the word proof"] == 2 and sum(found["dropped"].values()) == 13


def test_a_demonstration_that_does_not_verify_is_named_with_its_answer_and_what_becomes_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    solutions = ("\\boxed{4}", "\\boxed{5}", "\\boxed{6}", "I give up.")
    records = [
        {"id": n, "question": f"2+2? ({n})", "answer": "4", "solution": text} for n, text in enumerate(solutions)
    ]
    assert main(["own", f"train={lines(tmp_path / 'own.jsonl', *records)}", f"out={tmp_path}"]) == 0
    assert report(tmp_path)["wrong"] == ["row 1 (own/1)", "row 2 (own/2)", "row 3 (own/3)"]
    assert report(tmp_path)["wrong_kinds"] == {
        "another answer": "row 1 (own/1): read 5, wanted 4",
        "no answer": "row 3 (own/3): read none, wanted 4",
    }
    said = capsys.readouterr().out
    assert "row 1 (own/1): read 5, wanted 4" in said and "row 3 (own/3): read none, wanted 4" in said
    assert "kept in the file, never trained on; unverified=drop leaves their rows out" in said


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "1+1?", "input": "", "output": "so \\boxed{2}"},
        {"problem": "1+1?", "expected_answer": "2", "response": "so \\boxed{2}"},
        {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "so \\boxed{2}"}]},
        {"conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "so \\boxed{2}"}]},
    ],
)
def test_known_layouts_need_no_settings(tmp_path: Path, record: dict[str, Any]) -> None:
    assert main(["own", f"train={lines(tmp_path / 'own.jsonl', record)}", f"out={tmp_path}"]) == 0
    (row,) = pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert row["prompt"][-1]["content"].startswith("1+1?") and row["reward_model"]["ground_truth"] == "2"
    assert row["target"][0]["content"] == "so \\boxed{2}"


def test_several_sources_are_mixed_by_weight_until_one_has_no_more(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lines(tmp_path / f"{name}.jsonl", *({"question": f"{name}{n}?", "answer": str(n)} for n in range(12)))
    sources = f"train={tmp_path}/a.jsonl@3,{tmp_path}/b.jsonl@1"
    assert main(["own", sources, "demonstrations=optional", f"out={tmp_path}"]) == 0
    assert report(tmp_path)["by_source"] == {"a": 12, "b": 4}
