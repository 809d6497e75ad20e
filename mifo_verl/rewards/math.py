"""Reward by mathematical equivalence (math-verify) of the text after ``</think>``: for free-form answers.

verl finds it by ``reward.custom_reward_function.path=pkg://mifo_verl.rewards.math`` and ``name=compute_score``. For the
paper's data, where missing tags are 0, add ``+reward.custom_reward_function.reward_kwargs.require_think=true``.
"""

from typing import Any

from mifo_verl.rewards.boxed import normalise
from mifo_verl.rewards.extract import MAX_CHARS, answer_part, final_line, last_boxed
from mifo_verl.rewards.pool import CPU_SECONDS, Pool, pool_of
from mifo_verl.rewards.verdict import Verdict, binary

CHECKER = "mifo_verl.rewards.math_check"


def verdict(
    text: str, answer: str, require_think: bool = False, cpu_seconds: float = CPU_SECONDS, pool: Pool | None = None
) -> Verdict:
    """Whether the answer that ``text`` ends with equals ``answer``, a plain string such as ``\\frac{1}{2}``.

    Of an ``answer`` that is a whole solution its last box, or its last line ``#### 42``, is taken. Of ``text`` only
    what follows the last ``</think>`` is read; without the tag, all of it, or, with ``require_think``, nothing: not
    correct. A last box, or else a last line ``#### 42``, that is the answer letter by letter is correct; all else is
    asked of math-verify, in a process of its own. What cannot be read within ``cpu_seconds`` of CPU time is not
    correct, with ``error`` set.
    """
    answered = answer_part(text, require_think)
    gold = (last_boxed(answer) or final_line(answer) or answer).strip()
    found = last_boxed(answered)
    if found is None:
        found = final_line(answered)
    if not gold or len(gold) > MAX_CHARS or not answered.strip():
        return binary(False, found)
    if found is not None and normalise(found) == normalise(gold):
        return binary(True, found)
    reply, seconds = (pool or pool_of(CHECKER)).check({"gold": gold, "text": answered}, cpu_seconds)
    return binary(bool(reply.get("correct")), reply.get("extracted") or found, seconds, reply.get("error"))


def is_correct(text: str, answer: str, require_think: bool = False, cpu_seconds: float = CPU_SECONDS) -> bool:
    """Whether the answer that ``text`` ends with equals ``answer``: see ``verdict``."""
    return verdict(text, answer, require_think, cpu_seconds).correct


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    require_think: bool = False,
    cpu_seconds: float = CPU_SECONDS,
    **_: Any,
) -> dict[str, float]:
    """``score`` 1.0 or 0.0, and ``acc``, the correctness, 1 or 0: apart, so that no one reads one off the other."""
    return verdict(solution_str, str(ground_truth), require_think, cpu_seconds).as_reward()
