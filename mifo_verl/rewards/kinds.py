"""The rewards by name: one way to call them all, for the command line, data preparation and evaluation."""

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any

from mifo_verl.registry import nearest
from mifo_verl.rewards import boxed, choice, custom, exact, gym, math
from mifo_verl.rewards.pool import CPU_SECONDS, Pool
from mifo_verl.rewards.verdict import Verdict

Scorer = Callable[[str, str, Mapping[str, Any]], Verdict]
"""``(response, answer, row)``; the row may hold ``extra_info`` and ``data_source``."""

KINDS = ("math", "boxed", "exact", "choice", "reasoning_gym", "custom")


def scorer(
    kind: str,
    require_think: bool = False,
    cpu_seconds: float = CPU_SECONDS,
    workers: int = 2,
    path: str = "",
    name: str = "compute_score",
    start: bool = False,
) -> Scorer:
    """The reward ``kind`` as a function, the same code as in training; safe to call from several threads.

    ``workers`` is the number of processes of ``math`` and ``reasoning_gym``, started at the first check that needs one,
    or at once with ``start``. ``path`` and ``name`` are those of a
    ``custom`` function, which runs in the calling process. Raises ValueError on an unknown kind or a bad function, and
    RuntimeError, at the start of the processes, where a package is missing.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind} must be one of {', '.join(KINDS)}{nearest(kind, list(KINDS))}; write kind=math")
    if kind == "math":
        return _math(require_think, cpu_seconds, _pool(math.CHECKER, workers, start))
    if kind == "reasoning_gym":
        return _reasoning_gym(require_think, cpu_seconds, _pool(gym.CHECKER, workers, start))
    if kind == "custom":
        return _custom(path, name)
    verdict = {"boxed": boxed.verdict, "exact": exact.verdict, "choice": choice.verdict}[kind]

    def score(response: str, answer: str, row: Mapping[str, Any]) -> Verdict:
        return verdict(response, answer, require_think)

    return score


def _pool(module: str, size: int, start: bool) -> Pool:
    pool = Pool(module, size)
    if start:
        pool.start()
    return pool


def _math(require_think: bool, cpu_seconds: float, pool: Pool) -> Scorer:
    def score(response: str, answer: str, row: Mapping[str, Any]) -> Verdict:
        return math.verdict(response, answer, require_think, cpu_seconds, pool)

    return score


def _reasoning_gym(require_think: bool, cpu_seconds: float, pool: Pool) -> Scorer:
    def score(response: str, answer: str, row: Mapping[str, Any]) -> Verdict:
        return gym.verdict(response, gym.entry_of(row.get("extra_info")), require_think, cpu_seconds, pool)

    return score


def _custom(path: str, name: str) -> Scorer:
    if not path:
        raise ValueError("path must be set for kind=custom; add path=<file.py> or path=pkg://<module>")
    function = custom.load(path, name)

    def score(response: str, answer: str, row: Mapping[str, Any]) -> Verdict:
        start = time.monotonic()
        result = function(
            data_source=row.get("data_source") or "",
            solution_str=response,
            ground_truth=answer,
            extra_info=dict(row.get("extra_info") or {}),
        )
        if inspect.isawaitable(result):
            result = asyncio.run(_value(result))
        return custom.verdict_of(result, time.monotonic() - start)

    return score


async def _value(awaitable: Any) -> Any:
    return await awaitable
