"""From a checked config to a running controller: the run's folder, Ray, restarts, the final table.

Two locks keep two runs apart. The process of ``mifo train`` holds the launch's lock from before it touches the folder
until it ends. The controller, which may be on another machine and may outlive that process, holds the records' lock. A
launch waits for both, so that it moves and overwrites nothing of a run that goes on.
"""

import fcntl
import functools
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import ray
from omegaconf import DictConfig, OmegaConf
from ray._private import services
from ray.exceptions import RayError
from verl.trainer.main_ppo import run_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from mifo_verl.compose import ConfigError
from mifo_verl.plugin import require_loaded
from mifo_verl.run.display import ProgressDisplay, print_summary
from mifo_verl.run.journal import CONFIG, ENDED, METRICS, RunRecords, replace_text
from mifo_verl.run.resume import check_resume, checkpoint_facts, own_checkpoints, start_from_weights
from mifo_verl.run.stacks import FOLDER, open_folder
from mifo_verl.run.summary import finish_summary
from mifo_verl.run.versions import record_versions
from mifo_verl.settings import WatchdogConfig
from mifo_verl.verl.saving import Stopped
from mifo_verl.verl.task_runner import EXIT_NOT_SAVED, EXIT_STOPPED, TaskRunnerStart

LAUNCH_LOCK = ".launch.lock"
TRACKED = "tracked_run"
"""The file with the id that a tracker knows the run by."""
RAY_IS_LATE = "The current node timed out during startup"
"""What Ray says where its own processes start too slowly."""
_POLL_SECONDS = 0.5
_REPORT_SECONDS = 600.0
RAY_TRIES = 3

# Ray's daemons in a session of their own: timeout, Slurm and a terminal signal the whole group of this process, which
# then asks the run to stop with a checkpoint, and Ray has to be there for that. Ray still ends when this process does.
services.ConsolePopen = functools.partial(services.ConsolePopen, start_new_session=True)


def launch(config: DictConfig, write_data: Callable[[Path], None]) -> int:
    """Run a training to its end, or until it is asked to stop; returns the exit code.

    ``write_data`` puts into the run's folder what the run reads from there, and points the config at it. Raises
    ConfigError if verl itself refuses the config, or if a checkpoint belongs to another run.
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
    if config.trainer.resume_mode == "weights":
        start_from_weights(config, RunRecords(folder).event)
    if resumes and (facts := checkpoint_facts(config)):
        for warning in check_resume(facts, config):
            print(f"warning: {warning}")
    replace_text(folder / CONFIG, OmegaConf.to_yaml(config, resolve=True))
    record_versions(folder)
    environment = "ray_kwargs.ray_init.runtime_env.env_vars"
    OmegaConf.update(config, f"{environment}.{FOLDER}", str(open_folder(folder)), force_add=True)
    tracked = {name: value for name, value in tracked_run(folder).items() if name not in config.env}
    OmegaConf.update(config, environment, tracked, force_add=True, merge=True)
    if os.environ.get("RAY_ADDRESS", "local") not in ("", "local"):  # a cluster that is there already has its own
        OmegaConf.update(config, "ray_kwargs.ray_init", {"num_cpus": None, "num_gpus": None}, force_add=True)
    start = TaskRunnerStart(WatchdogConfig(**config.mifo.watchdog), RunRecords(folder).event)
    before = own_checkpoints(config)
    while not _run(config, folder, start):
        if own_checkpoints(config) - before:
            config.trainer.resume_mode = "auto"
    if start.stopped:
        return _stopped(config, folder, start.not_saved, bool(own_checkpoints(config) - before))
    print_summary(finish_summary(folder, time.time() - start.began), folder)
    write_report(folder)
    return 0


def tracked_run(folder: Path) -> dict[str, str]:
    """The environment in which W&B takes every process of this folder for the same run, be it resumed.

    A name of its own for every run: a folder's first run is moved aside with it.
    """
    if not (folder / TRACKED).exists():
        replace_text(folder / TRACKED, secrets.token_hex(8))
    return {"WANDB_RUN_ID": (folder / TRACKED).read_text(), "WANDB_RESUME": "allow"}


def _run(config: DictConfig, folder: Path, start: TaskRunnerStart) -> bool:
    """One attempt; whether it came to its end or was stopped. Raises what ended it if no restart is left."""
    try:
        with ProgressDisplay(folder, config):
            with_patience(lambda: run_ppo(config, start), RunRecords(folder).event)
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


def with_patience(train: Callable[[], None], emit: Callable[[str, str], None]) -> None:
    """Train; if Ray starts too slowly, it gets ``RAY_TRIES`` in all. Raises ConfigError after the last."""
    for left in reversed(range(RAY_TRIES)):
        try:
            with slow_start_in_one_line():
                return train()
        except ConfigError:
            if not left:
                raise
            emit("restart", f"Ray has not started within 30 s, and is started again; {left} tries are left")
            ray.shutdown()


@contextmanager
def slow_start_in_one_line() -> Iterator[None]:
    """Raises ConfigError where Ray's own processes took over 30 s to start, a limit that no setting of Ray changes.

    Source: ``ray._private.node``, Ray 2.60.
    """
    try:
        yield
    except Exception as error:
        if RAY_IS_LATE not in str(error):
            raise
        cure = "run the same command again when less else runs on this machine"
        raise ConfigError(f"Ray must start within 30 s, and did not: the machine is too busy; {cure}") from None


def _stopped(config: DictConfig, folder: Path, not_saved: str | None, has_saved: bool) -> int:
    """The last line of a run that was asked to stop; returns the exit code."""
    RunRecords(folder).event(ENDED, f"stopped on request{f', not saved: {not_saved}' if not_saved else ''}")
    if not_saved is not None:
        print(f"stopped on request and NOT SAVED: {not_saved} ({folder})")
        return EXIT_NOT_SAVED
    as_told = config.trainer.resume_mode == "resume_path" and not has_saved
    how = "which has made no checkpoint yet," if as_told else "with trainer.resume_mode=auto"
    print(f"stopped on request; the same command {how} goes on in {folder}")
    return EXIT_STOPPED


def write_report(folder: Path) -> None:
    """Make the report, in a process of its own: a run needs no tool, and no report can harm a run."""
    command = [sys.executable, "-m", "mifo_verl.tools.report", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_REPORT_SECONDS)
        failure = (done.stderr.strip().splitlines() or ["it says nothing"])[-1] if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    if failure is not None:
        print(f"warning: no report of {folder}: {failure}; mifo report {folder} makes it again")
    else:
        print(f"report: {folder / 'report.html'}")


class RunFolder:
    """A run's folder, this process's own until it ends."""

    def __init__(self, path: Path, resumes: bool, patience_seconds: float = 60.0) -> None:
        """Take it; a run that was there before goes on, or is moved aside: never mixed with or deleted.

        Raises ConfigError if another run still holds it after so long.
        """
        self.path = path
        deadline = time.monotonic() + patience_seconds
        self._locks = [self._hold(deadline)]
        try:
            RunRecords(path).lock(max(0.0, deadline - time.monotonic()))  # the controller's, released at once
        except RuntimeError:
            raise self._is_held() from None
        if (path / METRICS).exists() and not resumes:
            print(f"{path} held a run; it is now {self._move_aside()}")
            self._locks.append(self._hold(deadline))

    def _hold(self, deadline: float) -> IO[str]:
        """The launch's lock in the folder that has the name now; a launch before this one may rename it meanwhile."""
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / LAUNCH_LOCK, "a")  # noqa: SIM115  held while this process lives
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock.fileno()), (self.path / LAUNCH_LOCK).stat()):
                    return lock
            except FileNotFoundError:
                pass
            except OSError:
                if time.monotonic() > deadline:
                    raise self._is_held() from None
            lock.close()
            time.sleep(_POLL_SECONDS)

    def _move_aside(self) -> Path:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.path.rename(aside)
        return aside

    def _is_held(self) -> ConfigError:
        return ConfigError(
            f"run_dir={self.path} must not be used by two runs at a time, and another one holds it; stop that one, or "
            "choose another run_dir"
        )
