"""From a checked config to a running controller: Ray, verl's task runner with our trainer, the final table."""

import time
from pathlib import Path
from typing import Any

import ray
from omegaconf import DictConfig, OmegaConf
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from mifo_verl.bridge.compose import ConfigError
from mifo_verl.bridge.progress import ProgressDisplay, print_summary
from mifo_verl.bridge.records import CONFIG, METRICS, finish_summary
from mifo_verl.plugin import require_loaded

_TaskRunner: Any = TaskRunnerV1.__ray_metadata__.modified_class


class MifoTaskRunner(_TaskRunner):
    """verl's task runner in a process that must have our plug-in."""

    def run(self, config: DictConfig) -> None:
        require_loaded()
        super().run(config)


def launch(config: DictConfig) -> None:
    """Run a training to its end. Raises ConfigError where verl itself refuses the config."""
    started = time.time()
    try:
        require_loaded()
        validate_config(
            config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config)
        )
    except (AssertionError, ValueError, RuntimeError) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    folder = _run_folder(Path(config.run_dir), resumes=config.trainer.resume_mode != "disable")
    (folder / CONFIG).write_text(OmegaConf.to_yaml(config, resolve=True))
    try:
        with ProgressDisplay(folder, config):
            run_ppo(config, ray.remote(num_cpus=1)(MifoTaskRunner))
    finally:
        ray.shutdown()
    print_summary(finish_summary(folder, time.time() - started), folder)


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
