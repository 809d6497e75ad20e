"""The records of a file or of a hub data set, one after the other."""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mifo_verl.errors import require


class Dropped(Exception):
    """A record that becomes no row, and why. Raised for one record, yielded by a recipe."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


_FORMATS = (".jsonl", ".json", ".csv", ".parquet")
_LONGEST_CELL = 1 << 26


def read_records(setting: str, source: str, hub: str = "") -> Iterator[dict[str, Any] | Dropped]:
    """The records of ``source``: a .jsonl, .json, .csv (each also .gz) or .parquet file, or a data set of the hub.

    A data set is ``hub:<name>:<config>:<split>``, with an empty config for the only one and ``@<commit>`` behind a name
    to pin it; ``hub`` alone is the recipe's.
    A line that holds no object is yielded as Dropped. Raises ValueError, naming ``setting``, on what cannot be read.
    """
    if source == "hub" or source.startswith("hub:"):
        yield from _hub(setting, hub if source == "hub" else source.removeprefix("hub:"))
        return
    path = Path(source)
    require(path.is_file(), setting, source, "a file that exists", "give the path of a .jsonl, .csv or .parquet file")
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    require(kind in _FORMATS, setting, source, f"a file named {', '.join(_FORMATS)}", "rename or convert it")
    try:
        if kind == ".parquet":
            for batch in pq.ParquetFile(path).iter_batches(1024):
                yield from batch.to_pylist()
            return
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig") as file:  # a mark of the byte order is no part of the first line
            yield from _csv(file) if kind == ".csv" else _json(file)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, pa.ArrowException) as error:
        raise ValueError(f"{setting}={source} must be a readable {kind} file in UTF-8 ({error}); repair it") from None


def _json(file: IO[str]) -> Iterator[dict[str, Any] | Dropped]:
    """The objects of JSON lines, or of one JSON list."""
    start = file.read(1)
    if start == "[":
        try:
            values = json.loads(start + file.read())
        except ValueError as error:
            raise OSError(f"no JSON list: {error}") from None
        yield from (value if isinstance(value, dict) else Dropped("not a JSON object") for value in values)
        return
    for line in chain([start + file.readline()], file):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            yield value if isinstance(value, dict) else Dropped("not a JSON object")


def _csv(file: IO[str]) -> Iterator[dict[str, Any] | Dropped]:
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.DictReader(file, strict=True)
    try:
        if len(names := reader.fieldnames or []) == 1 and (other := next((c for c in ";\t|" if c in names[0]), "")):
            raise OSError(f"its cells are separated by {other!r}, not by commas")
        for record in reader:
            yield Dropped("more cells than columns") if None in record else record
    except csv.Error as error:
        raise OSError(f"line {reader.line_num}: {error}") from None


_HUB = re.compile(r"([^:@]+)(?:@([0-9a-f]{40}))?:([^:]*):([^:]+)")


def _hub(setting: str, name: str) -> Iterator[dict[str, Any]]:
    """The records of a hub data set; the datasets library downloads it once and keeps it."""
    match = _HUB.fullmatch(name)
    if match is None:
        raise ValueError(
            f"{setting}=hub:{name} must be hub:<name>:<config>:<split> or hub:<name>@<40 digits of a commit>:<config>:"
            "<split>; leave the config empty for the only one, as in hub:org/name::train"
        )
    repository, commit, config, split = match.groups()
    try:
        from datasets import load_dataset
    except ImportError:
        raise ValueError(
            f"{setting}=hub:{name} must be read by the package datasets; run pip install datasets"
        ) from None
    try:
        data = load_dataset(repository, config or None, split=split, revision=commit)
    except Exception as error:  # the hub's own errors are of many classes; none of them is the data's
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(
            f"{setting}=hub:{name} must be a data set that the hub gives ({why}); check name and network, or give "
            "a file"
        ) from None
    if commit and not all(commit in file["filename"] for file in data.cache_files):  # offline: whatever was kept last
        raise ValueError(f"{setting}=hub:{name} must be kept at this commit to be read without the hub; go online once")
    yield from data
