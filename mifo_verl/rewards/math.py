"""Reward by mathematical equivalence (math-verify) of the text after ``</think>``: for free-form answers.

verl finds it by ``reward.custom_reward_function.path=pkg://mifo_verl.rewards.math`` and ``name=compute_score``. For the
paper's data, where missing tags are 0, add ``+reward.custom_reward_function.reward_kwargs.require_think=true``.
"""

from typing import Any

from mifo_verl.rewards.boxed import normalise
from mifo_verl.rewards.extract import after_think, last_boxed
from mifo_verl.rewards.math_process import equivalent

MAX_PARSED_CHARS = 4000
"""math-verify reads no more than this, from the end: an answer ends a response, and long text is slow to parse."""


def is_correct(text: str, answer: str, require_think: bool = False, timeout_seconds: float = 5.0) -> bool:
    """Whether the answer that ``text`` ends with equals ``answer``, a plain string such as ``\\frac{1}{2}``.

    Only what follows the last ``</think>`` is read; without the tag, all of ``text``, or, with ``require_think``,
    nothing: not correct. An answer that cannot be parsed within ``timeout_seconds`` is not correct.
    """
    answered = after_think(text)
    if answered is None:
        if require_think:
            return False
        answered = text
    answered = answered[-MAX_PARSED_CHARS:]
    gold = last_boxed(answer) or answer.strip()
    found = last_boxed(answered)
    if found is not None and normalise(found) == normalise(gold):
        return True
    return bool(gold and answered.strip()) and equivalent(gold, answered, timeout_seconds)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    require_think: bool = False,
    timeout_seconds: float = 5.0,
    **_: Any,
) -> dict[str, float]:
    """``score`` 1.0 or 0.0, and ``acc``, the correctness, 1 or 0: apart, so that no one reads one off the other."""
    correct = is_correct(solution_str, str(ground_truth), require_think, timeout_seconds)
    return {"score": float(correct), "acc": int(correct)}
