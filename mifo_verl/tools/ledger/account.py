"""The account of a run's data: how many demonstrations, prompts and tokens, and which share of the data set."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mifo_verl.data.demonstrations import demonstration_of, prompt_id_of
from mifo_verl.data.parquet import count_demonstrations
from mifo_verl.tools.run_files import RunFiles

_COLUMNS = ("prompt", "target", "reward_model", "prompt_id")


@dataclass(frozen=True)
class DataSet:
    """What a ledger is held against."""

    num_rows: int
    num_demonstrations: int | None
    """Rows with a well-formed demonstration, verified or not; None if they were not counted."""


@dataclass(frozen=True)
class Account:
    """Counts of one run; a share is None if the data set was not at hand."""

    demonstrations: int
    """Uses of a demonstration: the lines of the ledger."""
    members: int
    """Of these, demonstrations among the rollouts."""
    distinct_demonstrations: int
    distinct_sft_prompts: int
    """Prompts whose demonstration was used."""
    uses: dict[int, int]
    """Uses of a demonstration -> how many demonstrations were used so often."""
    response_tokens: int
    kept_tokens: int
    """Tokens in the loss, or that a rollout begins with."""
    rollouts: int
    rl_prompts: int | None
    """Prompts that got rollouts, each as often as it was drawn; None if the run kept no ``prompts.jsonl``."""
    distinct_rl_prompts: int | None
    rows: int | None
    rows_with_demonstration: int | None
    share_of_demonstrations: float | None
    """Of the rows with a demonstration, those whose demonstration was used."""
    share_of_prompts: float | None
    """Distinct prompts used in RL among the rows of the data set."""


def account(run: RunFiles, data: DataSet | None) -> Account:
    """The account of what the records say; whether they are right is for the audit."""
    used = Counter(line["demonstration_sha256"] for line in run.ledger)
    sft_prompts = {line["prompt_id"] for line in run.ledger}
    drawn = None if run.prompts is None else [prompt[0] for line in run.prompts for prompt in line["prompts"]]
    rl_prompts = None if drawn is None else len(set(drawn))
    rows, demonstrations = (None, None) if data is None else (data.num_rows, data.num_demonstrations)
    return Account(
        demonstrations=len(run.ledger),
        members=len(run.members),
        distinct_demonstrations=len(used),
        distinct_sft_prompts=len(sft_prompts),
        uses=dict(sorted(Counter(used.values()).items())),
        response_tokens=sum(line["response_tokens"] for line in run.ledger),
        kept_tokens=sum(line["kept_tokens"] for line in run.ledger),
        rollouts=sum(line["rollouts"] for line in run.rl),
        rl_prompts=None if drawn is None else len(drawn),
        distinct_rl_prompts=rl_prompts,
        rows=rows,
        rows_with_demonstration=demonstrations,
        share_of_demonstrations=len(sft_prompts) / demonstrations if demonstrations else None,
        share_of_prompts=rl_prompts / rows if rows and rl_prompts is not None else None,
    )


def named_files(names: Iterable[str]) -> list[Path]:
    """The files of ``data=``. Raises ValueError if one is no parquet file: a slip of the hand is no fault."""
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

    Raises ValueError if one is in none of them.
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
        for batch in parquet.iter_batches(batch_size=2048, columns=columns):
            for row in _possible(batch, wanted).to_pylist():
                prompt_id = prompt_id_of(row)
                if prompt_id in wanted:
                    demonstration = demonstration_of(row)
                    text = set() if demonstration is None else {hashlib.sha256(demonstration.text.encode()).hexdigest()}
                    found[prompt_id] = found.get(prompt_id, set()) | text
    return found


def _possible(batch: pa.RecordBatch, wanted: set[str]) -> pa.RecordBatch:
    """The rows whose prompt id is wanted, or has to be made of the prompt."""
    if "prompt_id" not in batch.schema.names or not pa.types.is_string(batch.schema.field("prompt_id").type):
        return batch
    ids = batch.column("prompt_id")
    return batch.filter(pc.or_(pc.is_in(ids, value_set=pa.array(wanted, pa.string())), pc.is_null(ids)))
