"""Reward by how alike the answer and an expert's step are (SRL, arXiv 2510.25992); only the same step is correct.

verl finds it by ``reward.custom_reward_function.path=pkg://mifo_verl.rewards.similarity`` and ``name=compute_score``.
SRL's models think first: ``+reward.custom_reward_function.reward_kwargs.require_think=true``.
"""

from difflib import SequenceMatcher
from typing import Any

from mifo_verl.rewards.extract import answer_part
from mifo_verl.rewards.pool import CPU_SECONDS, Pool, pool_of
from mifo_verl.rewards.verdict import Verdict, reward_function, shortened

CHECKER = "mifo_verl.rewards.similarity"
BAD_FORMAT = -1.0
"""The score without ``</think>``, if that is required, and of an empty answer."""


def verdict(
    text: str, answer: str, require_think: bool = False, cpu_seconds: float = CPU_SECONDS, pool: Pool | None = None
) -> Verdict:
    """The ratio 2M/T of the text behind ``</think>`` and the step ``answer``, in [0, 1]; correct is a ratio of 1 alone.

    Without ``</think>`` all of ``text`` is read, or with ``require_think`` nothing. The time grows with the product of
    the two lengths, so texts are compared in a process of its own: over ``cpu_seconds`` of CPU time the score is 0,
    with ``error`` set.
    """
    step = answer_part(text, require_think).strip()
    if not step:
        return Verdict(BAD_FORMAT, False)
    reply, seconds = (pool or pool_of(CHECKER)).check({"answer": step, "expert": answer.strip()}, cpu_seconds)
    ratio = float(reply.get("ratio", 0.0))
    return Verdict(ratio, ratio == 1.0, shortened(step), seconds, reply.get("error"))


def check(request: dict[str, Any]) -> dict[str, Any]:
    """What runs inside a checker. ``SequenceMatcher`` depends on the order of the two: the model's answer comes first.

    Its junk heuristic is off: from 200 characters on it would find nothing in common between near-copies.
    """
    return {"ratio": SequenceMatcher(None, request["answer"], request["expert"], autojunk=False).ratio()}


def warm_up() -> None:
    """Nothing to load."""


compute_score = reward_function(verdict)
