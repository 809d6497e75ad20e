"""Reward by mathematical equivalence of the text after ``</think>``: for free-form answers.

verl finds it by ``reward.custom_reward_function.path=pkg://mifo_verl.rewards.math`` and ``name=compute_score``. For the
paper's data, where missing tags are 0, add ``+reward.custom_reward_function.reward_kwargs.require_think=true``.
"""

import re

from mifo_verl.rewards.boxed import normalise
from mifo_verl.rewards.extract import MAX_CHARS, PLACES, answer_part, final_line, last_boxed, last_formula
from mifo_verl.rewards.pool import CPU_SECONDS, OVER_LIMIT, Pool, pool_of
from mifo_verl.rewards.verdict import Verdict, binary, reward_function

CHECKER = "mifo_verl.rewards.math_check"


def verdict(
    text: str, answer: str, require_think: bool = False, cpu_seconds: float = CPU_SECONDS, pool: Pool | None = None
) -> Verdict:
    """Whether the answer that ``text`` ends with equals ``answer``, a plain string such as ``\\frac{1}{2}``.

    Of an ``answer`` that is a whole solution its last box, or its last line ``#### 42``, is taken. Of ``text`` only
    what follows the last ``</think>`` is read; without the tag, all of it, or, with ``require_think``, nothing: not
    correct. The answer of a text stands in its last ``<answer>``, else its last box, else its last line ``#### 42``,
    else it is what the text states last. Letter by letter the same is correct; all else is compared by value in a
    process of its own (``math_check``). What cannot be read within ``cpu_seconds`` of CPU time is
    correct where its last formula is the answer letter by letter, else not, with ``error`` set.
    """
    answered = answer_part(text, require_think)
    gold = (last_boxed(answer) or final_line(answer) or answer).strip()
    found = next((found for place in PLACES if (found := place(answered)) is not None), None)
    if not gold or len(gold) > MAX_CHARS or not answered.strip():
        return binary(False, found)
    if found is not None and normalise(found) == normalise(gold):
        return binary(True, found)
    reply, seconds = (pool or pool_of(CHECKER)).check({"gold": gold, "text": answered}, cpu_seconds)
    error = reply.get("error")
    if error in OVER_LIMIT and last_formula(answered) == gold:
        return binary(True, gold, seconds)
    method = reply.get("method", "none")
    return binary(bool(reply.get("correct")), reply.get("extracted") or found, seconds, error, method)


def is_readable(answer: str, pool: Pool | None = None) -> bool:
    """Whether ``verdict`` can compare a gold answer by more than its letters; not if it takes too long, or is a word
    for no answer."""
    gold = (last_boxed(answer) or final_line(answer) or answer).strip()
    if re.fullmatch(r"-?\d[\d.,]*|[A-J]", gold):
        return True
    return bool((pool or pool_of(CHECKER)).check({"gold": gold})[0].get("readable"))


def is_correct(text: str, answer: str, require_think: bool = False, cpu_seconds: float = CPU_SECONDS) -> bool:
    """Whether the answer that ``text`` ends with equals ``answer``: see ``verdict``."""
    return verdict(text, answer, require_think, cpu_seconds).correct


compute_score = reward_function(verdict, is_readable=is_readable)
