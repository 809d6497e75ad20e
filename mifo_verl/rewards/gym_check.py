"""What runs inside a checker for reasoning-gym: the scorer of the entry's own family."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import reasoning_gym

from mifo_verl.rewards.gym import read_entry


def check(request: dict[str, Any]) -> dict[str, Any]:
    """The family's score of an answer, from 0 to 1. Raises where the entry is malformed."""
    entry = read_entry(request["entry"])
    return {"score": float(_scorer(entry["metadata"]["source_dataset"])(request["answer"], entry))}


@cache
def _scorer(family: str) -> Callable[[str, dict[str, Any]], float]:
    return reasoning_gym.get_score_answer_fn(family)


def warm_up() -> None:
    """One check, of the family that needs least."""
    check({"entry": json.dumps(reasoning_gym.create_dataset("chain_sum", size=1, seed=0)[0]), "answer": "1"})
