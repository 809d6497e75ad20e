"""MATH and sets like it: problems with a level and a human solution that ends in a box."""

import re
from dataclasses import dataclass
from typing import Any

from mifo_verl.rewards.extract import last_boxed
from mifo_verl.tools.prepare.recipe import FileRecipe, Row, Split, make_row, text_of
from mifo_verl.tools.prepare.sources import Dropped


@dataclass(frozen=True)
class Math(FileRecipe):
    """MATH, MATH-500 and the like: problem or question, solution, answer or a box in the solution, level, id."""

    name = "math"
    hub_train = "DigitalLearningGmbH/MATH-lighteval:default:train"
    hub_val = "HuggingFaceH4/MATH-500::test"
    source: str = ""
    """The data_source of the rows; without one it is the record's own source, or math."""

    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        """The row; the answer is the record's, else the last box of its solution."""
        solution = text_of(record, "solution")
        answer = text_of(record, "answer") or last_boxed(solution) or ""
        if not answer:
            raise Dropped("no answer")
        level = re.search(r"\d+", text_of(record, "level"))
        return make_row(
            self.source or text_of(record, "source") or "math",
            text_of(record, "problem", "question"),
            bare(answer),
            solution if last_boxed(solution) is not None else None,
            split,
            index,
            prompt_id=text_of(record, "id", "unique_id") or None,
            level=None if level is None else int(level[0]),
        )


def bare(answer: str) -> str:
    """The answer without a box around it, and without one pair of dollars."""
    answer = (last_boxed(answer) or answer).strip()
    return answer[1:-1].strip() if re.fullmatch(r"\$[^$]+\$", answer) else answer
