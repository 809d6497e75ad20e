"""Records come from every format alike, and what cannot be read is an error that names the setting and the file."""

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mifo_verl.tools.prepare.sources import Dropped, read_records

RECORDS = [{"question": 'a,\n"b" ü', "answer": "1"}, {"question": "c", "answer": "2"}]


def read(path: Path) -> list[object]:
    return [str(one) if isinstance(one, Dropped) else one for one in read_records("train", str(path))]


def test_every_format_gives_the_same_records(tmp_path: Path) -> None:
    lines = "".join(json.dumps(record) + "\n\n" for record in RECORDS)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    (tmp_path / "a.json").write_text(json.dumps(RECORDS, indent=1))
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(RECORDS)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.jsonl.gz", "a.json", "a.csv", "a.csv.gz", "a.parquet"):
        assert read(tmp_path / name) == RECORDS, name


def test_lines_that_are_no_objects_are_dropped_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('3\n{"a": 1}\n[1]\n{\n' + "[" * 100_000 + '\n{"a": 2}')
    assert read(tmp_path / "a.jsonl") == ["not a JSON object", {"a": 1}, *["not a JSON object"] * 3, {"a": 2}]
    (tmp_path / "a.json").write_text('[{"a": 1}, 2]')
    assert read(tmp_path / "a.json") == [{"a": 1}, "not a JSON object"]
    (tmp_path / "a.csv").write_text("a,b\n1,2\n1,2,3\n")
    assert read(tmp_path / "a.csv") == [{"a": "1", "b": "2"}, "more cells than columns"]


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv"):
        (tmp_path / name).write_text("")
        assert read(tmp_path / name) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "must be a file named .jsonl, .json, .csv, .parquet"),
        ("a.jsonl", b'{"a": "\xff"}', "must be a readable .jsonl file in UTF-8"),
        ("a.jsonl.gz", b"not gzip", "must be a readable .jsonl file"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}' * 1000, mtime=0)[:-20], "must be a readable .jsonl file"),
        ("a.parquet", b"not parquet", "must be a readable .parquet file"),
        ("a.json", b"[1, 2", "must be a readable .json file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^val=.*{name} {message}"):
        list(read_records("val", str(tmp_path / name)))


def test_a_hub_data_set_needs_a_name_and_a_split() -> None:
    for source in ("hub", "hub:org/name", "hub::x:train"):
        with pytest.raises(ValueError, match=r"train=hub:.* must be hub:<name>:<config>:<split>"):
            list(read_records("train", source))


def test_a_hub_data_set_that_cannot_be_fetched_is_an_error_to_fix() -> None:
    pytest.importorskip("datasets")
    with pytest.raises(
        ValueError, match=r"train=hub:no-such-org/no-such-set::train must be a data set that the hub gives"
    ):
        list(read_records("train", "hub:no-such-org/no-such-set::train"))
