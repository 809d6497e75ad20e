"""What the probes hand around: answers to prompts, held-out data, and what was measured before an SFT phase."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mifo_verl.types import SftExample

Row = dict[str, Any]
"""A row of verl's data set."""


@dataclass(frozen=True)
class Answer:
    """One answer to a prompt, as token ids."""

    prompt_ids: list[int]
    response_ids: list[int]
    is_correct: bool


@dataclass(frozen=True)
class Asked:
    """The answers to a prompt; one that failed on the way counts as wrong and is not among them."""

    source: str
    num_rollouts: int
    answers: list[Answer]

    @property
    def accuracy(self) -> float:
        return sum(answer.is_correct for answer in self.answers) / self.num_rollouts


@dataclass(frozen=True)
class HeldOut:
    """What the probes measure on."""

    rows: Sequence[Row]
    """The validation prompts that are asked."""
    demonstrations: list[SftExample]
    """None of them is trained on."""
    training_row: Callable[[str], Row | None]
    """The training row of a prompt's id."""


@dataclass
class Accuracies:
    """Accuracies on the three sets of prompts; None where a set is empty."""

    held_out: dict[str, float] | None = None
    """By data source, and their mean."""
    solved: float | None = None
    hard: float | None = None


@dataclass
class Before:
    """What was measured before an SFT phase. It is kept while the phase runs, in a checkpoint too."""

    cross_entropy_start: float | None
    """Before the RL phase of the interval."""
    cross_entropy: float | None
    solved: list[str]
    """Ids of the prompts that are asked as solved ones."""
    hard: list[str]
    accuracies: Accuracies = field(default_factory=Accuracies)
    rollouts: list[Answer] = field(default_factory=list)
    """The policy's own answers to held-out prompts."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Prompts of each set, demonstrations and rollouts; response tokens generated and passed forward so far."""

    def of_rl(self) -> dict[str, float | None]:
        """The fields of the record that ends the RL phase."""
        return {"cross_entropy_before": self.cross_entropy_start, "cross_entropy_after": self.cross_entropy}

    @classmethod
    def of(cls, saved: dict[str, Any]) -> "Before":
        """From ``asdict``."""
        answers = [Answer(**answer) for answer in saved["rollouts"]]
        return cls(**saved | {"rollouts": answers, "accuracies": Accuracies(**saved["accuracies"])})
