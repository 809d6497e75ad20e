"""The reward of a run, by name or by path, as one function from a response to its verdict.

Training calls the same functions (``reward.custom_reward_function``), so that an accuracy means one thing.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mifo_verl.registry import nearest
from mifo_verl.rewards import boxed, math

AUTO = "auto"
_NAMED: dict[str, Callable[..., Any]] = {"math": math.compute_score, "boxed": boxed.compute_score}
_BY_SOURCE = {"addition/": "boxed"}
"""The reward of a data source whose task names another than math (``trainer_configs/task/``), by its first letters."""


@dataclass(frozen=True)
class Verdict:
    """What a reward says of a response: the score that RL maximises, and whether the answer is right."""

    score: float
    correct: bool


@dataclass(frozen=True)
class Scorer:
    """``reward`` is ``auto`` (by data source), ``math``, ``boxed`` or ``<file>.py:<function>`` with verl's signature.

    With ``require_think``, a response without ``</think>`` is wrong under ``math``, as in training on the paper's data.
    """

    reward: str = AUTO
    require_think: bool = False

    def __post_init__(self) -> None:
        if self.reward != AUTO:
            _function(self.reward)
        if self.require_think and self.reward not in (AUTO, "math"):
            raise ValueError(f"require_think=true must go with reward=math, not {self.reward}; leave it away")

    def __call__(
        self, data_source: str, response: str, answer: str, extra_info: Mapping[str, Any] | None = None
    ) -> Verdict:
        """The verdict. Raises ValueError where the reward returns no correctness of 0 or 1."""
        name = self.reward if self.reward != AUTO else reward_of(data_source)
        settings = {"require_think": True} if self.require_think and name == "math" else {}
        result = _function(name)(
            data_source=data_source,
            solution_str=response,
            ground_truth=answer,
            extra_info=dict(extra_info or {}),
            **settings,
        )
        # a plain number stands for both, as in verl
        score, acc = (result["score"], result.get("acc")) if isinstance(result, Mapping) else (result, result)
        if acc not in (0, 1):
            raise ValueError(f"reward={name} returned acc={acc} and must return acc as 0 or 1; correct the function")
        return Verdict(float(score), bool(acc))


def reward_of(data_source: str) -> str:
    """The name of the reward that a data source is trained with."""
    return next((name for start, name in _BY_SOURCE.items() if data_source.startswith(start)), "math")


def _function(reward: str) -> Callable[..., Any]:
    if reward in _NAMED:
        return _NAMED[reward]
    path, colon, name = reward.rpartition(":")
    if not colon or not Path(path).is_file():
        names = [AUTO, *_NAMED]
        raise ValueError(
            f"reward={reward} must be one of {', '.join(names)}{nearest(reward, names)}, or <file>.py:<function>; "
            "check the path"
        )
    if reward not in _loaded:
        spec = importlib.util.spec_from_file_location(f"mifo_reward_{len(_loaded)}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not callable(getattr(module, name, None)):
            raise ValueError(f"reward={reward} must name a function of {path}; {name} is none")
        _loaded[reward] = getattr(module, name)
    return _loaded[reward]


_loaded: dict[str, Callable[..., Any]] = {}
