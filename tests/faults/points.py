"""Named points of a run where a test can signal a process: ``MIFO_FAULT=<point>:<n>[:<role>[:<signal>[:<which>]]]``.

The package knows nothing of this. ``environment()`` has Python load ``site/sitecustomize.py`` at the start of every
process of a run; it wraps the functions of ``PLACES`` as soon as their modules are loaded. The first process that comes to the point for the n-th time sends the signal (KILL by default) to the process named by the
role: itself by default; of several the one that ``which`` falls on. ``MIFO_FAULT_MARK`` is a file that is there once
the signal is sent; while it is there none is sent. ``python -m tests.faults`` drives it.
"""

import functools
import importlib.abc
import importlib.machinery
import inspect
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

PLACES = {
    "mifo_verl.cpu.rollout": {
        "TransformersServer.generate": ("rollout", "before"),
        "TransformersServer.load_weights": ("weight_sync", "before"),
    },
    "mifo_verl.loop.loop": {"Loop.count": ("hard_prompts", "after")},
    "mifo_verl.loop.state": {"LoopState.save": ("checkpoint_file", "after")},
    "mifo_verl.run.checkpoints": {"write_manifest": ("checkpoint_commit", "after")},
    "mifo_verl.verl.engine": {
        "MifoEngine.begin_sft": ("threshold", "before"),
        "MifoEngine.enter_sft": ("in_sft", "after"),
        "MifoEngine.leave_sft": ("in_rl", "after"),
        "MifoEngine.optimizer_step": ("update", "before"),
        "MifoEngine.end_sft": ("mask_release", "before"),
        "MifoEngine.save_interval": ("checkpoint_file", "after"),
    },
    "mifo_verl.verl.sft_step": {"SftLossOfBatch.__call__": ("sft_forward", "before")},
    "mifo_verl.verl.trainer": {"MifoTrainer.fit": ("exit", "after")},
    "verl.trainer.ppo.v1.trainer_base": {"PPOTrainer._validate": ("validation", "before")},
}
"""The point that a process is at before or after a call of a function, by module. ``in_sft`` and ``in_rl`` are no
points: between them an ``update`` is SFT's, elsewhere it is the point ``rl_update``."""

ROLES = {
    "controller": "TaskRunner",
    "rank": "ray::WorkerDict",
    "rollout_server": "ray::TransformersServer",
    "reward_worker": "ray::RewardLoopWorker",
    "ray_head": "gcs_server",
}
"""A word of the command line of each role's processes; a run has the role ``driver`` too."""

DRIVER = "MIFO_DRIVER_PID"
"""Environment variable: the process of ``mifo_verl.train``, for the processes that it starts on this machine."""

HEARD_SECONDS = 10
"""How long the point waits after a TERM: the run knows by then that it is asked to stop."""

_reached: Counter[str] = Counter()


def reach(point: str) -> None:
    """Say that this process is at a point; a test may end it here."""
    plan = os.environ.get("MIFO_FAULT")
    if plan is None or not _is_of_ray():  # the checks before a run score demonstrations too
        return
    wanted, count, role, name, which, *_ = [*plan.split(":"), "", "", ""]
    if wanted != point:
        return
    _reached[point] += 1
    if _reached[point] != int(count):
        return
    number = signal.Signals[f"SIG{name or 'KILL'}"]
    try:
        Path(os.environ["MIFO_FAULT_MARK"]).touch(exist_ok=False)
    except FileExistsError:
        return
    kill(int(os.environ[DRIVER]), role, number, int(which or 0)) if role else os.kill(os.getpid(), number)
    if number == signal.SIGKILL:
        time.sleep(600)  # the run ends meanwhile, and this process with it
    elif number == signal.SIGTERM:
        time.sleep(HEARD_SECONDS)


def _is_of_ray() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def kill(driver: int, role: str, number: int = signal.SIGKILL, which: int = 0) -> bool:
    """Signal one process of a role of the run with this driver: of several, by pid, the one that ``which`` falls on.

    The driver's TERM goes to its whole process group, as ``timeout``, Slurm and a terminal send it. Returns whether there
    is one.
    """
    import psutil

    if role == "driver":
        (os.killpg if number == signal.SIGTERM else os.kill)(driver, number)
        return True
    found = sorted(
        process.pid
        for process in psutil.Process(driver).children(recursive=True)
        if process.pid != os.getpid() and ROLES[role] in " ".join(process.cmdline())
    )
    if found:
        os.kill(found[which % len(found)], number)
    return bool(found)


def environment() -> dict[str, str]:
    """The environment of a run whose processes have the points."""
    here = Path(__file__).parent
    return {"PYTHONPATH": os.pathsep.join([str(here / "site"), str(here.parents[1])])}


def _torn(whole: Callable[..., None]) -> Callable[..., None]:
    """``torch.save`` that leaves half a file where it is the point to die at."""

    def save(state: object, path: object, **kwargs: object) -> None:
        whole(state, path, **kwargs)
        if not isinstance(path, str | os.PathLike):  # a tensor on its way to another process
            return
        size = os.path.getsize(path)
        os.truncate(path, size // 2)
        reach("checkpoint_file")
        whole(state, path, **kwargs)

    return save


def _wrapped(function: Callable[..., Any], point: str, when: str) -> Callable[..., Any]:
    """The function with a point before or behind it."""

    def arrive() -> None:
        global _in_sft
        if point in ("in_sft", "in_rl"):
            _in_sft = point == "in_sft"
        elif point != "update":
            reach(point)
        elif not _in_sft:
            reach("rl_update")

    @functools.wraps(function)
    async def asynchronous(*args: Any, **kwargs: Any) -> Any:
        arrive()
        return await function(*args, **kwargs)

    @functools.wraps(function)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            arrive()
        result = function(*args, **kwargs)
        if when == "after":
            arrive()
        return result

    return asynchronous if inspect.iscoroutinefunction(function) else synchronous


_in_sft = False


def _put_points_into(module: ModuleType) -> None:
    if module.__name__ == "torch":
        module.save = _torn(module.save)  # type: ignore[attr-defined]
        return
    for path, (point, when) in PLACES[module.__name__].items():
        *owners, name = path.split(".")
        owner = functools.reduce(getattr, owners, module)
        setattr(owner, name, _wrapped(getattr(owner, name), point, when))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of ``PLACES``, and torch if saved files are to be torn, and puts the points in."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        tears = name == "torch" and os.environ.get("MIFO_FAULT", "").startswith("checkpoint_file:")
        if name not in PLACES and not tears:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None and spec.loader is not None, f"{name} is no module: a point is lost"
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            _put_points_into(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def begin() -> None:
    """Of this process, before it has loaded anything. The first one of a run is its driver."""
    os.environ.setdefault(DRIVER, str(os.getpid()))
    sys.meta_path.insert(0, _Finder())
