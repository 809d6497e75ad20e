"""The data set that a run trained on, as its ledger has to match it: rows, demonstrations, hashes by prompt."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mifo_verl.data.demonstrations import demonstration_of, prompt_id_of
from mifo_verl.data.parquet import count_demonstrations

_COLUMNS = ("prompt", "target", "reward_model", "prompt_id")
_BATCH_ROWS = 2048


@dataclass(frozen=True)
class DataSet:
    """What a ledger is held against."""

    num_rows: int
    num_demonstrations: int | None
    """Rows with a well-formed demonstration, verified or not; None where they were not counted."""


def named_files(names: Iterable[str]) -> list[Path]:
    """The files of ``data=``. Raises ValueError where one is no parquet file: a slip of the hand is no fault."""
    files = [Path(name) for name in names]
    for file in files:
        try:
            pq.ParquetFile(file).close()
        except (ValueError, OSError):
            raise ValueError(
                f"data={file} must be a parquet file that exists; "
                "name the run's training files, or leave data= out to take data.train_files of its config"
            ) from None
    return files


def find_files(config: dict[str, Any], folder: Path) -> list[Path]:
    """The training files that the config names, looked for from here and from the folders above the run's.

    Raises ValueError where one is in none of them.
    """
    named = config["data"]["train_files"]
    found = []
    for name in [named] if isinstance(named, str) else named:
        places = [Path(name), *(parent / name for parent in folder.resolve().parents)]
        existing = [place for place in places if place.is_file()]
        if not existing:
            raise ValueError(f"data.train_files={name} must be a file that exists; say where it is with data=<file>")
        found.append(existing[0])
    return found


def count(files: Sequence[Path], most_bytes: float = math.inf) -> DataSet:
    """Rows and demonstrations, without reading a text into Python; of larger files the rows alone."""
    if sum(file.stat().st_size for file in files) > most_bytes:
        return DataSet(sum(pq.ParquetFile(file).metadata.num_rows for file in files), None)
    counts = [count_demonstrations(file) for file in files]
    return DataSet(sum(rows for rows, _ in counts), sum(demonstrations for _, demonstrations in counts))


def hashes(files: Iterable[Path], wanted: set[str]) -> dict[str, set[str]]:
    """The sha256 of the demonstrations of the prompts ``wanted``, by prompt id; a prompt without one has none."""
    found: dict[str, set[str]] = {}
    for file in files:
        parquet = pq.ParquetFile(file)
        columns = [name for name in _COLUMNS if name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            for row in batch.to_pylist():
                prompt_id = prompt_id_of(row)
                if prompt_id in wanted:
                    demonstration = demonstration_of(row)
                    text = set() if demonstration is None else {_sha256(demonstration.text)}
                    found[prompt_id] = found.get(prompt_id, set()) | text
    return found


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
