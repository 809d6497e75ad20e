"""Rows that a probe may call held out: no training row has their id or asks their question."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from mifo_verl.data.demonstrations import prompt_id_of

Row = TypeVar("Row")


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


def spread(rows: Sequence[Row], number: int | None) -> list[Row]:
    """``number`` of the rows, evenly spaced; all of them where None or where there are no more."""
    if number is None or number >= len(rows):
        return list(rows)
    return [rows[place * len(rows) // number] for place in range(number)]
