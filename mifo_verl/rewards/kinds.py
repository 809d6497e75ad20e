"""The rewards by name, by data source, or by path: one way to call them all, for whatever is not training.

Training calls the same functions (``reward.custom_reward_function``), so that an accuracy means one thing.
"""

import asyncio
import inspect
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from mifo_verl.errors import nearest
from mifo_verl.rewards import boxed, choice, custom, exact, gym, math, similarity
from mifo_verl.rewards.pool import CPU_SECONDS, Pool, pool_of
from mifo_verl.rewards.verdict import Verdict

Scorer = Callable[[str, str, Mapping[str, Any]], Verdict]
"""``(response, answer, row)``; the row may hold ``extra_info`` and ``data_source``."""

KINDS = ("math", "boxed", "exact", "choice", "reasoning_gym", "similarity")
AUTO = "auto"
_OWN = re.compile(r"(.+\.py|pkg://[\w./]+):(\w+)")
_BY_SOURCE = {
    "addition/": "boxed",
    "reasoning_gym/": "reasoning_gym",
    "srl": "similarity",
    "mmlu_pro": "choice",
    "gpqa": "choice",
    "arc_c": "choice",
}
"""The kind of a data source that is not judged by math, by its first letters."""


def kind_of(data_source: str) -> str:
    """The kind of reward that a data source is trained with."""
    return next((kind for start, kind in _BY_SOURCE.items() if data_source.startswith(start)), "math")


def reader(kind: str) -> Callable[[str], bool]:
    """Whether a kind of reward can read a gold answer; ``math`` could only compare others by their letters."""
    return math.is_readable if kind == "math" else bool


def scorer(
    kind: str,
    require_think: bool = False,
    cpu_seconds: float = CPU_SECONDS,
    workers: int | None = None,
    start: bool = False,
    setting: str = "kind",
) -> Scorer:
    """The reward ``kind`` as a function, the same code as in training; safe to call from several threads.

    ``kind`` is one of ``KINDS``, ``auto`` (by the row's data source), or ``<file>.py:<function>``, which runs in the
    calling process. Some kinds have processes, started at the first check that needs one, or at
    once with ``start``: the calling process's own, as in training, or ``workers`` new ones. Raises ValueError, naming
    the ``setting``, on an unknown kind or a bad function, and RuntimeError, at the start of the processes, where a
    package is missing.
    """
    own = _OWN.fullmatch(kind)
    if own and require_think:
        raise ValueError(f"require_think=true must go with a reward of mifo_verl, not {kind}; leave it away")
    if own:
        return _own(own[1], own[2])
    named = [AUTO, *KINDS]
    if kind not in named:
        raise ValueError(
            f"{setting}={kind} must be one of {', '.join(named)}{nearest(kind, named)}, or <file>.py:<function>; "
            "check the path"
        )
    if kind == AUTO:
        scorers = {each: scorer(each, require_think, cpu_seconds, workers) for each in KINDS}
        return lambda response, answer, row: scorers[kind_of(row.get("data_source") or "")](response, answer, row)
    modules: dict[str, Any] = {"math": math, "reasoning_gym": gym, "boxed": boxed, "exact": exact, "choice": choice}
    reward = (modules | {"similarity": similarity})[kind]
    limits: dict[str, Any] = {}
    if checker := getattr(reward, "CHECKER", None):
        pool = pool_of(checker) if workers is None else Pool(checker, workers)
        limits = {"cpu_seconds": cpu_seconds, "pool": pool}
        if start:
            pool.start()

    def score(response: str, answer: str, row: Mapping[str, Any]) -> Verdict:
        right = gym.entry_of(row.get("extra_info")) if kind == "reasoning_gym" else answer
        return reward.verdict(response, right, require_think, **limits)

    return score


def _own(path: str, name: str) -> Scorer:
    function = custom.load(path, name)

    def score(response: str, answer: str, row: Mapping[str, Any]) -> Verdict:
        start = time.monotonic()
        result = function(
            data_source=row.get("data_source") or "",
            solution_str=response,
            ground_truth=answer,
            extra_info=dict(row.get("extra_info") or {}),
        )
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        return custom.verdict_of(result, time.monotonic() - start)

    return score
