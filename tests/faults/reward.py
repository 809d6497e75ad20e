"""The addition task's reward, with a place to die in."""

from typing import Any

from mifo_verl.rewards import boxed
from tests.faults.points import reach


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None):
    reach("reward")
    return boxed.compute_score(data_source, solution_str, ground_truth, extra_info)
