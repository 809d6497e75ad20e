"""From a checked config to a running controller: Ray, verl's task runner with our trainer, the final table.

SIGTERM or SIGINT asks the run to stop with a checkpoint; a second one ends it at once.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import ray
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from ray.exceptions import ActorDiedError, GetTimeoutError, RayError
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from mifo_verl.bridge.compose import ConfigError
from mifo_verl.bridge.faults import DRIVER
from mifo_verl.bridge.processes import free_resources
from mifo_verl.bridge.progress import ProgressDisplay, print_summary
from mifo_verl.bridge.records import CONFIG, RunRecords, finish_summary, replace_text
from mifo_verl.bridge.resume import check_resume, checkpoint_facts
from mifo_verl.bridge.run_folder import RunFolder
from mifo_verl.bridge.saving import Stopped
from mifo_verl.bridge.stacks import FOLDER, note_cluster, open_folder, write_stacks
from mifo_verl.bridge.watchdog import START_SECONDS, Watchdog
from mifo_verl.config import WatchdogConfig
from mifo_verl.plugin import require_loaded
from mifo_verl.report.versions import record_versions
from mifo_verl.report.write import write_report

EXIT_STOPPED = 75
"""Exit code of a run that was asked to stop and can be resumed (EX_TEMPFAIL)."""

_POLL_SECONDS = 1.0

_TaskRunner: Any = TaskRunnerV1.__ray_metadata__.modified_class


class MifoTaskRunner(_TaskRunner):
    """verl's task runner in a process that must have our plug-in; it can be asked to stop while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self._stop_asked = False

    def run(self, config: DictConfig) -> None:
        require_loaded()
        note_cluster()
        OmegaConf.resolve(config)
        config.transfer_queue.enable = True
        with _watched_start(config):
            tq.init(config.transfer_queue)  # verl does it again, and finds it there
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


@contextmanager
def _watched_start(config: DictConfig) -> Iterator[None]:
    """What the controller waits for before its trainer is there, and the trainer's watchdog with it."""
    records = RunRecords(config.run_dir)
    watchdog = Watchdog(
        WatchdogConfig(**config.mifo.watchdog),
        records.event,
        lambda _: f"what Ray has: {free_resources()}",
        lambda: write_stacks(records.folder),
    )
    watchdog.begins("TransferQueue's start", at_least=START_SECONDS)
    try:
        yield
    finally:
        watchdog.end()


class NotStarted(GetTimeoutError):
    """Ray has had no place for the controller within ``mifo.watchdog.limit_seconds``."""


class _Start:
    """What verl takes for the task runner's actor class; it keeps the actor, and what became of it."""

    def __init__(self, settings: WatchdogConfig, say: Callable[[str, str], None]) -> None:
        self._settings = settings
        self._say = say
        self.runner: Any = None
        self.num_runs = 0
        self.began = 0.0
        self.signals: list[int] = []
        self.stopped = False
        self._asked: Any = None
        """The answer of the task runner that was asked to stop."""

    def remote(self) -> Any:
        self.num_runs += 1
        self.began = time.time()
        self.runner = ray.remote(num_cpus=1, max_concurrency=2)(MifoTaskRunner).remote()
        for number in (signal.SIGTERM, signal.SIGINT):  # not earlier: ray.init has just set handlers of its own
            signal.signal(number, self._on_signal)
        if self.signals:  # in an attempt before this one
            self._asked = self.runner.stop.remote()
        self._await_place()
        return self.runner

    def _await_place(self) -> None:
        """Wait until Ray has started the controller, and say so where it does not. Raises RayError, Stopped."""
        began, told = time.monotonic(), 0.0
        ready = self.runner.__ray_ready__.remote()
        while not ray.wait([ready], timeout=_POLL_SECONDS)[0]:
            if self.signals:
                raise Stopped
            waited = time.monotonic() - began
            text = f"the controller has not started for {waited:.0f} s; Ray has {free_resources()}"
            if waited > self._settings.limit_seconds:
                raise NotStarted(f"{text}; mifo.watchdog.limit_seconds={self._settings.limit_seconds:g} is over")
            if waited > max(self._settings.floor_seconds, 2 * told):
                told = waited
                self._say("late", f"LATE: {text}")
        ray.get(ready)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """The first signal asks the run to stop, the second ends this process at once."""
        self.signals.append(number)
        if len(self.signals) > 1:
            os._exit(128 + number)
        print(f"{signal.Signals(number).name}: stopping with a checkpoint; once more ends the run at once", flush=True)
        self._asked = self.runner.stop.remote()

    def ended_on_request(self, error: RayError | Stopped) -> bool:
        """Whether the run stopped because it was asked to, with what it had saved or before it had begun."""
        if isinstance(error, Stopped) or isinstance(getattr(error, "cause", None), Stopped):
            return True
        try:
            if self._asked is not None:
                ray.get(self._asked, timeout=10)
        except ActorDiedError:
            return True
        except RayError:
            pass
        return False


def launch(config: DictConfig, write_data: Callable[[Path], None]) -> int:
    """Run a training to its end, or until it is asked to stop; returns the exit code.

    ``write_data`` puts into the run's folder what the run reads from there, and points the config at it. Raises
    ConfigError where verl itself refuses the config, or where a checkpoint belongs to another run.
    """
    try:
        require_loaded()
        validate_config(
            config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config)
        )
    except (AssertionError, ValueError, RuntimeError) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    resumes = config.trainer.resume_mode != "disable"
    held = RunFolder(Path(config.run_dir), resumes)
    folder = held.path
    write_data(folder)
    if resumes:
        _check_checkpoint(config)
    replace_text(folder / CONFIG, OmegaConf.to_yaml(config, resolve=True))
    record_versions(folder)
    os.environ[DRIVER] = str(os.getpid())
    OmegaConf.update(
        config, f"ray_kwargs.ray_init.runtime_env.env_vars.{FOLDER}", str(open_folder(folder)), force_add=True
    )
    start = _Start(WatchdogConfig(**config.mifo.watchdog), RunRecords(folder).event)
    while not _run(config, folder, start):
        config.trainer.resume_mode = "auto"
    if start.stopped:
        print(f"stopped on request; the same command with trainer.resume_mode=auto goes on in {folder}")
        return EXIT_STOPPED
    print_summary(finish_summary(folder, time.time() - start.began), folder)
    if report := write_report(folder):
        print(f"report: {report}")
    return 0


def _run(config: DictConfig, folder: Path, start: _Start) -> bool:
    """One attempt; whether it came to its end or was stopped. Raises what ended it where no restart is left."""
    try:
        with ProgressDisplay(folder, config):
            run_ppo(config, start)
    except (RayError, Stopped) as error:
        start.stopped = start.ended_on_request(error)
        if not start.stopped and start.num_runs > config.restarts:
            raise
        if not start.stopped:
            reason = " ".join(str(getattr(error, "cause", None) or error).split())
            RunRecords(folder).event("restart", f"RESTART {start.num_runs} of {config.restarts}: {reason[-400:]}")
        return bool(start.stopped)
    finally:
        ray.shutdown()
    return True


def _check_checkpoint(config: DictConfig) -> None:
    facts = checkpoint_facts(config)
    for warning in check_resume(facts, config) if facts else []:
        print(f"warning: {warning}")
