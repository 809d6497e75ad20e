"""Reward by exact match of the last boxed answer: for answers that are written in one way, such as integers.

verl finds it by ``reward.custom_reward_function.path=pkg://mifo_verl.rewards.boxed`` and ``name=compute_score``.
"""

import re

from mifo_verl.rewards.extract import MAX_CHARS, answer_part, last_boxed
from mifo_verl.rewards.verdict import Verdict, binary, reward_function

_INTEGER = re.compile(r"([+-]?)(\d+|\d{1,3}(?:,\d{3})+)", re.ASCII)


def normalise(answer: str) -> str:
    """The answer without spaces around it; an integer also without leading zeros, commas or plus: ``007`` is ``7``."""
    answer = answer.strip()
    match = _INTEGER.fullmatch(answer)
    if match is None:
        return answer
    digits = match[2].replace(",", "").lstrip("0") or "0"
    return "-" + digits if match[1] == "-" and digits != "0" else digits


def verdict(text: str, answer: str, require_think: bool = False) -> Verdict:
    """Whether the last box of ``text``, or with ``require_think`` of what follows ``</think>``, is ``answer``.

    No box is wrong. At most ``MAX_CHARS`` are read, from the end.
    """
    found = last_boxed(answer_part(text, True) if require_think else text[-MAX_CHARS:])
    return binary(found is not None and normalise(found) == normalise(answer), found)


def is_correct(text: str, answer: str) -> bool:
    """Whether the last boxed answer of ``text`` is ``answer``; no box is not correct."""
    return verdict(text, answer).correct


compute_score = reward_function(verdict)
