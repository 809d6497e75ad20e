"""The run's reward function: found, called as verl calls it, and its answer read as verl and the buffer read it."""

import importlib.util
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as TooLate
from pathlib import Path
from typing import Any

from mifo_verl.checks.findings import Findings, NotChecked
from mifo_verl.checks.run import Run, in_background
from mifo_verl.method.accuracy import count_correct
from mifo_verl.rewards import custom

NODE = "reward.custom_reward_function"
CALL_SECONDS = 5.0
_WRONG = "this is not the answer"
_ROW = {
    "data_source": "check",
    "prompt": [{"role": "user", "content": "1+1=?"}],
    "reward_model": {"ground_truth": "2"},
    "extra_info": {"split": "train", "index": 0},
}

Score = Callable[[Mapping[str, Any], str, str], Any]
"""(row, text, ground truth) -> what the reward function returns."""


def check_reward(run: Run, found: Findings) -> None:
    """The reward function is there, takes verl's arguments, and returns a score and a correctness."""
    if not run.get(f"{NODE}.path"):
        _check_default(run, found)
        return
    score, row = reward_of(run), _first_row(run)
    truth = str(row["reward_model"]["ground_truth"])
    for text, is_wrong in ((f"\\boxed{{{truth}}}", False), (_WRONG, True)):
        try:
            result = in_background(lambda text=text: score(row, text, truth)).result(timeout=CALL_SECONDS)
        except TooLate:
            found.warn(f"{NODE} took more than {CALL_SECONDS:.0f} s for one answer", "rollouts will wait for it")
            return
        except Exception as error:
            detail = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(f"{NODE}={_name(run)} must score any text, and raised {detail}; correct it") from None
        right = _read(run, result)
        if is_wrong and right:
            found.warn(f"{NODE}={_name(run)} took the wrong answer {_WRONG!r} for right", "every rollout may be right")
    found.note(_name(run))


def start(run: Run) -> None:
    """Load the function beside the other checks, and call it once: math-verify's process takes 2 s to start."""
    loaded = run.background["reward"] = in_background(lambda: _reward_of(run))
    in_background(lambda: loaded.result()(_ROW, _WRONG, "2"))


def reward_of(run: Run) -> Score:
    """The function with its keywords. Raises ValueError where it cannot be had, NotChecked where it is verl's own."""
    if "reward" not in run.background:
        start(run)
    return run.background["reward"].result()  # type: ignore[no-any-return]


def _reward_of(run: Run) -> Score:
    path = run.get(f"{NODE}.path")
    if not path:
        raise NotChecked("not checked: verl's own reward functions are not loaded before a run")
    kwargs = dict(run.get(f"{NODE}.reward_kwargs") or {})
    function = custom.load(str(path), str(run.get(f"{NODE}.name")), kwargs)

    def score(row: Mapping[str, Any], text: str, truth: str) -> Any:
        given = {"data_source": row["data_source"], "solution_str": text, "ground_truth": truth}
        return function(**given, extra_info=dict(row.get("extra_info") or {}), **kwargs)

    score.is_readable = getattr(function, "is_readable", None)  # type: ignore[attr-defined]
    return score


def is_right(result: Any) -> bool:
    """Whether a reward's result says that the answer is right. Raises ValueError where it does not say."""
    acc = result.get("acc") if isinstance(result, Mapping) else result
    return count_correct([("row", acc, False)])["row"] == (1, 1)


def _read(run: Run, result: Any) -> bool:
    name, form = f"{NODE}={_name(run)}", "{'score': float, 'acc': 0 or 1}"
    if inspect.iscoroutine(result):
        result.close()
        raise ValueError(f"{name} must be a plain function, not async: demonstrations are verified with it; drop async")
    for key in ("score", "acc") if isinstance(result, Mapping) else ():
        if key not in result:
            raise ValueError(f"{name} must return {form}, and {key} is missing in {dict(result)}; add it")
    number = result["score"] if isinstance(result, Mapping) else result
    if isinstance(number, str) or not hasattr(number, "__float__"):
        raise ValueError(f"{name} must return {form} or a number, not {result!r}; correct it")
    try:
        return is_right(result)
    except ValueError as error:
        raise ValueError(f"{name} must return {form}: {str(error).partition(' of prompt')[0]}; correct it") from None


def _check_default(run: Run, found: Findings) -> None:
    """Without a function of the user's own, verl chooses one by the row's data_source."""
    verl = importlib.util.find_spec("verl")
    assert verl is not None and verl.origin is not None
    known = (Path(verl.origin).parent / "utils" / "reward_score" / "__init__.py").read_text()
    for scan in run.scans("data.train_files"):
        sources = {row["data_source"] for number, row in scan.sample.items() if number not in scan.bad}
        for source in sorted(sources):
            rule = f"a data_source of which verl has a reward function where {NODE}.path=null"
            cure = f"set {NODE}.path and .name to your own, e.g. pkg://mifo_verl.rewards.math"
            if not found.require(
                f'"{source}"' in known or source.startswith("aime"), "data_source", source, rule, cure
            ):
                return
    found.note("verl's own")


def _first_row(run: Run) -> Mapping[str, Any]:
    """A row of the training data, or one made up where there is none."""
    try:
        scan = run.scans("data.train_files")[0]
    except NotChecked:
        return _ROW
    good = [row for number, row in sorted(scan.sample.items()) if number not in scan.bad]
    return good[0] if good else _ROW


def _name(run: Run) -> str:
    return f"{run.get(f'{NODE}.path')}:{run.get(f'{NODE}.name')}"
