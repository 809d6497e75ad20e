"""The reward of a run, by data source, kind or path, as one function from a response to its verdict.

Training calls the same functions (``reward.custom_reward_function``), so that an accuracy means one thing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mifo_verl.registry import nearest
from mifo_verl.rewards import kinds
from mifo_verl.rewards.verdict import Verdict

AUTO = "auto"
_BY_SOURCE = {
    "addition/": "boxed",
    "reasoning_gym/": "reasoning_gym",
    "mmlu_pro": "choice",
    "gpqa": "choice",
    "arc_c": "choice",
}
"""The reward of a data source that is not judged by math, by its first letters."""


@dataclass(frozen=True)
class Scorer:
    """``reward`` is ``auto`` (by data source), a kind of ``mifo_verl.rewards.kinds``, or ``<file>.py:<function>``.

    With ``require_think``, a response without ``</think>`` is wrong, as in training on the paper's data.
    Raises ValueError on an unknown reward, and on a function of one's own whose signature does not fit.
    """

    reward: str = AUTO
    require_think: bool = False

    def __post_init__(self) -> None:
        if self.reward != AUTO:
            _scorer(self.reward, self.require_think)
        if self.require_think and ":" in self.reward:
            raise ValueError(f"require_think=true must go with a reward of mifo_verl, not {self.reward}; leave it away")

    def __call__(
        self, data_source: str, response: str, answer: str, extra_info: Mapping[str, Any] | None = None
    ) -> Verdict:
        """The verdict. Raises ValueError where a function of one's own returns no correctness of 0 or 1."""
        reward = self.reward if self.reward != AUTO else reward_of(data_source)
        row = {"data_source": data_source, "extra_info": dict(extra_info or {})}
        return _scorer(reward, self.require_think)(response, answer, row)


def reward_of(data_source: str) -> str:
    """The kind of reward that a data source is trained with."""
    return next((kind for start, kind in _BY_SOURCE.items() if data_source.startswith(start)), "math")


@lru_cache
def _scorer(reward: str, require_think: bool) -> kinds.Scorer:
    """One function for each reward, so that its processes are started once."""
    path, colon, name = reward.rpartition(":")
    if colon:
        return kinds.scorer("custom", path=path, name=name)
    named = [AUTO, *(kind for kind in kinds.KINDS if kind != "custom")]
    if reward not in named:
        raise ValueError(
            f"reward={reward} must be one of {', '.join(named)}{nearest(reward, named)}, or <file>.py:<function>; "
            "check the path"
        )
    return kinds.scorer(reward, require_think)
