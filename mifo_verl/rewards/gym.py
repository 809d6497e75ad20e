"""Reward by reasoning-gym's own scorers, for rows of the ``reasoning_gym`` recipe: partial scores, strict correctness.

verl finds it by ``reward.custom_reward_function.path=pkg://mifo_verl.rewards.gym`` and ``name=compute_score``.
"""

import json
from collections.abc import Mapping
from typing import Any

from mifo_verl.rewards.extract import answer_part, answer_tag, last_boxed
from mifo_verl.rewards.pool import CPU_SECONDS, Pool, pool_of
from mifo_verl.rewards.verdict import Verdict, reward_function, shortened

CHECKER = "mifo_verl.rewards.gym_check"


def answer_of(text: str) -> str:
    """What stands in the last ``<answer>...</answer>``, else in the last box, else the whole text, stripped."""
    tagged = answer_tag(text)
    boxed = last_boxed(text) if tagged is None else tagged
    return text.strip() if boxed is None else boxed


def verdict(
    text: str,
    entry: str,
    require_think: bool = False,
    cpu_seconds: float = CPU_SECONDS,
    pool: Pool | None = None,
) -> Verdict:
    """reasoning-gym's score of the answer in ``text``; correct is a score of 1 alone.

    ``entry`` is the question's entry as JSON, with ``metadata.source_dataset``, the name of its family. The scorer runs
    in a process of its own; over ``cpu_seconds`` of CPU time the score is 0, with ``error`` set.
    """
    found = answer_of(answer_part(text, require_think))
    reply, seconds = (pool or pool_of(CHECKER)).check({"entry": entry, "answer": found}, cpu_seconds)
    score = float(reply.get("score", 0.0))
    return Verdict(score, score >= 1.0, shortened(found), seconds, reply.get("error"))


def entry_of(extra_info: Mapping[str, Any] | None) -> str:
    """The entry in a row's ``extra_info``. Raises ValueError where it has none."""
    entry = (extra_info or {}).get("entry")
    if not isinstance(entry, str) or not entry:
        raise ValueError(
            f"extra_info.entry={entry!r:.80} must be an entry of reasoning-gym as JSON; "
            "make the rows with mifo data reasoning_gym"
        )
    return entry


def read_entry(text: str) -> dict[str, Any]:
    """The entry of its JSON; marked with ``tuples``, its lists are tuples, which some scorers compare with.

    Raises ValueError if it is no entry.
    """
    entry = json.loads(text)
    if not isinstance(entry, dict) or not isinstance(entry.get("metadata"), dict):
        raise ValueError("an entry must be an object with metadata")
    return {key: _tuples(value) for key, value in entry.items()} if entry.get("tuples") else entry


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return {key: _tuples(item) for key, item in value.items()} if isinstance(value, dict) else value


compute_score = reward_function(verdict, entry_of)
