"""GSM8K: grade-school word problems with worked human solutions."""

import re
from dataclasses import dataclass
from typing import Any

from mifo_verl.tools.prepare.recipe import FileRecipe, Row, Split, make_row, text_of
from mifo_verl.tools.prepare.sources import Dropped

_MARK = re.compile(r"<<[^<>]*>>")
_FINAL_LINE = re.compile(r"^[ \t]*####[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Gsm8k(FileRecipe):
    """GSM8K: question, answer (and solution, id), or the original answer whose last line is #### 42.

    A question without a worked solution is kept, with a null target.
    """

    name = "gsm8k"
    hub_train = "openai/gsm8k:main:train"
    hub_val = "openai/gsm8k:main:test"

    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        """The row; its id is the record's, or ``gsm8k-<split>-<index>``."""
        question = record.get("question")
        if not isinstance(question, str):
            raise Dropped("no question")
        solution, answer = _solution_and_answer(record)
        return make_row(
            "gsm8k",
            question,
            answer,
            None if solution is None else demonstration_text(solution, answer),
            split,
            index,
            prompt_id=text_of(record, "id") or f"gsm8k-{split}-{index}",
        )


def demonstration_text(solution: str, answer: str) -> str:
    """The solution as a demonstration: without ``<<48/2=24>>`` marks and ``####`` line, closed by the boxed answer."""
    text = _FINAL_LINE.sub("", _MARK.sub("", solution)).strip()
    return f"{text}\nThe answer is \\boxed{{{answer}}}."


def _solution_and_answer(record: dict[str, Any]) -> tuple[str | None, str]:
    """The worked solution, None where there is none, and the answer as a bare number: ``$1,250`` is ``1250``."""
    answer, solution = text_of(record, "answer"), record.get("solution")
    if not answer:
        raise Dropped("no answer")
    final = _FINAL_LINE.findall(answer)
    if final:
        solution, answer = answer, final[-1]
    number = answer.strip().replace(",", "").replace("$", "")
    if not _NUMBER.fullmatch(number):
        raise Dropped("answer is not a number")
    return (solution if isinstance(solution, str) and solution.strip() else None), number
