"""A file of one's own: which column is what stands on the command line."""

from dataclasses import dataclass
from typing import Any

from mifo_verl.errors import require
from mifo_verl.tools.prepare.recipe import FileRecipe
from mifo_verl.tools.prepare.recipes.competition import bare
from mifo_verl.tools.prepare.rows import INSTRUCTION, Dropped, Row, Split, make_row, text_of


@dataclass(frozen=True)
class Own(FileRecipe):
    """JSON lines, CSV or parquet of your own: question=, answer=, solution=, id=, level= name its columns.

    The prompt's id is ``<source>/<id>``, so that two files with the same numbers can be trained on together.
    """

    name = "own"
    question: str = "question"
    answer: str = "answer"
    solution: str = "solution"
    id: str = "id"
    level: str = "level"
    source: str = "own"
    """The data_source of the rows."""
    instruction: str = INSTRUCTION
    """The line after every question; none for no line."""
    box: str = "false"
    """true: a solution without a box is closed by the boxed answer."""

    def __post_init__(self) -> None:
        require(self.box in ("true", "false"), "box", self.box, "true or false", "leave it out for false")

    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        """The row. A record without the columns of question and answer is dropped, with their names."""
        for column in (self.question, self.answer):
            if column not in record:
                raise Dropped(f"no column {column}")
        answer, solution = bare(text_of(record, self.answer)), text_of(record, self.solution)
        if solution and self.box == "true" and "\\boxed{" not in solution:
            solution = f"{solution.rstrip()}\nThe answer is \\boxed{{{answer}}}."
        level, number = text_of(record, self.level), text_of(record, self.id)
        return make_row(
            self.source,
            text_of(record, self.question),
            answer,
            solution or None,
            split,
            index,
            prompt_id=f"{self.source}/{number}" if number else None,
            level=int(level) if level.isdecimal() else None,
            instruction="" if self.instruction == "none" else self.instruction,
        )
