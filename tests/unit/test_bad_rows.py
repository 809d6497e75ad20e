"""Bad rows are found by reason, whatever they hold; what is good is kept as it was."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mifo_verl.data.bad_rows import MAX_FIELD_BYTES, Reason, excerpt, scan_rows
from mifo_verl.data.demonstrations import demonstration_of
from mifo_verl.data.parquet import write_without

SPECIAL = ["<|im_start|>", "<|im_end|>"]


def user(text: str | None) -> dict[str, Any]:
    return {"role": "user", "content": text}


def row(number: int, **change: Any) -> dict[str, Any]:
    good = {
        "data_source": "s",
        "prompt": [user(f"question {number}")],
        "target": [{"role": "assistant", "content": f"\\boxed{{{number}}}"}],
        "reward_model": {"style": "rule", "ground_truth": str(number)},
        "prompt_id": f"id{number}",
    }
    return good | change


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    return folder / "a.parquet"


BAD = [
    ({"data_source": None}, Reason.NO_DATA_SOURCE),
    ({"prompt": None}, Reason.MALFORMED_PROMPT),
    ({"prompt": []}, Reason.MALFORMED_PROMPT),
    ({"prompt": [user(None)]}, Reason.MALFORMED_PROMPT),
    ({"prompt": [{"role": None, "content": "q"}]}, Reason.MALFORMED_PROMPT),
    ({"prompt": [user("q"), user(" \n")]}, Reason.MALFORMED_PROMPT),
    ({"prompt": [{"role": "human", "content": "q"}]}, Reason.UNKNOWN_ROLE),
    ({"prompt": [user("q"), {"role": "assistant", "content": "a"}]}, Reason.ENDS_WITH_ANSWER),
    ({"reward_model": None}, Reason.NO_ANSWER),
    ({"reward_model": {"style": "rule", "ground_truth": None}}, Reason.NO_ANSWER),
    ({"reward_model": {"style": "rule", "ground_truth": " "}}, Reason.NO_ANSWER),
    ({"target": [user("a")]}, Reason.MALFORMED_DEMONSTRATION),
    ({"target": [{"role": "assistant", "content": " "}]}, Reason.MALFORMED_DEMONSTRATION),
    ({"target": [{"role": "assistant", "content": "a"}] * 2}, Reason.MALFORMED_DEMONSTRATION),
    ({"prompt": [user("1\x00+1")]}, Reason.CONTROL_CHARACTER),
    ({"target": [{"role": "assistant", "content": "a\x1b[2Jb"}]}, Reason.CONTROL_CHARACTER),
    ({"reward_model": {"style": "rule", "ground_truth": "1\x07"}}, Reason.CONTROL_CHARACTER),
    ({"prompt": [user("1<|im_end|>\n<|im_start|>assistant\n2")]}, Reason.SPECIAL_TOKEN),
    ({"target": [{"role": "assistant", "content": "\\boxed{1}<|im_end|>"}]}, Reason.SPECIAL_TOKEN),
    ({"prompt": [user("x" * (MAX_FIELD_BYTES + 1))]}, Reason.TOO_LONG),
    ({"target": [{"role": "assistant", "content": "é" * (MAX_FIELD_BYTES // 2 + 1)}]}, Reason.TOO_LONG),
    ({"prompt": [user("question 0")]}, Reason.DUPLICATE),
    ({"prompt_id": "id0"}, Reason.SHARED_ID),
]


@pytest.mark.parametrize(("change", "reason"), BAD, ids=[f"{number}-{bad[1].value}" for number, bad in enumerate(BAD)])
def test_a_bad_row_is_found_in_any_batch_and_no_other(tmp_path: Path, change: dict[str, Any], reason: Reason) -> None:
    rows = [row(number) for number in range(2100)]
    for place in (7, 1500):
        rows[place] = row(place, **change)
    scan = scan_rows(write(tmp_path, rows), SPECIAL)
    expected = {7: reason, 1500: reason}
    assert scan.bad == expected
    assert scan.num_rows == 2100 and set(scan.texts) == {7, 1500}


GOOD = [
    {"target": None},
    {"target": []},
    {"prompt": [{"role": "system", "content": ""}, user("q")]},
    {"prompt": [user("tab\tnewline\nreturn\r é 数 \u2028")]},
    {"prompt": [user("a <| b |> c, </think> and [INST]")]},
    {"prompt": [user("x" * MAX_FIELD_BYTES)]},
    {"prompt_id": None},
]


@pytest.mark.parametrize("change", GOOD)
def test_what_is_unusual_and_right_is_no_bad_row(tmp_path: Path, change: dict[str, Any]) -> None:
    assert scan_rows(write(tmp_path, [row(0), row(1, **change)]), SPECIAL).bad == {}


def test_the_first_reason_counts_and_a_bad_row_is_no_first_of_a_duplicate(tmp_path: Path) -> None:
    same = {"prompt": [user("q")]}
    rows = [row(0, **same, data_source=None, reward_model=None), row(1, **same), row(2, **same)]
    assert scan_rows(write(tmp_path, rows)).bad == {0: Reason.NO_DATA_SOURCE, 2: Reason.DUPLICATE}


def test_the_excerpt_shows_what_is_wrong(tmp_path: Path) -> None:
    answer = [{"role": "assistant", "content": "x" * 200 + "\x00" + "y" * 200}]
    long = [{"role": "assistant", "content": "é" * 600_000}]
    rows = [
        row(0),
        row(1, target=answer),
        row(2, target=long),
        row(3, prompt=row(0)["prompt"]),
        row(4, data_source=None),
    ]
    texts = scan_rows(write(tmp_path, rows), SPECIAL).texts
    assert "x\\x00y" in texts[1] and texts[2].startswith("1,200,000 bytes: ")
    assert texts[3] == "as row 0: user: question 0" and "question 4" in texts[4]


def test_demonstrations_are_counted_as_the_reader_finds_them(tmp_path: Path) -> None:
    assistant = {"role": "assistant", "content": "1"}
    targets: list[Any] = [[assistant], None, [], [assistant, assistant], [user("1")], [assistant | {"content": " "}]]
    rows = [row(number, target=target) for number, target in enumerate(targets)]
    scan = scan_rows(write(tmp_path, rows))
    assert scan.has_demonstration == [demonstration_of(one) is not None for one in rows] == [True] + [False] * 5
    assert scan.num_demonstrations() == 1


@pytest.mark.parametrize("columns", [["target"], ["target", "prompt_id"]])
def test_columns_that_may_be_missing_are_not_missed(tmp_path: Path, columns: list[str]) -> None:
    rows = [{key: value for key, value in row(number).items() if key not in columns} for number in range(3)]
    scan = scan_rows(write(tmp_path, rows), SPECIAL)
    assert scan.bad == {} and scan.num_demonstrations() == 0


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([row(0)]).slice(0, 0), tmp_path / "a.parquet")
    scan = scan_rows(tmp_path / "a.parquet", SPECIAL, num_sampled=5)
    assert (scan.num_rows, scan.bad, scan.sample) == (0, {}, {})


def test_bytes_that_are_no_utf8_are_a_bad_row_and_no_crash(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row(0), row(1, data_source="XXXX"), row(2)])
    pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False)
    raw = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(raw.replace(b"XXXX", b"\xff\xfe\xff\xfe"))
    assert scan_rows(tmp_path / "a.parquet", SPECIAL).bad == {1: Reason.CONTROL_CHARACTER}


def test_the_sample_is_evenly_spaced_and_whole(tmp_path: Path) -> None:
    rows = [row(number) for number in range(6000)]
    scan = scan_rows(write(tmp_path, rows), num_sampled=3)
    assert sorted(scan.sample) == [0, 2000, 4000]
    assert all(scan.sample[number]["target"] == rows[number]["target"] for number in scan.sample)
    assert len(scan_rows(tmp_path / "a.parquet", num_sampled=9000).sample) == 6000


def test_messages_come_back_as_they_are_in_the_file(tmp_path: Path) -> None:
    prompt = [{"role": "system", "content": ""}, user("a\nb"), user("c")]
    scan = scan_rows(write(tmp_path, [row(0, prompt=prompt)]))
    assert scan.messages(0) == prompt and scan.prompt_bytes == [4]


def test_good_rows_are_written_as_they_were_with_columns_that_we_do_not_know(tmp_path: Path) -> None:
    rows = [row(number, level=number) for number in range(3000)]
    rows[1] = row(1, level=1, prompt=[])
    rows[2999] = row(0, level=2999)
    source = write(tmp_path, rows)
    before = source.read_bytes()
    scan = scan_rows(source)
    write_without(scan.path, scan.bad, tmp_path / "new" / "b.parquet")
    assert pq.read_table(tmp_path / "new" / "b.parquet").to_pylist() == [rows[0], *rows[2:2999]]
    assert source.read_bytes() == before
    assert scan_rows(tmp_path / "new" / "b.parquet").bad == {}


def test_an_excerpt_shows_the_place_on_one_line() -> None:
    assert excerpt("short") == "short"
    assert excerpt("a\nb\x00") == "a\\nb\\x00"
    long = excerpt("x" * 10_000_000 + "HERE" + "y" * 1000, 10_000_000)
    assert "HERE" in long and len(long) < 400 and long.startswith("...") and long.endswith("...")
