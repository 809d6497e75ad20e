"""Named points of a run where a test can signal a process: ``MIFO_FAULT=<point>:<n>[:<role>[:<signal>[:<which>]]]``.

The first process that comes to the point for the n-th time sends the signal (KILL by default) to the process named by
the role: itself by default; of several the one that ``which`` falls on. Without the variable nothing here does
anything. ``MIFO_FAULT_MARK`` is a file that is there once the signal is sent; while it is there none is sent.
``python -m tests.faults`` drives it.
"""

import os
import signal
import time
from collections import Counter
from pathlib import Path

POINTS = (
    "rollout",
    "reward",
    "rl_update",
    "hard_prompts",
    "threshold",
    "sft_forward",
    "mask_release",
    "weight_sync",
    "checkpoint_file",
    "checkpoint_commit",
    "validation",
    "exit",
)

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
    if plan is None or DRIVER not in os.environ:  # the checks before a run score demonstrations too
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


def kill(driver: int, role: str, number: int = signal.SIGKILL, which: int = 0) -> bool:
    """Signal one process of a role of the run with this driver: of several, by pid, the one that ``which`` falls on.

    Returns whether there is one.
    """
    import psutil

    if role == "driver":
        os.kill(driver, number)
        return True
    found = sorted(
        process.pid
        for process in psutil.Process(driver).children(recursive=True)
        if process.pid != os.getpid() and ROLES[role] in " ".join(process.cmdline())
    )
    if found:
        os.kill(found[which % len(found)], number)
    return bool(found)


def _tear_saved_files() -> None:
    """Let ``torch.save`` leave half a file where it is the point to die at."""
    import torch

    whole = torch.save

    def torn(state: object, path: object, **kwargs: object) -> None:
        whole(state, path, **kwargs)  # type: ignore[arg-type]
        if not isinstance(path, str | os.PathLike):  # a tensor on its way to another process
            return
        size = os.path.getsize(path)
        os.truncate(path, size // 2)
        reach("checkpoint_file")
        whole(state, path, **kwargs)  # type: ignore[arg-type]

    torch.save = torn  # type: ignore[assignment]


if os.environ.get("MIFO_FAULT", "").startswith("checkpoint_file:"):
    _tear_saved_files()
