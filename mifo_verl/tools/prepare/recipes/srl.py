"""SRL (arXiv 2510.25992): worked solutions cut into steps, each to be written by the model from those before it."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mifo_verl.tools.prepare.recipe import FileRecipe, Row, Split, make_row, text_of
from mifo_verl.tools.prepare.sources import Dropped

INSTRUCTION = "Think between <think> and </think>, then write the next step of the solution and nothing else."
_NUMBERED = re.compile(r"^[ \t]*(?:#+[ \t]*)?(?:\*\*)?(?:Step[ \t]+)?(\d+)[.):]", re.MULTILINE | re.IGNORECASE)
_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")


@dataclass(frozen=True)
class Srl(FileRecipe):
    """SRL's steps of solutions (s1K-1.1): question=, solution=, id= name the columns; rewarded by similarity.

    A solution of n steps makes n - 1 rows: row k shows the steps before k, and its answer is step k. The last step,
    which has the answer, is never shown or asked for.
    """

    name = "srl"
    reward = "similarity"
    require_think = True
    has_demonstrations = False
    hub_train = "simplescaling/s1K-1.1::train"
    question: str = "question"
    solution: str = "deepseek_attempt"
    id: str = "id"

    def columns(self, present: Collection[str]) -> dict[str, str]:
        return {"question": self.question, "solution": self.solution}

    def several(self, record: dict[str, Any], split: Split, index: int) -> Iterator[Row | Dropped]:
        """The rows of a solution."""
        steps, question = steps_of(text_of(record, self.solution)), text_of(record, self.question)
        if not question:
            raise Dropped("no question")
        if len(steps) < 2:
            raise Dropped("fewer than two steps")
        number = text_of(record, self.id) or str(index)
        for k, step in enumerate(steps[:-1]):
            shown = "\n\n".join([question.strip(), *(["The solution so far:", *steps[:k]] if k else [])])
            prompt_id, asked = f"srl/{number}/{k + 1}", f"\n{INSTRUCTION}"
            try:
                yield make_row("srl", shown, step, None, split, index, prompt_id=prompt_id, instruction=asked)
            except Dropped as dropped:  # a step that is only a word such as "proof"
                yield dropped


def steps_of(solution: str) -> list[str]:
    """The steps of a solution: the items of its numbered list, else its paragraphs.

    Items are numbered from 1 without a gap, so that a number at the start of some other line cuts nothing. What stands
    before the first item belongs to it.
    """
    starts = [0]
    for match in _NUMBERED.finditer(solution):
        if int(match[1]) == len(starts):
            starts.append(match.start())
    if len(starts) > 2:
        cuts = [0, *starts[2:], len(solution)]
        return [step for start, end in pairwise(cuts) if (step := solution[start:end].strip())]
    return [step for part in _BLANK_LINES.split(solution) if (step := part.strip())]
