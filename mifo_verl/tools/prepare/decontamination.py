"""Training questions that are evaluation questions, or share 13 words in a row with one."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mifo_verl.errors import require
from mifo_verl.tools.prepare.recipe import text_of
from mifo_verl.tools.prepare.sources import Dropped, read_records

NGRAM_WORDS = 13
_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words, normalised: compatibility characters unified, case folded, without punctuation and LaTeX's signs."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class EvaluationSets:
    """The questions of some files, looked up by their words and by every 13 words in a row.

    A question of fewer than 13 words is found only whole.
    """

    def __init__(self) -> None:
        self._whole: dict[str, str] = {}
        self._ngrams: dict[str, str] = {}
        self.num_questions: dict[str, int] = {}

    def add(self, name: str, questions: Iterable[str]) -> None:
        """Add the questions of a set; a question of two sets counts for the first."""
        for question in questions:
            words = words_of(question)
            if not words:
                continue
            self.num_questions[name] = self.num_questions.get(name, 0) + 1
            self._whole.setdefault(" ".join(words), name)
            for ngram in _ngrams(words):
                self._ngrams.setdefault(ngram, name)

    def find(self, question: str) -> tuple[str, str] | None:
        """``("exact" or "13-gram", name of the set)``, or None for a question that is in no set."""
        words = words_of(question)
        whole = self._whole.get(" ".join(words))
        if whole is not None:
            return "exact", whole
        return next((("13-gram", self._ngrams[ngram]) for ngram in _ngrams(words) if ngram in self._ngrams), None)


def read_sets(paths: Iterable[str]) -> EvaluationSets:
    """The sets of these files: ``question``, ``problem`` or ``prompt`` (messages or text) of every record.

    Raises ValueError on a file that cannot be read or has no question.
    """
    sets = EvaluationSets()
    for path in paths:
        name = Path(path).name.split(".")[0]
        records = (record for record in read_records("decontaminate", path) if not isinstance(record, Dropped))
        sets.add(name, map(_question, records))
        cure = "its records need a field question, problem or prompt"
        require(sets.num_questions.get(name, 0) > 0, "decontaminate", path, "a file with questions", cure)
    return sets


def _question(record: dict[str, Any]) -> str:
    prompt = record.get("prompt")
    if isinstance(prompt, list):
        users = [m.get("content") for m in prompt if isinstance(m, dict) and m.get("role") == "user"]
        return str(users[-1]) if users else ""
    return text_of(record, "question", "problem", "prompt")


def _ngrams(words: list[str]) -> Iterator[str]:
    for start in range(len(words) - NGRAM_WORDS + 1):
        yield " ".join(words[start : start + NGRAM_WORDS])
