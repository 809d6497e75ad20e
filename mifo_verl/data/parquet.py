"""Rows on disk: writing them in verl's schema, and checking a file before a run rather than at step 400."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mifo_verl.types import require

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", _MESSAGES),
        ("target", _MESSAGES),
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


def check_columns(path: str | Path, setting: str = "data.train_files") -> None:
    """Pass where every row can be trained on: its prompt, ground truth, source, and target where it has one.

    A missing or null target is fine: the prompt has no demonstration. Raises ValueError, naming ``setting``, on a file
    or column that is missing, a wrong type, or the first row with a null or an empty value.
    """
    schema = _schema(path, setting)
    for column, rule, well_formed in (
        ("data_source", "a string", _is_string),
        ("prompt", "a list of messages with role and content", _is_messages),
        ("reward_model", "a struct with the string ground_truth", _is_reward_model),
        ("target", "null or a list of messages with role and content", _is_messages_or_null),
    ):
        index = schema.get_field_index(column)
        if index < 0 and column == "target":
            continue
        where = f"{path}: column {column}"
        require(index >= 0, setting, where, f"present and {rule}", "see 'Data' in the README for the columns")
        found = schema.field(index).type
        require(well_formed(found), setting, f"{where} of type {found}", rule, "prepare the file again")
    _check_values(path, setting, has_target=not _is_null(schema, "target"))


def count_demonstrations(path: str | Path) -> tuple[int, int]:
    """(rows, rows with a demonstration), counted as ``demonstration_of`` does, of a file that ``check_columns`` passed.

    Nothing is verified: whether a demonstration is right is for the reward to say.
    """
    file = pq.ParquetFile(path)
    num_rows, num_demonstrations = file.metadata.num_rows, 0
    if _is_null(file.schema_arrow, "target"):
        return num_rows, 0
    for batch in _batches(path, ["target", "reward_model.ground_truth"]):
        target = batch.column("target")
        one = pc.equal(pc.list_value_length(target), 1)
        message = pc.list_element(target.filter(one.fill_null(False)), 0)
        truth = pc.struct_field(batch.column("reward_model"), "ground_truth").filter(one.fill_null(False))
        good = pc.equal(pc.struct_field(message, "role"), "assistant")
        for text in (pc.struct_field(message, "content"), pc.cast(truth, pa.string())):
            good = pc.and_(good, pc.match_substring_regex(text, r"\S"))
        num_demonstrations += pc.sum(good.fill_null(False)).as_py() or 0
    return num_rows, num_demonstrations


def _schema(path: str | Path, setting: str) -> pa.Schema:
    require(Path(path).is_file(), setting, path, "a file that exists", "python -m mifo_verl.data makes one")
    try:
        return pq.read_schema(path)
    except pa.ArrowException as error:
        raise ValueError(f"{setting}={path} must be a parquet file; {error}") from None


def _batches(path: str | Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    yield from pq.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS, columns=columns)


def _check_values(path: str | Path, setting: str, has_target: bool) -> None:
    """Raise on the first row with a null or empty prompt, ground truth, source, or target message."""
    columns = ["data_source", "prompt", "reward_model.ground_truth"] + ["target"] * has_target
    first = 0
    for batch in _batches(path, columns):
        bad = {
            "data_source": pc.is_null(batch.column("data_source")),
            "prompt": _bad_messages(batch.column("prompt"), may_be_null=False),
            "reward_model.ground_truth": _blank(pc.struct_field(batch.column("reward_model"), "ground_truth")),
        }
        if has_target:
            bad["target"] = _bad_messages(batch.column("target"), may_be_null=True)
        for column, rows in bad.items():
            row = pc.index(rows, True).as_py()
            where = f"{path}: row {first + row}, column {column}"
            require(row < 0, setting, where, "neither null nor empty", "drop the row or fill it in")
        first += batch.num_rows


def _blank(text: pa.Array) -> pa.Array:
    return pc.invert(pc.match_substring_regex(pc.cast(text, pa.string()), r"\S").fill_null(False))


def _bad_messages(messages: pa.Array, may_be_null: bool) -> pa.Array:
    """True for a list without messages or with a null role or content; a null list as ``may_be_null`` says."""
    flat, parent = pc.list_flatten(messages), pc.list_parent_indices(messages)
    null = pc.or_(pc.is_null(pc.struct_field(flat, "role")), pc.is_null(pc.struct_field(flat, "content")))
    with_null = pc.is_in(pa.array(range(len(messages)), pa.int64()), value_set=parent.filter(null).cast(pa.int64()))
    length = pc.list_value_length(messages)
    empty = pa.array([False] * len(messages)) if may_be_null else pc.equal(length, 0).fill_null(True)
    return pc.or_(empty, with_null)


def _is_null(schema: pa.Schema, column: str) -> bool:
    """Whether the column is absent, or by its type holds no message: nulls and empty lists alone."""
    index = schema.get_field_index(column)
    return index < 0 or _is_untyped(schema.field(index).type)


def _is_string(found: pa.DataType) -> bool:
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found))


def _has_string(found: pa.DataType, name: str) -> bool:
    index = found.get_field_index(name) if pa.types.is_struct(found) else -1
    return index >= 0 and _is_string(found.field(index).type)


def _is_messages(found: pa.DataType) -> bool:
    is_list = pa.types.is_list(found) or pa.types.is_large_list(found)
    return is_list and _has_string(found.value_type, "role") and _has_string(found.value_type, "content")


def _is_messages_or_null(found: pa.DataType) -> bool:
    return _is_untyped(found) or _is_messages(found)


def _is_untyped(found: pa.DataType) -> bool:
    """The type that a column of nulls, or of nulls and empty lists, is written with."""
    return bool(pa.types.is_null(found.value_type if pa.types.is_list(found) else found))


def _is_reward_model(found: pa.DataType) -> bool:
    return _has_string(found, "ground_truth")
