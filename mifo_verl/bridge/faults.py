"""Named points of a run where a test can signal a process: ``MIFO_FAULT=<point>:<n>[:<role>[:<signal>]]``.

The n-th time that a process comes to the point, the process named by the role (itself by default) gets the signal (KILL
by default). Without the variable nothing here does anything. ``python -m tests.faults`` drives it.
"""

import os
import signal
import time
from collections import Counter

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
    "driver": "mifo_verl.train",
    "controller": "TaskRunner",
    "rank": "ray::WorkerDict",
    "rollout_server": "ray::TransformersServer",
    "reward_worker": "ray::RewardLoopWorker",
    "ray_head": "gcs_server",
}
"""A word of each role's command line."""

_reached: Counter[str] = Counter()


def reach(point: str) -> None:
    """Say that this process is at a point; a test may end it here."""
    plan = os.environ.get("MIFO_FAULT")
    if plan is None:
        return
    wanted, count, role, name, *_ = [*plan.split(":"), "", ""]
    if wanted != point:
        return
    _reached[point] += 1
    if _reached[point] != int(count):
        return
    number = signal.Signals[f"SIG{name or 'KILL'}"]
    kill(role, number) if role else os.kill(os.getpid(), number)
    if number == signal.SIGKILL:
        time.sleep(600)  # the run ends meanwhile, and this process with it


def kill(role: str, signal_number: int = signal.SIGKILL) -> int | None:
    """Signal one process of a role on this machine; its id, None where there is none."""
    import psutil

    for process in psutil.process_iter(["pid", "cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if ROLES[role] in command and process.pid != os.getpid():
            os.kill(process.pid, signal_number)
            return int(process.pid)
    return None


def _tear_saved_files() -> None:
    """Let ``torch.save`` leave half a file where it is the point to die at."""
    import torch

    whole = torch.save

    def torn(state: object, path: str, **kwargs: object) -> None:
        whole(state, path, **kwargs)  # type: ignore[arg-type]
        size = os.path.getsize(path)
        os.truncate(path, size // 2)
        reach("checkpoint_file")
        whole(state, path, **kwargs)  # type: ignore[arg-type]

    torch.save = torn  # type: ignore[assignment]


if os.environ.get("MIFO_FAULT", "").startswith("checkpoint_file:"):
    _tear_saved_files()
