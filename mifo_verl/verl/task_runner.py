"""The controller's process: verl's task runner with our trainer, started by Ray, asked to stop by a signal.

SIGTERM or SIGINT asks the run to stop with a checkpoint; a second one ends it at once.
"""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import psutil
import ray
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf, open_dict
from ray.exceptions import ActorDiedError, GetTimeoutError, RayError
from verl.trainer.main_ppo import TaskRunnerV1

from mifo_verl.plugin import require_loaded
from mifo_verl.run.journal import RunRecords
from mifo_verl.run.processes import free_resources
from mifo_verl.run.stacks import note_cluster, write_stacks
from mifo_verl.run.watchdog import Watchdog
from mifo_verl.settings import WatchdogConfig
from mifo_verl.verl.saving import NotSaved, Stopped

EXIT_STOPPED = 75
"""Exit code of a run that was asked to stop and can be resumed (EX_TEMPFAIL)."""
EXIT_NOT_SAVED = 74
"""Exit code of a run that was asked to stop and could not save what it had (EX_IOERR)."""

_POLL_SECONDS = 1.0

_TaskRunner: Any = TaskRunnerV1.__ray_metadata__.modified_class


class MifoTaskRunner(_TaskRunner):
    """verl's task runner in a process that must have our plug-in; it can be asked to stop while it runs."""

    def __init__(self, began: float | None = None) -> None:
        super().__init__()
        self._began = began
        self._stop_asked = False

    def run(self, config: DictConfig) -> None:
        require_loaded()
        note_cluster()
        OmegaConf.resolve(config)
        config.transfer_queue.enable = True
        with open_dict(config):
            config.began = self._began
        records = RunRecords(config.run_dir)
        watchdog = Watchdog(  # of what comes before the trainer, which has its own
            WatchdogConfig(**config.mifo.watchdog),
            records.event,
            lambda _: f"what Ray has: {free_resources()}",
            lambda: write_stacks(records.folder),
            show=records.stage,
        )
        watchdog.begins("start-up: TransferQueue")
        try:
            tq.init(config.transfer_queue)  # verl does it again, and finds it there
        finally:
            watchdog.end()
        super().run(config)

    def init_agent_loop_manager(self) -> None:
        super().init_agent_loop_manager()
        if self._stop_asked:
            self.trainer.stopping.set()

    def stop(self) -> None:
        """Stop at the next place where nothing is lost, which is at once while the run starts."""
        self._stop_asked = True
        if self.agent_loop_manager is None:
            os._exit(EXIT_STOPPED)
        self.trainer.stopping.set()


class NotStarted(GetTimeoutError):
    """Ray has had no place for the controller within ``mifo.watchdog.limit_seconds``."""


class TaskRunnerStart:
    """What verl takes for the task runner's actor class; it keeps the actor, and what became of it."""

    def __init__(self, settings: WatchdogConfig, emit: Callable[[str, str], None]) -> None:
        self._settings = settings
        self._emit = emit
        self.runner: Any = None
        self.num_runs = 0
        self.began = psutil.Process().create_time()
        """When the command was started, or an attempt after the first; seconds since 1970."""
        self.signals: list[int] = []
        self.stopped = False
        self.not_saved: str | None = None
        """Why a run that was asked to stop has not saved what it had."""
        self._asked: Any = None
        """The answer of the task runner that was asked to stop."""

    def remote(self) -> Any:
        self.num_runs += 1
        if self.num_runs > 1:
            self.began = time.time()
        self.runner = ray.remote(num_cpus=1, max_concurrency=2)(MifoTaskRunner).remote(self.began)
        for number in (signal.SIGTERM, signal.SIGINT):  # not earlier: ray.init has just set handlers of its own
            signal.signal(number, self._on_signal)
        if self.signals:  # in an attempt before this one
            self._asked = self.runner.stop.remote()
        self._await_place()
        return self.runner

    def _await_place(self) -> None:
        """Wait until Ray has started the controller, and report it if it does not. Raises RayError, Stopped."""
        began, reported = time.monotonic(), 0.0
        ready = self.runner.__ray_ready__.remote()
        while not ray.wait([ready], timeout=_POLL_SECONDS)[0]:
            if self.signals:
                raise Stopped
            waited = time.monotonic() - began
            text = f"the controller has not started for {waited:.0f} s; Ray has {free_resources()}"
            if waited > self._settings.limit_seconds:
                raise NotStarted(f"{text}; mifo.watchdog.limit_seconds={self._settings.limit_seconds:g} is over")
            if waited > max(self._settings.floor_seconds, 2 * reported):
                reported = waited
                self._emit("late", f"LATE: {text}")
        ray.get(ready)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """The first signal asks the run to stop, the second ends this process at once."""
        self.signals.append(number)
        if len(self.signals) > 1:
            os._exit(128 + number)
        print(f"{signal.Signals(number).name}: stopping with a checkpoint; once more ends the run at once", flush=True)
        self._asked = self.runner.stop.remote()

    def ended_on_request(self, error: RayError | Stopped) -> bool:
        """Whether the run stopped because it was asked to: with what it had saved, before it had begun, or unsaved."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, NotSaved):
            self.not_saved = str(cause)
        if isinstance(error, Stopped) or isinstance(cause, Stopped | NotSaved):
            return True
        try:
            if self._asked is not None:
                ray.get(self._asked, timeout=10)
        except ActorDiedError:
            return True
        except RayError:
            pass
        return False
