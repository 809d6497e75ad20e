"""Files are written to the byte and checked before a run; the command line says what is wrong in one line."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mifo_verl.data.parquet import check_columns, write_rows
from mifo_verl.tools.prepare import addition
from mifo_verl.tools.prepare.__main__ import main

ROWS = addition.rows({2: 5, 3: 5}, "train", 0)
GOOD = {"data_source": "s", "prompt": [{"role": "user", "content": "q"}], "reward_model": {"ground_truth": "1"}}
ASSISTANT = {"role": "assistant", "content": "1"}


def write_any(path: Path, *rows: dict[str, Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    write_rows(ROWS, tmp_path / "new" / "a.parquet")
    assert pq.read_table(tmp_path / "new" / "a.parquet").to_pylist() == ROWS


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    write_rows(ROWS, tmp_path / "a.parquet")
    write_rows(ROWS, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_what_we_write_passes_the_check_even_empty_or_without_targets(tmp_path: Path) -> None:
    for rows in (ROWS, [], [row | {"target": None} for row in ROWS]):
        write_rows(rows, tmp_path / "a.parquet")
        check_columns(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"target": None},
        {"target": []},
        {"target": [ASSISTANT]},
        {"reward_model": {"style": "rule", "ground_truth": "1"}},
    ],
)
def test_rows_of_other_tools_pass(tmp_path: Path, change: dict[str, Any]) -> None:
    check_columns(write_any(tmp_path / "a.parquet", GOOD | change, GOOD | {"target": [ASSISTANT]} | change))


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"data_source": 1}, "data_source"),
        ({"prompt": "q"}, "prompt"),
        ({"prompt": [{"content": "q"}]}, "prompt"),
        ({"prompt": ["q"]}, "prompt"),
        ({"reward_model": "1"}, "reward_model"),
        ({"reward_model": {"style": "rule"}}, "reward_model"),
        ({"reward_model": {"ground_truth": 1.5}}, "reward_model"),
        ({"target": "text"}, "target"),
        ({"target": [{"content": "x"}]}, "target"),
        ({"extra_info": "{}"}, "extra_info"),
    ],
)
def test_a_column_of_the_wrong_type_is_named(tmp_path: Path, change: dict[str, Any], column: str) -> None:
    path = write_any(tmp_path / "a.parquet", GOOD | change)
    with pytest.raises(ValueError, match=rf"^data.val_files=.*column {column} of type .* must be .*; "):
        check_columns(path, "data.val_files")


@pytest.mark.parametrize("column", ["data_source", "prompt", "reward_model"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    path = write_any(tmp_path / "a.parquet", {key: value for key, value in GOOD.items() if key != column})
    with pytest.raises(ValueError, match=rf"^data.train_files=.*column {column} must be present"):
        check_columns(path)


def test_a_file_that_is_missing_or_no_parquet_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data.train_files=.*nowhere.parquet must be a file that exists"):
        check_columns(tmp_path / "nowhere.parquet")
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(ValueError, match=r"text.parquet must be a parquet file"):
        check_columns(tmp_path / "text.parquet")


def test_the_command_writes_both_splits_and_says_where_a_level_is_small(tmp_path: Path, capsys: Any) -> None:
    assert main(["addition", f"out={tmp_path}", "train=100,100,100,100,100", "val=10,10,10,10,10"]) == 0
    assert pq.read_metadata(tmp_path / "validation.parquet").num_rows == 50
    check_columns(tmp_path / "train.parquet")
    said = capsys.readouterr().out
    assert "50 rows, 50 with a demonstration, 50 of them verify" in said
    assert "level 1 has only" in said and "fewer than the 100 asked for" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["adition", "out=x"], "did you mean addition"),
        (["addition"], "out must be set"),
        (["addition", "out"], "out must be key=value"),
        (["addition", "out=x", "sed=1"], "did you mean seed"),
        (["addition", "out=x", "seed=-1"], "seed=-1 must be a whole number"),
        (["addition", "out=x", "train=1,200000"], "must be in"),
        (["gsm8k", "out=x", "train=nowhere", "val=nowhere"], "nowhere must be a file that exists"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(arguments: list[str], message: str, capsys: Any) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
