"""A file of one's own: which column is what stands on the command line."""

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import Any

from mifo_verl.data.demonstrations import prompt_id_of
from mifo_verl.errors import require
from mifo_verl.rewards.extract import last_boxed
from mifo_verl.tools.prepare.recipe import INSTRUCTION, FileRecipe, Row, Split, make_row, text_of
from mifo_verl.tools.prepare.recipes.published import bare
from mifo_verl.tools.prepare.sources import Dropped

_LAYOUTS = {
    "question": ("question", "problem", "prompt", "instruction", "query", "messages", "conversations"),
    "answer": ("answer", "expected_answer", "final_answer", "ground_truth"),
    "solution": ("solution", "generated_solution", "output", "response", "completion"),
}
"""The columns that are taken, the first that is there, where the command line names none: Alpaca's, ShareGPT's, chats."""
_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant"}


@dataclass(frozen=True)
class Own(FileRecipe):
    """JSON lines, CSV or parquet of your own: question=, answer=, solution=, id=, level= name its columns.

    The prompt's id is ``<source>/<id>``, so that two files with the same numbers can be trained on together. A question
    that is a conversation (``messages``, or ShareGPT's ``conversations``) ends before its last answer, which is the
    demonstration.
    """

    name = "own"
    question: str = "question"
    answer: str = "answer"
    """box takes the last box of the solution."""
    solution: str = "solution"
    """none for no demonstrations."""
    context: str = "input"
    """Stands below the question where a record has it, as in Alpaca's layout."""
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
        for name, other in (("solution", "answer"), ("solution", "question"), ("answer", "question")):
            column = getattr(self, other)
            rule = f"another column than {other}={column}: one column cannot be both"
            cure = "write solution=none without any" if name == "solution" else "name the column of the answers"
            require(getattr(self, name) != column, name, getattr(self, name), rule, cure)

    def fitted(self, head: list[dict[str, Any]]) -> "Own":
        """The columns of a known layout in the place of defaults that are not there; a box is the last resort."""
        present = {column for record in head for column in record}
        taken = {getattr(self, name) for name in _LAYOUTS}
        found = {}
        for name, (default, *others) in _LAYOUTS.items():
            if getattr(self, name) == default and default not in present:
                column = next((other for other in others if other in present - taken), default)
                found[name] = column
        if found.get("answer") == "answer" and (self.solution in present or {"solution", "question"} & found.keys()):
            has_box = any("\\boxed{" in str(record) for record in head)
            found["answer"] = "box" if has_box else "answer"
        return replace(self, **found)

    def columns(self, present: Collection[str]) -> dict[str, str]:
        """Question and answer, the solution if it is there, and what was named on the command line."""
        named = {"question": self.question} | ({} if self.answer == "box" else {"answer": self.answer})
        defaults = {field.name: field.default for field in fields(self)}
        for name in ("solution", "context", "id", "level"):
            column = getattr(self, name)
            if column != "none" and (column != defaults[name] or (name == "solution" and column in present)):
                named[name] = column
        return named

    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        """The row. A record without the columns of question and answer is dropped, with their names."""
        for column in (self.question, self.answer):
            if column not in record and column != "box":
                raise Dropped(f"no column {column}")
        solution = "" if self.solution == "none" else text_of(record, self.solution)
        messages = _messages(record[self.question])
        question = text_of(record, self.question)
        if messages:
            solution = solution or (messages.pop()["content"] if messages[-1]["role"] == "assistant" else "")
            question = messages[-1]["content"] if messages else ""
        question = "\n".join(filter(None, (question, text_of(record, self.context))))
        answer = bare((last_boxed(solution) or "") if self.answer == "box" else text_of(record, self.answer))
        if solution and self.box == "true" and "\\boxed{" not in solution:
            solution = f"{solution.rstrip()}\nThe answer is \\boxed{{{answer}}}."
        level, number = text_of(record, self.level), text_of(record, self.id)
        row = make_row(
            self.source,
            question,
            answer,
            solution or None,
            split,
            index,
            prompt_id=f"{self.source}/{number}" if number else None,
            level=int(level) if level.isdecimal() else None,
            instruction="" if self.instruction == "none" else self.instruction,
        )
        return row if len(messages) < 2 else _with_history(row, messages[:-1])


def _messages(value: Any) -> list[dict[str, str]]:
    """The messages of a conversation with roles user and assistant; empty if it is none. Raises Dropped on an image."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        return []
    named = [(one.get("role") or one.get("from"), one.get("content") or one.get("value")) for one in value]
    return [{"role": _ROLES.get(str(role), str(role)), "content": _text(told)} for role, told in named if role and told]


def _text(content: Any) -> str:
    """The text of a message, which may come in parts, ``[{"type": "text", "text": ...}]``."""
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    if any(not isinstance(text, str) for text in texts):
        raise Dropped("a message that is not text alone")
    return "".join(map(str, texts))


def _with_history(row: Row, before: list[dict[str, str]]) -> Row:
    """The row with what was said before its question; its id is the hash of all of it unless the record has one."""
    longer = row | {"prompt": [*before, *row["prompt"]]}
    own = row["prompt_id"] == prompt_id_of(row | {"prompt_id": None})
    return longer | ({"prompt_id": prompt_id_of(longer | {"prompt_id": None})} if own else {})
