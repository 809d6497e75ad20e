"""From a checked config to a running controller: the run's folder, Ray, restarts, the final table."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import ray
from omegaconf import DictConfig, OmegaConf
from ray.exceptions import RayError
from verl.trainer.main_ppo import run_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from mifo_verl.compose import ConfigError
from mifo_verl.config import WatchdogConfig
from mifo_verl.plugin import require_loaded
from mifo_verl.run.display import ProgressDisplay, print_summary
from mifo_verl.run.faults import DRIVER
from mifo_verl.run.folder import RunFolder
from mifo_verl.run.journal import CONFIG, RunRecords, finish_summary, replace_text
from mifo_verl.run.resume import check_resume, checkpoint_facts, own_checkpoints
from mifo_verl.run.stacks import FOLDER, open_folder
from mifo_verl.tools.report.versions import record_versions
from mifo_verl.tools.report.write import write_report
from mifo_verl.verl.saving import Stopped
from mifo_verl.verl.task_runner import EXIT_NOT_SAVED, EXIT_STOPPED, TaskRunnerStart


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
    start = TaskRunnerStart(WatchdogConfig(**config.mifo.watchdog), RunRecords(folder).event)
    before = own_checkpoints(config)
    while not _run(config, folder, start):
        if own_checkpoints(config) - before:
            config.trainer.resume_mode = "auto"
    if start.stopped:
        return _stopped(config, folder, start.not_saved, bool(own_checkpoints(config) - before))
    print_summary(finish_summary(folder, time.time() - start.began), folder)
    if report := write_report(folder):
        print(f"report: {report}")
    return 0


def _run(config: DictConfig, folder: Path, start: TaskRunnerStart) -> bool:
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
