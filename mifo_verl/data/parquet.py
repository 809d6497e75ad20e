"""Rows on disk: writing them in verl's schema, and checking a file before a run rather than at step 400."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mifo_verl.errors import require

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", MESSAGES),
        ("target", MESSAGES),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct([("split", pa.string()), ("index", pa.int64()), ("level", pa.int64()), ("entry", pa.string())]),
        ),
        ("prompt_id", pa.string()),
    ]
)

_BATCH_ROWS = 4096


def write_rows(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the rows; the same rows give the same bytes. The folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), path, compression="zstd")


def write_with(table: pa.Table, columns: Mapping[str, pa.Array], path: Path) -> None:
    """Write a table with these columns set and all others as they are."""
    for name, column in columns.items():
        place = table.schema.get_field_index(name)
        table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def write_without(source: Path, left_out: Iterable[int], path: Path) -> None:
    """Write a file's rows but these to another, batch by batch, all columns as they were; it is whole or not there."""
    file = pq.ParquetFile(source)
    kept, first, temporary = np.ones(file.metadata.num_rows, bool), 0, path.with_suffix(".tmp")
    kept[list(left_out)] = False
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(temporary, file.schema_arrow, compression="zstd") as writer:
        for batch in file.iter_batches(_BATCH_ROWS):
            writer.write_batch(batch.filter(pa.array(kept[first : first + batch.num_rows])))
            first += batch.num_rows
    temporary.replace(path)


def check_columns(path: str | Path, setting: str = "data.train_files") -> None:
    """Pass where every column that a run reads is there and of its type; ``bad_rows`` looks at the values.

    A missing or null target is fine: the prompt has no demonstration. Raises ValueError, naming ``setting``, on a file
    or column that is missing, or a wrong type.
    """
    require(Path(path).is_file(), setting, path, "a file that exists", "mifo data makes one")
    try:
        schema = pq.read_schema(path)
    except pa.ArrowException as error:
        raise ValueError(f"{setting}={path} must be a parquet file; {error}") from None
    for column, rule, well_formed in (
        ("data_source", "a string", _is_string),
        ("prompt", "a list of messages with role and content", _is_messages),
        ("reward_model", "a struct with the string ground_truth", lambda found: _has_texts(found, "ground_truth")),
        (
            "target",
            "null or a list of messages with role and content",
            lambda found: is_untyped(found) or _is_messages(found),
        ),
        ("extra_info", "a struct", lambda found: pa.types.is_null(found) or pa.types.is_struct(found)),
    ):
        index = schema.get_field_index(column)
        if index < 0 and column in ("target", "extra_info"):
            continue
        where = f"{path}: column {column}"
        require(index >= 0, setting, where, f"present and {rule}", "see 'Data' in the README for the columns")
        found = schema.field(index).type
        require(well_formed(found), setting, f"{where} of type {found}", rule, "prepare the file again")


def find_demonstrations(target: pa.Array) -> pa.Array:
    """True for the rows of a column ``target`` that ``demonstration_of`` would read, given an answer.

    Nothing is verified: whether a demonstration is right is for the reward to say.
    """
    one = pc.equal(pc.list_value_length(target), 1).fill_null(False)
    message = pc.list_element(target.filter(one), 0)
    text = pc.match_substring_regex(pc.struct_field(message, "content"), r"\S")
    good = pc.and_(pc.equal(pc.struct_field(message, "role"), "assistant"), text).fill_null(False)
    return pc.replace_with_mask(one, one, good)


def count_demonstrations(path: str | Path) -> tuple[int, int]:
    """(rows, rows with a demonstration) of a file that ``check_columns`` passed, without reading a text into Python."""
    file = pq.ParquetFile(path)
    target = file.schema_arrow.get_field_index("target")
    if target < 0 or is_untyped(file.schema_arrow.field(target).type):
        return file.metadata.num_rows, 0
    batches = file.iter_batches(batch_size=_BATCH_ROWS, columns=["target"])
    counts = [pc.sum(find_demonstrations(batch.column("target"))).as_py() or 0 for batch in batches]
    return file.metadata.num_rows, sum(counts)


def is_untyped(found: pa.DataType) -> bool:
    """Whether this is the type that a column of nulls, or of nulls and empty lists, is written with."""
    return bool(pa.types.is_null(found.value_type if pa.types.is_list(found) else found))


def _has_texts(found: pa.DataType, *names: str) -> bool:
    """Whether this is a struct with these fields, all strings."""
    places = [found.get_field_index(name) if pa.types.is_struct(found) else -1 for name in names]
    return all(place >= 0 and _is_string(found.field(place).type) for place in places)


def _is_string(found: pa.DataType) -> bool:
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found))


def _is_messages(found: pa.DataType) -> bool:
    is_list = pa.types.is_list(found) or pa.types.is_large_list(found)
    return is_list and _has_texts(found.value_type, "role", "content")
