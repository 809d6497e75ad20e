"""One record of a benchmark, in the column names that the published sets use, as question and answer."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

_QUESTION = ("question", "problem", "Question")
_ANSWER = ("answer", "final_answer", "answerKey", "Correct Answer", "ground_truth")
_FINAL_LINE = re.compile(r"^[ \t]*####[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def question_and_answer(record: Mapping[str, Any], where: str) -> tuple[str, str]:
    """The text to ask and the answer to expect; of a multiple-choice record the choices follow, A to Z, and the answer
    is a letter.

    Choices are ``choices`` or ``options`` (a list, or ARC's texts with labels), or GPQA's one correct and three
    incorrect answers, put in an order that the question's own hash decides. GSM8K's answer is what follows ``####``.
    Raises ValueError, naming ``where``, without a question or an answer.
    """
    question = _first(record, _QUESTION)
    answer = _first(record, _ANSWER)
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        answer = ", ".join(map(str, answer))  # OlympiadBench lists its answers
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"benchmarks: {where} must have a text in one of {', '.join(_QUESTION)}; correct the file")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or not str(answer).strip():
        raise ValueError(f"benchmarks: {where} must have a value in one of {', '.join(_ANSWER)}; correct the file")
    text, wanted = question.strip(), str(answer).strip()
    choices, letter = _choices(record, text, wanted)
    if choices:
        listed = "\n".join(f"{mark}. {choice}" for mark, choice in zip(_LETTERS, choices, strict=False))
        return f"{text}\n\n{listed}", letter
    final = _FINAL_LINE.findall(wanted)
    return text, (final[-1].replace(",", "") if final else _bare(wanted))


def _choices(record: Mapping[str, Any], question: str, answer: str) -> tuple[list[str], str]:
    """The choices in order and the letter of the right one; no choices where the question is free-form."""
    if "Incorrect Answer 1" in record:
        choices = [answer, *(str(record[f"Incorrect Answer {number}"]).strip() for number in (1, 2, 3))]
        order = list(range(4))
        Random(hashlib.sha256(question.encode()).hexdigest()).shuffle(order)
        return [choices[place] for place in order], _LETTERS[order.index(0)]
    given = record.get("choices") or record.get("options")
    if not given:
        return [], answer
    if isinstance(given, Mapping):
        texts, labels = list(given["text"]), [str(label) for label in given["label"]]
        return texts, _LETTERS[labels.index(answer)] if answer in labels else answer
    texts = [str(choice) for choice in given]
    return texts, answer if len(answer) == 1 and answer in _LETTERS[: len(texts)] else _LETTERS[texts.index(answer)]


def _bare(answer: str) -> str:
    """The answer without one pair of dollars around it."""
    inside = answer[1:-1]
    return inside.strip() if answer == f"${inside}$" and inside and "$" not in inside else answer


def _first(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)
