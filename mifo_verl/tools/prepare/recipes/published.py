"""Published sets: which columns hold question, answer, demonstration, id and level, and what has to be done to them."""

import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from mifo_verl.data.demonstrations import demonstration_of, prompt_id_of
from mifo_verl.errors import require
from mifo_verl.rewards.extract import THINK_END, last_boxed
from mifo_verl.tools.prepare.recipe import FileRecipe, Row, Split, answer_of, make_row, text_of
from mifo_verl.tools.prepare.sources import Dropped

FINAL_LINE = re.compile(r"^[ \t]*####[ \t]*(.*?)[ \t]*$", re.MULTILINE)
"""Where GSM8K writes its answers."""
_MARK = re.compile(r"<<[^<>]*>>")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_LONGEST_ANSWER = 100


@dataclass(frozen=True)
class Published(FileRecipe):
    """The columns, with blanks between several; the first that holds something is taken."""

    questions: ClassVar[str] = "question"
    answers: ClassVar[str] = "answer"
    solutions: ClassVar[str] = "solution"
    ids: ClassVar[str] = ""
    levels: ClassVar[str] = ""
    sources: ClassVar[str] = ""
    named: ClassVar[str] = ""
    """The data_source of rows without one of their own; '' for the recipe's name."""

    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        """The row; the level is the first whole number of its column."""
        level = re.search(r"(?<![-\d.])\d+", text_of(record, *self.levels.split()))
        return make_row(
            text_of(record, *self.sources.split()) or self.named or self.name,
            text_of(record, *self.questions.split()),
            bare(self.answer(record)),
            self.demonstration(record),
            split,
            index,
            prompt_id=text_of(record, *self.ids.split()) or None,
            level=None if level is None else int(level[0]),
        )

    def answer(self, record: dict[str, Any]) -> str:
        """The answer, perhaps in a box or between dollars. Raises Dropped."""
        return text_of(record, *self.answers.split())

    def demonstration(self, record: dict[str, Any]) -> str | None:
        """The whole text of the demonstration, if there is one."""
        text = text_of(record, *self.solutions.split())
        return with_tags(text) if self.require_think else text


@dataclass(frozen=True)
class Math(Published):
    """MATH, MATH-500 and the like: problem or question, solution, answer or a box in the solution, level, id."""

    name = "math"
    hub_train = "DigitalLearningGmbH/MATH-lighteval:default:train"
    hub_val = "HuggingFaceH4/MATH-500::test"
    questions, ids, levels = "problem question", "id unique_id", "level"
    source: str = ""
    """The data_source of the rows; without one it is the record's own source, or math."""

    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        made = super().row(record, split, index)
        return made | {"data_source": self.source or text_of(record, "source") or "math"}

    def answer(self, record: dict[str, Any]) -> str:
        return text_of(record, "answer") or last_boxed(text_of(record, "solution")) or ""

    def demonstration(self, record: dict[str, Any]) -> str | None:
        solution = text_of(record, "solution")
        return solution if last_boxed(solution) is not None else None


@dataclass(frozen=True)
class Gsm8k(Published):
    """GSM8K: question, answer (and solution, id), or the original answer whose last line is #### 42.

    A question without a worked solution is kept, with a null target.
    """

    name = "gsm8k"
    hub_train = "openai/gsm8k:main:train"
    hub_val = "openai/gsm8k:main:test"
    ids = "id"

    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        """The row; its id is the record's, or ``gsm8k-<split>-<index>``."""
        return super().row({"id": f"gsm8k-{split}-{index}"} | record, split, index)

    def answer(self, record: dict[str, Any]) -> str:
        """The answer as a bare number: ``$1,250`` is ``1250``."""
        answer = super().answer(record)
        number = (FINAL_LINE.findall(answer) or [answer])[-1].strip().replace(",", "").replace("$", "")
        if answer and not _NUMBER.fullmatch(number):
            raise Dropped("answer is not a number")
        return number

    def demonstration(self, record: dict[str, Any]) -> str | None:
        """The worked solution without ``<<48/2=24>>`` marks and ``####`` line, closed by the boxed answer."""
        own = super().answer(record)
        text = own if FINAL_LINE.search(own) else record.get("solution")
        if not isinstance(text, str) or not text.strip():
            return None
        text = FINAL_LINE.sub("", _MARK.sub("", text)).strip()
        return f"{text}\nThe answer is \\boxed{{{self.answer(record)}}}."


@dataclass(frozen=True)
class DeepMath(Published):
    """DeepMath-103K: question, final_answer, difficulty, r1_solution_1 to r1_solution_3."""

    name = "deepmath"
    require_think = True
    hub_train = "zwhe99/DeepMath-103K::train"
    answers, levels = "final_answer", "difficulty"
    trace: int = 1
    """Which of the three solutions is the demonstration."""

    def __post_init__(self) -> None:
        require(self.trace in (1, 2, 3), "trace", self.trace, "1, 2 or 3", "DeepMath has three solutions a question")

    def demonstration(self, record: dict[str, Any]) -> str | None:
        return with_tags(text_of(record, f"r1_solution_{self.trace}"))


@dataclass(frozen=True)
class S1k(Published):
    """s1K and s1K-1.1: question, solution, and a thinking trajectory with its attempt."""

    name = "s1k"
    require_think = True
    hub_train = "simplescaling/s1K-1.1::train"
    answers = "answer solution"
    model: str = "deepseek"
    """Whose trajectory, in sets that have several: deepseek or gemini."""

    def answer(self, record: dict[str, Any]) -> str:
        """A reference solution that holds no box and is no short answer cannot be checked: dropped."""
        answer = bare(super().answer(record))
        if len(answer) > _LONGEST_ANSWER:
            raise Dropped("no short answer")
        return answer

    def demonstration(self, record: dict[str, Any]) -> str | None:
        several, answer = record.get("thinking_trajectories"), self.answer(record)
        first = several[0] if isinstance(several, list) and several else ""
        thinking = text_of(record, f"{self.model}_thinking_trajectory") or str(first)
        attempt = text_of(record, f"{self.model}_attempt", "attempt")
        if not thinking or not attempt:
            return None
        told = f"\\boxed{{{answer}}}" if last_boxed(attempt) is None and bare(attempt) == answer else attempt.strip()
        return f"<think>\n{thinking.strip()}\n{THINK_END}\n\n{told}"


@dataclass(frozen=True)
class OpenR1Raw(Published):
    """OpenR1-Math-220k: problem, answer, generations and which of them its own checks call right; the first right one."""

    name, named = "openr1_220k", "openr1"
    require_think = True
    hub_train = "open-r1/OpenR1-Math-220k:default:train"
    questions, ids, sources = "problem", "uuid", "source"

    def demonstration(self, record: dict[str, Any]) -> str | None:
        """The first generation that is right and complete."""
        texts = record.get("generations") or []
        checks = (record.get("correctness_math_verify"), record.get("correctness_llama"))
        right = [any(check and place < len(check) and check[place] for check in checks) for place in range(len(texts))]
        complete = record.get("is_reasoning_complete") or [True] * len(texts)
        good = [text for text, ok, whole in zip(texts, right, complete, strict=False) if ok and whole]
        return with_tags(str(good[0])) if good else None


@dataclass(frozen=True)
class Prime(Published):
    """PRIME's SYNTHETIC-1 and sets like it: prompt, problem_id, and verification_info, JSON with ground_truth."""

    name = "prime"
    hub_train = "PrimeIntellect/verifiable-math-problems::train"
    questions, solutions, ids, sources = "prompt", "gold_standard_solution", "problem_id", "source"

    def answer(self, record: dict[str, Any]) -> str:
        info = record.get("verification_info")
        try:
            info = json.loads(info) if isinstance(info, str) else info
        except ValueError:
            info = None
        return text_of(info, "ground_truth") if isinstance(info, dict) else ""


@dataclass(frozen=True)
class Verl(FileRecipe):
    """files in verl's schema (DAPO-Math-17k, Skywork-OR1, GSM8K): data_source, prompt (messages), reward_model, target."""

    name = "verl"

    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        """The row; a target that is no single assistant message is null."""
        prompt, info = record.get("prompt"), record.get("extra_info")
        answer = (record.get("reward_model") or {}).get("ground_truth")
        if not isinstance(prompt, list) or not all(_is_message(message) for message in prompt) or not prompt:
            raise Dropped("no question")
        if isinstance(answer, bool) or not isinstance(answer, str | int):
            raise Dropped("no answer")
        level = info.get("level") if isinstance(info, dict) else None
        level = level if isinstance(level, int) and not isinstance(level, bool) else None
        row: Row = {
            "data_source": str(record.get("data_source") or self.name),
            "prompt": [{"role": message["role"], "content": message["content"]} for message in prompt],
            "target": None,
            "ability": str(record.get("ability") or "math"),
            "reward_model": {"style": "rule", "ground_truth": answer_of(str(answer))},
            "extra_info": {"split": split, "index": index, "level": level, "entry": None},
        }
        demonstration = demonstration_of(row | {"target": record.get("target")})
        if demonstration is not None:
            row["target"] = [{"role": "assistant", "content": demonstration.text}]
        return row | {"prompt_id": str(record.get("prompt_id") or prompt_id_of(row))}


@dataclass(frozen=True)
class OpenR1(Verl):
    """OpenR1-Math-46k-8192 and files of its schema: the columns as they are, checked, with an id of the prompt."""

    name = "openr1"
    require_think = True
    hub_train = "Elliott/Openr1-Math-46k-8192::train"


def bare(answer: str) -> str:
    """The answer without a box around it, and without one pair of dollars."""
    answer = (last_boxed(answer) or answer).strip()
    return answer[1:-1].strip() if re.fullmatch(r"\$[^$]+\$", answer) else answer


def with_tags(text: str) -> str | None:
    """The text with its opening tag, which DeepSeek-R1's chat template takes away; None for an empty text."""
    text = text.strip()
    if THINK_END in text and not text.startswith("<think>"):
        text = f"<think>\n{text}"
    return text or None


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))
