"""Processes of tests as forks of one that has imported verl, Ray and Transformers: 8 s of CPU less for a training.

The one process begins with the first fork, with the environment of then, and ends with pytest.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from tests.faults.points import DRIVER

REPOSITORY = Path(__file__).parents[1]
IMPORTED = (
    "mifo_verl.checks.preflight",
    "mifo_verl.run.launch",
    "mifo_verl.verl.engine",
    "peft",
    "transformers.models.auto.modeling_auto",
    "transformers.models.qwen2.modeling_qwen2",
)
READ_BY_THEM = {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "TORCH_COMPILE_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
"""Of what hardware=cpu sets."""


def context() -> ForkServerContext:
    """Of processes that are such forks."""
    os.environ.update(READ_BY_THEM)
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([*IMPORTED])
    return made


class Training:
    """``python -m mifo_verl.train`` as a fork, in a session of its own; the rest is as of ``subprocess.Popen``."""

    def __init__(self, overrides: list[str], log: Path, environment: Mapping[str, str] = os.environ) -> None:
        """``log`` grows by what it says."""
        self._process: ForkServerProcess = context().Process(target=_train, args=(overrides, log, dict(environment)))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired("mifo train", timeout)
        return code


def train(overrides: list[str], log: Path) -> str:
    """What a training that has ended well has said."""
    log.parent.mkdir(parents=True, exist_ok=True)
    training = Training(overrides, log)
    try:
        code = training.wait(600)
    finally:
        if training.poll() is None:
            os.killpg(training.pid, signal.SIGKILL)
    said = log.read_text()
    assert code == 0, said[-6000:]
    return said


def _train(overrides: list[str], log: Path, environment: dict[str, str]) -> None:
    from mifo_verl.train import main

    os.setsid()
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (said, 1), (said, 2)):
        os.dup2(source, target)
    os.chdir(REPOSITORY)
    os.environ.clear()
    os.environ.update(environment | {DRIVER: str(os.getpid())})
    os.environ.pop("RAY_AUTH_MODE", None)  # set by a Ray of pytest's own process: this one's decides for itself
    sys.exit(main(overrides))
