"""Sets with a strong model's reasoning: the trace between think tags, then what it answered."""

import re
from dataclasses import dataclass
from typing import Any

from mifo_verl.errors import require
from mifo_verl.rewards.extract import THINK_END, last_boxed
from mifo_verl.tools.prepare.recipe import FileRecipe, Row, Split, make_row, text_of
from mifo_verl.tools.prepare.recipes.competition import bare
from mifo_verl.tools.prepare.sources import Dropped

_LONGEST_ANSWER = 100


@dataclass(frozen=True)
class DeepMath(FileRecipe):
    """DeepMath-103K: question, final_answer, difficulty, r1_solution_1 to r1_solution_3."""

    name = "deepmath"
    require_think = True
    hub_train = "zwhe99/DeepMath-103K::train"
    trace: int = 1
    """Which of the three solutions is the demonstration."""

    def __post_init__(self) -> None:
        require(self.trace in (1, 2, 3), "trace", self.trace, "1, 2 or 3", "DeepMath has three solutions a question")

    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        """The row; its level is the difficulty, rounded down."""
        difficulty = re.match(r"\d+", text_of(record, "difficulty"))
        return make_row(
            "deepmath",
            text_of(record, "question"),
            bare(text_of(record, "final_answer")),
            with_tags(text_of(record, f"r1_solution_{self.trace}")),
            split,
            index,
            level=None if difficulty is None else int(difficulty[0]),
        )


@dataclass(frozen=True)
class S1k(FileRecipe):
    """s1K and s1K-1.1: question, solution, and a thinking trajectory with its attempt."""

    name = "s1k"
    require_think = True
    hub_train = "simplescaling/s1K-1.1::train"
    model: str = "deepseek"
    """Whose trajectory, in sets that have several: deepseek or gemini."""

    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        """The row. A reference solution that holds no box and is no short answer cannot be checked: dropped."""
        solution = text_of(record, "answer", "solution")
        answer = bare(solution)
        if len(answer) > _LONGEST_ANSWER:
            raise Dropped("no short answer")
        trajectory = record.get("thinking_trajectories")
        first = trajectory[0] if isinstance(trajectory, list) and trajectory else ""
        thinking = text_of(record, f"{self.model}_thinking_trajectory") or str(first)
        attempt = text_of(record, f"{self.model}_attempt", "attempt")
        text = f"<think>\n{thinking.strip()}\n{THINK_END}\n\n{attempt.strip()}" if thinking and attempt else None
        if text is not None and last_boxed(attempt) is None and bare(attempt) == answer:
            text = f"<think>\n{thinking.strip()}\n{THINK_END}\n\n\\boxed{{{answer}}}"
        return make_row("s1k", text_of(record, "question"), answer, text, split, index)


def with_tags(text: str) -> str | None:
    """The text with its opening tag, which DeepSeek-R1's chat template takes away; None for an empty text."""
    text = text.strip()
    if THINK_END in text and not text.startswith("<think>"):
        text = f"<think>\n{text}"
    return text or None
