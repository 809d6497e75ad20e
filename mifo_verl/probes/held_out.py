"""What the probes measure on: rows and demonstrations that no training row has the id or the question of."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq

from mifo_verl.data.demonstrations import demonstration_of, prompt_id_of
from mifo_verl.settings import ProbeConfig
from mifo_verl.types import Rejection, SftExample

T = TypeVar("T")
Row = dict[str, Any]
"""A row of a data set."""


@dataclass(frozen=True)
class HeldOut:
    """What the probes measure on."""

    rows: Sequence[Row]
    """The validation prompts that are asked."""
    demonstrations: list[SftExample]
    """None of them is trained on."""
    training_row: Callable[[str], Row | None]
    """The training row of a prompt's id."""


def question_of(messages: Iterable[Mapping[str, Any]]) -> str:
    """What is asked: the user's texts with single blanks, whatever the system prompt."""
    return "\n".join(" ".join(str(one.get("content")).split()) for one in messages if one.get("role") == "user")


class TrainingPrompts:
    """The ids and questions of the training rows, and the place of every id."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.place: dict[str, int] = {}
        self._questions: set[str] = set()
        for place, row in enumerate(rows):
            self.place.setdefault(prompt_id_of(row), place)
            self._questions.add(question_of(row["prompt"]))

    def has(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is trained on."""
        return prompt_id_of(row) in self.place or question_of(row["prompt"]) in self._questions


def spread(rows: Sequence[T], number: int | None) -> list[T]:
    """``number`` of the rows, evenly spaced; all of them where None or where there are no more."""
    if number is None or number >= len(rows):
        return list(rows)
    return [rows[place * len(rows) // number] for place in range(number)]


def held_out(
    probe: ProbeConfig,
    training: Any,
    validation: Any,
    render: Callable[[Row], Sequence[int]],
    build: Callable[[Row, Sequence[int]], SftExample | Rejection],
    max_prompt_tokens: int,
    say: Callable[[str, str], None],
) -> HeldOut:
    """From verl's data sets. ``say`` takes (kind, text) of an event: what is held out, or why not.

    ``render`` gives a prompt's tokens, ``build`` the verified demonstration after them or the reason against it.
    """
    if not probe.around_sft:
        return HeldOut([], [], lambda _: None)
    trained = TrainingPrompts(_prompts_of(training.dataframe))
    rows = [validation[place] for place in spread(range(len(validation)), probe.prompts)]
    demonstrations: list[SftExample] = []
    if probe.demonstrations:
        name = probe.demonstration_file or "data.val_files"
        table = _table(probe.demonstration_file) if probe.demonstration_file else validation.dataframe
        dropped: Counter[str] = Counter()
        usable = [row for row in table if demonstration_of(row) is not None]
        own = [row for row in usable if not trained.has(row)]
        if len(own) < len(usable):
            dropped["trained_on"] = len(usable) - len(own)
        for row in spread(own, probe.demonstrations):
            prompt_ids = render(row | {"raw_prompt": row["prompt"]})
            built = build(row, prompt_ids) if len(prompt_ids) <= max_prompt_tokens else Rejection.TOO_LONG
            if isinstance(built, Rejection):
                dropped[built.value] += 1
            else:
                demonstrations.append(built)
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
