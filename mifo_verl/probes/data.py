"""What the probes measure on, taken from the run's data sets before the first step."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mifo_verl.config import ProbeConfig
from mifo_verl.data.demonstrations import demonstration_of, prompt_id_of
from mifo_verl.data.sft_batch import Rejection
from mifo_verl.probes.held_out import TrainingPrompts, spread
from mifo_verl.probes.types import HeldOut, Row
from mifo_verl.types import SftExample
from mifo_verl.verl.hard_prompts import HardPrompts


def held_out(
    probe: ProbeConfig,
    training: Any,
    validation: Any,
    prompts: HardPrompts,
    max_prompt_tokens: int,
    say: Callable[[str, str], None],
) -> HeldOut:
    """From verl's data sets. ``say`` takes (kind, text) of an event: what is held out, or why not."""
    if not probe.around_sft:
        return HeldOut([], [], lambda _: None)
    trained = TrainingPrompts(_prompts_of(training.dataframe))
    rows = [validation[place] for place in spread(range(len(validation)), probe.prompts)]
    demonstrations: list[SftExample] = []
    if probe.demonstrations:
        name = probe.demonstration_file or "data.val_files"
        table = _table(probe.demonstration_file) if probe.demonstration_file else validation.dataframe
        demonstrations, dropped = _examples(table, trained, probe.demonstrations, prompts, max_prompt_tokens)
        text = f"{len(demonstrations)} held-out demonstrations of {name}"
        text += f", dropped: {dict(sorted(dropped.items()))}" if dropped else ""
        say("probe", text if demonstrations else f"{text}: their cross-entropy is not measured")

    def training_row(prompt_id: str) -> Row | None:
        place = trained.place.get(prompt_id)
        return None if place is None else training[place]

    return HeldOut(rows, demonstrations, training_row)


def measured_on(data: HeldOut, settings: Mapping[str, Any]) -> str:
    """A digest of what the probes measure on and of how prompts are asked: values of two of them are not compared."""
    rows = [[prompt_id_of(row), row.get("data_source")] for row in data.rows]
    examples = [[one.prompt_id, one.demonstration_sha256, one.prompt_ids] for one in data.demonstrations]
    text = json.dumps([rows, examples, settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _prompts_of(table: Any) -> Any:
    return table.select_columns([name for name in ("prompt", "prompt_id") if name in table.column_names])


def _table(path: str) -> list[dict[str, Any]]:
    return pq.read_table(Path(path).expanduser()).to_pylist()


def _examples(
    table: Any, trained: TrainingPrompts, number: int, prompts: HardPrompts, max_prompt_tokens: int
) -> tuple[list[SftExample], Counter[str]]:
    """(at most ``number`` demonstrations, evenly spaced over the usable rows; what was dropped, by reason)."""
    dropped: Counter[str] = Counter()
    usable = []
    for row in table:
        if demonstration_of(row) is None:
            continue
        if trained.has(row):
            dropped["trained_on"] += 1
        else:
            usable.append(row)
    examples = []
    for row in spread(usable, number):
        prompt_ids = prompts.render(row | {"raw_prompt": row["prompt"]})
        built = prompts.build(row, prompt_ids) if len(prompt_ids) <= max_prompt_tokens else Rejection.TOO_LONG
        if isinstance(built, Rejection):
            dropped[built.value] += 1
        else:
            examples.append(built)
    return examples, dropped
