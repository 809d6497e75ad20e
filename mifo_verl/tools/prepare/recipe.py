"""A recipe: from a source to rows of verl's schema. Each is a frozen dataclass whose fields are its own settings."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, ClassVar, Literal

from mifo_verl.data.demonstrations import prompt_id_of
from mifo_verl.errors import nearest, require
from mifo_verl.rewards.extract import word_for_none
from mifo_verl.tools.prepare.sources import Dropped, read_records

Split = Literal["train", "validation"]
Row = dict[str, Any]
INSTRUCTION = "Reason step by step, and write the final answer in \\boxed{}."
_HEAD = 100
"""Records that are looked at before the first row, for the columns that settings name."""


@dataclass(frozen=True)
class Recipe(ABC):
    """What is common to all. The first line of a recipe's docstring is its help."""

    name: ClassVar[str]
    reward: ClassVar[str] = "math"
    """The kind of reward that verifies its demonstrations (``mifo_verl.rewards.kinds``)."""
    require_think: ClassVar[bool] = False
    has_demonstrations: ClassVar[bool] = True
    """Whether a training split without a demonstration is a mistake, unless ``demonstrations=optional``."""
    train: ClassVar[str] = ""
    """The source of the train split where the command line gives none; '' where it has to."""
    val: ClassVar[str] = ""

    @classmethod
    def says(cls) -> str:
        """What the recipe reads, in one line: the first of its docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]

    @abstractmethod
    def rows(self, split: Split, source: str) -> Iterator[Row | Dropped]:
        """The rows of a split, or why a record became none. Raises ValueError on a setting or file that is wrong."""


@dataclass(frozen=True)
class FileRecipe(Recipe):
    """A recipe that makes a row of each record of a file or of a hub data set."""

    hub_train: ClassVar[str] = ""
    """``name:config:split`` of the hub's data set, taken for ``train=hub``."""
    hub_val: ClassVar[str] = ""

    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        """The row of a record. Raises Dropped."""
        raise NotImplementedError

    def several(self, record: dict[str, Any], split: Split, index: int) -> Iterable[Row | Dropped]:
        """The rows of a record: its one, unless the recipe makes more. Raises Dropped."""
        return [self.row(record, split, index)]

    def columns(self, present: Collection[str]) -> dict[str, str]:
        """The columns that must hold texts or numbers, by setting, of records that have those of ``present``."""
        return {}

    def fitted(self, head: list[dict[str, Any]]) -> "FileRecipe":
        """The recipe with the columns that the first records have, where its settings name none."""
        return self

    def rows(self, split: Split, source: str) -> Iterator[Row | Dropped]:
        """A row, or the reason against it, for every record, in the order of the source."""
        setting, hub = ("train", self.hub_train) if split == "train" else ("val", self.hub_val)
        records = read_records(setting, source, hub)
        head = list(islice(records, _HEAD))
        whole = [record for record in head if not isinstance(record, Dropped)]
        reads = self.fitted(whole)
        present = list(dict.fromkeys(column for record in whole for column in record))
        for setting, column in reads.columns(present).items() if whole else ():
            _check_column(setting, column, present, whole)
        for index, record in enumerate(chain(head, records)):
            try:
                yield from [record] if isinstance(record, Dropped) else reads.several(record, split, index)
            except Dropped as dropped:
                yield dropped


def hashed(text: str) -> int:
    """A number below 2^64 that the text alone decides, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:8], "big")


def _check_column(setting: str, column: str, present: list[str], head: list[dict[str, Any]]) -> None:
    """Raise ValueError if a column is in none of the first records, or holds lists, booleans or JSON."""
    others = {"answer": "; answer=box takes the last box of the solution", "solution": "; solution=none is without any"}
    cure = f"the records have {', '.join(present)}{nearest(column, present)}{others.get(setting, '')}"
    require(column in present, setting, column, "a column of the records", cure)
    value = next((record[column] for record in head if record.get(column) is not None), "")
    inside = next(iter(value), None) if isinstance(value, list) else value
    if setting == "question" and isinstance(value, list) and isinstance(inside, dict):
        return  # a conversation
    kind = {list: "lists", dict: "objects", bool: "booleans"}.get(type(value)) or _json_kind(value)
    cure = f"choose another one, or a recipe that reads this data set{others.get(setting, '')}"
    require(not kind, setting, column, f"a column of texts or numbers, and it holds {kind}", cure)


def _json_kind(value: object) -> str:
    """What a text holds if it is an object of JSON, or a list of them; else empty."""
    try:
        found = json.loads(value) if isinstance(value, str) and value.lstrip()[:1] in ("{", "[") else None
    except ValueError:
        return ""
    found = found[0] if found and isinstance(found, list) else found
    return f"JSON with the keys {', '.join(found)}" if found and isinstance(found, dict) else ""


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
    if entry is None:
        answer = answer_of(answer)
    content = f"{question.strip()}\n{instruction}" if instruction else question.strip()
    demonstration = [{"role": "assistant", "content": solution}] if solution and solution.strip() else None
    row: Row = {
        "data_source": source,
        "prompt": [{"role": "user", "content": content}],
        "target": demonstration,
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": answer},
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
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    return ""


def _only_text(text: str) -> str:
    """The text in a JSON list of one; else the text itself."""
    try:
        found = json.loads(text) if text.startswith('["') else None
    except ValueError:
        return text
    return found[0].strip() if isinstance(found, list) and len(found) == 1 and isinstance(found[0], str) else text


def answer_of(text: str) -> str:
    """The answer, stripped. Raises Dropped if there is none, or only a word that stands for none, such as ``proof``.

    Of a JSON list of one text, as Skywork-OR1 writes it, that text.
    """
    answer = _only_text(text.strip())
    if (word := word_for_none(answer)) is not None:
        raise Dropped(f"no answer but the word {word}" if word else "no answer")
    return answer
