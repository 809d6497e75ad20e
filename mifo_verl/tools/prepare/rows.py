"""One row of verl's schema from a question, an answer and perhaps a demonstration; what a recipe yields."""

from typing import Any, Literal

from mifo_verl.data.demonstrations import prompt_id_of

Split = Literal["train", "validation"]
Row = dict[str, Any]
INSTRUCTION = "Reason step by step, and write the final answer in \\boxed{}."


class Dropped(Exception):
    """A record that becomes no row, and why. Raised for one record, yielded by a recipe."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def make_row(
    source: str,
    question: str,
    answer: str,
    solution: str | None,
    split: Split,
    index: int,
    *,
    prompt_id: str | None = None,
    level: int | None = None,
    instruction: str = INSTRUCTION,
    ability: str = "math",
    entry: str | None = None,
) -> Row:
    """The row. Without a ``prompt_id`` it is the hash of the prompt, which does not depend on the order of a file.

    ``solution`` is the demonstration's whole text, or None. Raises Dropped without a question or an answer.
    """
    if not question.strip():
        raise Dropped("no question")
    if not answer.strip():
        raise Dropped("no answer")
    content = f"{question.strip()}\n{instruction}" if instruction else question.strip()
    demonstration = [{"role": "assistant", "content": solution}] if solution and solution.strip() else None
    row: Row = {
        "data_source": source,
        "prompt": [{"role": "user", "content": content}],
        "target": demonstration,
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": answer.strip()},
        "extra_info": {"split": split, "index": index, "level": level, "entry": entry},
    }
    return row | {"prompt_id": prompt_id or prompt_id_of(row)}


def with_system(row: Row, system: str | None) -> Row:
    """The row with another system message; ``none`` takes it out, None leaves the prompt as it is."""
    if system is None:
        return row
    others = [message for message in row["prompt"] if message["role"] != "system"]
    return row | {"prompt": others if system == "none" else [{"role": "system", "content": system}, *others]}


def question_of(row: Row) -> str:
    """The last user message without our instruction."""
    content = next((m["content"] for m in reversed(row["prompt"]) if m["role"] == "user"), "")
    return str(content).removesuffix(f"\n{INSTRUCTION}")


def text_of(record: dict[str, Any], *names: str) -> str:
    """The first of these fields that holds a text or a number, as a text; '' where none does."""
    for name in names:
        value = record.get(name)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    return ""
