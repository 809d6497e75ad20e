"""From a checked config to a running controller: Ray, verl's task runner with our trainer, the final table.

SIGTERM or SIGINT asks the run to stop with a checkpoint; a second one ends it at once.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from omegaconf import DictConfig, OmegaConf
from ray.exceptions import ActorDiedError, RayError
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from mifo_verl.bridge.compose import ConfigError
from mifo_verl.bridge.faults import DRIVER
from mifo_verl.bridge.progress import ProgressDisplay, print_summary
from mifo_verl.bridge.records import CONFIG, METRICS, RunRecords, finish_summary, replace_text
from mifo_verl.bridge.resume import check_resume, checkpoint_facts, own_checkpoints
from mifo_verl.bridge.saving import NotSaved, Stopped
from mifo_verl.bridge.stacks import FOLDER, note_cluster, open_folder
from mifo_verl.plugin import require_loaded
from mifo_verl.report.versions import record_versions
from mifo_verl.report.write import write_report

EXIT_STOPPED = 75
"""Exit code of a run that was asked to stop and can be resumed (EX_TEMPFAIL)."""

EXIT_NOT_SAVED = 74
"""Exit code of a run that was asked to stop and could not save what it had (EX_IOERR)."""

_TaskRunner: Any = TaskRunnerV1.__ray_metadata__.modified_class


class MifoTaskRunner(_TaskRunner):
    """verl's task runner in a process that must have our plug-in; it can be asked to stop while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self._stop_asked = False

    def run(self, config: DictConfig) -> None:
        require_loaded()
        note_cluster()
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


class _Start:
    """What verl takes for the task runner's actor class; it keeps the actor, and what became of it."""

    def __init__(self) -> None:
        self.runner: Any = None
        self.num_runs = 0
        self.began = 0.0
        self.signals: list[int] = []
        self.stopped = False
        self.not_saved: str | None = None
        """Why a run that was asked to stop has not saved what it had."""
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
        return self.runner

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """The first signal asks the run to stop, the second ends this process at once."""
        self.signals.append(number)
        if len(self.signals) > 1:
            os._exit(128 + number)
        print(f"{signal.Signals(number).name}: stopping with a checkpoint; once more ends the run at once", flush=True)
        self._asked = self.runner.stop.remote()

    def ended_on_request(self, error: RayError) -> bool:
        """Whether the run stopped because it was asked to, with what it had saved or before it had begun."""
        if isinstance(getattr(error, "cause", None), Stopped):
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
    folder = _run_folder(Path(config.run_dir), resumes)
    write_data(folder)
    if resumes:
        _check_checkpoint(config)
    replace_text(folder / CONFIG, OmegaConf.to_yaml(config, resolve=True))
    record_versions(folder)
    os.environ[DRIVER] = str(os.getpid())
    OmegaConf.update(
        config, f"ray_kwargs.ray_init.runtime_env.env_vars.{FOLDER}", str(open_folder(folder)), force_add=True
    )
    start, before = _Start(), own_checkpoints(config)
    while not _run(config, folder, start):
        if own_checkpoints(config) - before:
            config.trainer.resume_mode = "auto"
    if start.stopped:
        return _stopped(config, folder, start.not_saved, bool(own_checkpoints(config) - before))
    print_summary(finish_summary(folder, time.time() - start.began), folder)
    if report := write_report(folder):
        print(f"report: {report}")
    return 0


def _run(config: DictConfig, folder: Path, start: _Start) -> bool:
    """One attempt; whether it came to its end or was stopped. Raises what ended it where no restart is left."""
    try:
        with ProgressDisplay(folder, config):
            run_ppo(config, start)
    except RayError as error:
        if isinstance(getattr(error, "cause", None), NotSaved):
            start.not_saved = str(error.cause)  # type: ignore[attr-defined]
            start.stopped = True
            return True
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


def _stopped(config: DictConfig, folder: Path, not_saved: str | None, has_saved: bool) -> int:
    """The last line of a run that was asked to stop; returns the exit code."""
    if not_saved is not None:
        print(f"stopped on request and NOT SAVED: {not_saved} ({folder})")
        return EXIT_NOT_SAVED
    as_told = config.trainer.resume_mode == "resume_path" and not has_saved
    how = "which has made no checkpoint yet," if as_told else "with trainer.resume_mode=auto"
    print(f"stopped on request; the same command {how} goes on in {folder}")
    return EXIT_STOPPED


def _check_checkpoint(config: DictConfig) -> None:
    facts = checkpoint_facts(config)
    for warning in check_resume(facts, config) if facts else []:
        print(f"warning: {warning}")


def _run_folder(folder: Path, resumes: bool) -> Path:
    """The run's folder. A run that was there before goes on, or is moved aside: never mixed with or deleted."""
    if (folder / METRICS).exists() and not resumes:
        number = 1
        while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
            number += 1
        folder.rename(aside)
        print(f"{folder} held a run; it is now {aside}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
