"""GSM8K (grade-school word problems with worked human solutions) as rows of verl's schema, from a local file.

Two formats are read, as JSON lines or gzipped: ``question``, ``answer``, ``solution`` (and ``id``), and the original
``question``, ``answer`` whose last line is ``#### 42``.
"""

import gzip
import json
import re
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from mifo_verl.types import require

INSTRUCTION = "Reason step by step, and write the final answer in \\boxed{}."
_MARK = re.compile(r"<<[^<>]*>>")
_FINAL_LINE = re.compile(r"^[ \t]*####[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def read_rows(
    path: Path, split: Literal["train", "validation"], system: str | None = None, max_rows: int | None = None
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The rows, in the file's order, and how many lines were dropped, by reason.

    ``system`` is put in front as a system message. ``max_rows`` counts rows kept. A question without a worked solution
    is kept, with a null target. Raises ValueError where the file is missing or cannot be read.
    """
    require(path.is_file(), f"{split} file", path, "a file that exists", "give the path of a .jsonl or .jsonl.gz")
    rows: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    for index, line in enumerate(_lines(path)):
        if max_rows is not None and len(rows) >= max_rows:
            break
        try:
            rows.append(_row(_record(line), split, system, index))
        except _Malformed as reason:
            dropped[str(reason)] += 1
    return rows, dropped


def demonstration_text(solution: str, answer: str) -> str:
    """The solution as a demonstration: without ``<<48/2=24>>`` marks and ``####`` line, closed by the boxed answer."""
    text = _FINAL_LINE.sub("", _MARK.sub("", solution)).strip()
    return f"{text}\nThe answer is \\boxed{{{answer}}}."


class _Malformed(Exception):
    """The reason why a line is dropped."""


def _lines(path: Path) -> list[str]:
    """The lines that are not blank."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"file={path} must be UTF-8 text, gzipped where it ends in .gz; {error}") from None
    return [line for line in text.split("\n") if line.strip()]


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        raise _Malformed("not JSON") from None
    if not isinstance(record, dict):
        raise _Malformed("not JSON")
    return record


def _row(record: dict[str, Any], split: str, system: str | None, index: int) -> dict[str, Any]:
    question = record.get("question")
    if not isinstance(question, str) or not question.strip():
        raise _Malformed("no question")
    solution, answer = _solution_and_answer(record)
    target = None
    if solution is not None:
        target = [{"role": "assistant", "content": demonstration_text(solution, answer)}]
    user = {"role": "user", "content": f"{question.strip()}\n{INSTRUCTION}"}
    return {
        "data_source": "gsm8k",
        "prompt": [{"role": "system", "content": system}, user] if system else [user],
        "target": target,
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {"split": split, "index": index, "level": None},
        "prompt_id": str(record.get("id") or f"gsm8k-{split}-{index}"),
    }


def _solution_and_answer(record: dict[str, Any]) -> tuple[str | None, str]:
    """The worked solution, None where there is none, and the answer as a bare number: ``$1,250`` is ``1250``."""
    answer, solution = record.get("answer"), record.get("solution")
    if not isinstance(answer, str | int | float) or isinstance(answer, bool):
        raise _Malformed("no answer")
    final = _FINAL_LINE.findall(str(answer))
    if final:
        solution, answer = answer, final[-1]
    number = str(answer).strip().replace(",", "").replace("$", "")
    if not _NUMBER.fullmatch(number):
        raise _Malformed("answer is not a number")
    return (solution if isinstance(solution, str) and solution.strip() else None), number
