"""A user's own reward function: found by path, its signature checked before a run, its result read strictly."""

import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from mifo_verl.errors import nearest, require
from mifo_verl.rewards.verdict import Verdict

_NODE = "reward.custom_reward_function"
_ARGUMENTS = ("data_source", "solution_str", "ground_truth", "extra_info")


def load(path: str, name: str = "compute_score", reward_kwargs: Mapping[str, Any] | None = None) -> Callable[..., Any]:
    """The function ``name`` of ``pkg://a.module``, ``file:///a/file.py`` or ``a/file.py``, as verl finds it.

    Raises ValueError where there is none, where it cannot be loaded, or where its signature does not fit.
    """
    try:
        module = _module(path)
    except Exception as error:
        why, cure = " ".join(str(error).split()), "name a module as pkg://a.module, or an existing file"
        raise ValueError(
            f"{_NODE}.path={path} must be a module that loads ({type(error).__name__}: {why}); {cure}"
        ) from None
    function = getattr(module, name, None)
    names = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
    cure = f"it has {', '.join(names) or 'no function'}{nearest(name, names)}"
    require(callable(function), f"{_NODE}.name", name, f"a function of {path}", cure)
    assert callable(function)
    check_signature(function, reward_kwargs or {})
    return function


def check_signature(function: Callable[..., Any], reward_kwargs: Mapping[str, Any]) -> None:
    """Pass where verl's reward workers can call it: by the four names, and with the run's ``reward_kwargs``.

    Raises ValueError that names what does not fit.
    """
    signature, arguments = inspect.signature(function), dict.fromkeys(_ARGUMENTS)
    shown = f"{getattr(function, '__name__', function)}{signature}"
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"{_NODE}.name={shown} must take {', '.join(_ARGUMENTS)} by name ({error}); "
            "write def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_)"
        ) from None
    try:
        signature.bind(**arguments | dict(reward_kwargs))
    except TypeError as error:
        raise ValueError(
            f"{_NODE}.reward_kwargs={dict(reward_kwargs)} must be keywords of {shown} ({error}); correct them"
        ) from None


def verdict_of(result: Any, seconds: float = 0.0) -> Verdict:
    """What a reward function returned: ``{"score": number, "acc": 0 or 1}``, or a plain 0 or 1 that stands for both.

    Raises ValueError on anything else.
    """
    score, acc = (result.get("score"), result.get("acc")) if isinstance(result, Mapping) else (result, result)
    good = isinstance(score, Real) and math.isfinite(score) and isinstance(acc, Real) and acc in (0, 1)
    rule = "{'score': a finite number, 'acc': 0 or 1}, or a plain 0 or 1"
    require(good, "the reward function's result", f"{result!r:.200}", rule, "a partial score needs an acc beside it")
    assert score is not None
    extracted = result.get("extracted") if isinstance(result, Mapping) else None
    return Verdict(float(score), bool(acc), extracted if isinstance(extracted, str) else None, seconds)


def _module(path: str) -> Any:
    if path.startswith("pkg://"):
        return importlib.import_module(path.removeprefix("pkg://").replace("/", "."))
    file = Path(path.removeprefix("file://"))
    if not file.is_file():
        raise FileNotFoundError("no such file")
    spec = importlib.util.spec_from_file_location(f"mifo_custom_reward_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
