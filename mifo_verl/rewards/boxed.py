"""Reward by exact match of the last boxed answer: for answers that are written in one way, such as integers.

verl finds it by ``reward.custom_reward_function.path=pkg://mifo_verl.rewards.boxed`` and ``name=compute_score``.
"""

import re
from typing import Any

from mifo_verl.rewards.extract import last_boxed

_INTEGER = re.compile(r"([+-]?)(\d+|\d{1,3}(?:,\d{3})+)", re.ASCII)


def normalise(answer: str) -> str:
    """The answer without spaces around it; an integer also without leading zeros, commas or plus: ``007`` is ``7``."""
    answer = answer.strip()
    match = _INTEGER.fullmatch(answer)
    if match is None:
        return answer
    digits = match[2].replace(",", "").lstrip("0") or "0"
    return "-" + digits if match[1] == "-" and digits != "0" else digits


def is_correct(text: str, answer: str) -> bool:
    """Whether the last boxed answer of ``text`` is ``answer``; no box is not correct."""
    found = last_boxed(text)
    return found is not None and normalise(found) == normalise(answer)


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **_: Any
) -> dict[str, float]:
    """``score`` 1.0 or 0.0, and ``acc``, the correctness, 1 or 0: apart, so that no one reads one off the other."""
    correct = is_correct(solution_str, ground_truth)
    return {"score": float(correct), "acc": int(correct)}
