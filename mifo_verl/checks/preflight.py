"""Every check that can be made before Ray starts, as one list, and what it finds."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from mifo_verl.checks import (
    data,
    engine,
    machine,
    memory,
    model,
    probes,
    ranges,
    reward,
    samples,
    steps,
    unread,
)
from mifo_verl.checks.findings import Findings
from mifo_verl.checks.memory_plan import Component
from mifo_verl.checks.run import FILES, Run, good_copy, paths_of
from mifo_verl.compose import ComposedConfig, ConfigError, compose_config
from mifo_verl.data.parquet import write_without
from mifo_verl.data.report import FileReport, write_report

REPORT = "data_report.json"
CHECKS: dict[str, Callable[[Run, Findings], None]] = {
    "settings of mifo": ranges.check_settings,
    "read": unread.check_read,
    "kinds": ranges.check_kinds,
    "ranges": ranges.check_ranges,
    "magnitudes": ranges.check_magnitudes,
    "engine": engine.check_engine,
    "batches": engine.check_batches,
    "micro-batches": engine.check_micro_batches,
    "parallelism": engine.check_parallel,
    "adapter": engine.check_adapter,
    "rollout": engine.check_rollout,
    "model's files": model.check_folder,
    "model": model.check_model,
    "window": model.check_window,
    "data's files": data.check_files,
    "steps": steps.check_steps,
    "resume": steps.check_resume,
    "checkpoint's contents": steps.check_contents,
    "checkpoint": steps.check_checkpoint,
    "tokenizer": model.check_tokenizer,
    "chat template": model.check_template,
    "rows": data.check_rows,
    "demonstrations": steps.check_demonstrations,
    "parts": steps.check_parts,
    "unused": steps.check_unused,
    "lengths": samples.check_lengths,
    "reward": reward.check_reward,
    "training pair": samples.check_pair,
    "answers": samples.check_answers,
    "verification": samples.check_demonstrations,
    "teacher": samples.check_teacher,
    "format": samples.check_format,
    "overlap": data.check_overlap,
    "trackers": machine.check_trackers,
    "GPUs and nodes": machine.check_gpus,
    "logical CPUs": machine.check_cpus,
    "run folder": machine.check_folder,
    "plug-in": machine.check_plugin,
    "probes": probes.check_probes,
    "memory": memory.check_memory,
    "disk": memory.check_disk,
}

SINGLE = ("settings of mifo", "kinds", "ranges")
"""The checks of a setting by itself."""


class Checked:
    """A run after its checks."""

    def __init__(self, run: Run, found: Findings, seconds: float) -> None:
        self.run = run
        self.found = found
        self.seconds = seconds

    @property
    def reports(self) -> list[FileReport]:
        """The data report; empty where the files could not be read."""
        try:
            return self.run.reports
        except Exception:
            return []

    @property
    def components(self) -> list[Component]:
        """The prediction of memory and disk; empty where the model could not be counted."""
        try:
            return memory.prediction(self.run)
        except Exception:
            return []

    def raise_errors(self) -> None:
        """Raise ConfigError with all errors."""
        errors = self.found.errors()
        if errors:
            raise ConfigError(*map(str, errors))


def prepare_data(config: DictConfig) -> None:
    """Make the data of a task that makes its own (``prepare``), where its files do not exist yet."""
    files = [Path(path) for path in paths_of(config.data.train_files)]
    if config.prepare and not all(path.exists() for path in files):
        command = [sys.executable, "-m", "mifo_verl.tools.prepare", config.prepare, f"out={files[0].parent}"]
        if subprocess.run(command).returncode:
            raise ConfigError(f"prepare={config.prepare} did not make {files[0]}; see the message above")


def compose_checked(overrides: list[str]) -> ComposedConfig:
    """The composed config. Raises ConfigError with what is wrong with the overrides: keys first, then values."""
    try:
        return compose_config(overrides)
    except ConfigError as error:
        values = [] if error.rest is None else _wrong_values(error.rest)
        raise ConfigError(*error.errors, *values) from None


def _wrong_values(config: ComposedConfig) -> list[str]:
    """The errors of the settings that were typed, each by itself."""
    run, found = Run(config.node, list(config.overrides)), Findings()
    for name in SINGLE:
        with found.of(name):
            CHECKS[name](run, found)
    typed = {given.partition("=")[0].lstrip("+") for given in config.overrides}
    return [str(error) for error in found.errors() if error.message.partition("=")[0] in typed]


def check_run(config: DictConfig, overrides: list[str]) -> Checked:
    """All checks of a composed, resolved config. What they print goes to stderr."""
    started, found = time.monotonic(), Findings()
    with contextlib.redirect_stdout(sys.stderr):
        run = Run(config, overrides)
        reward.start(run)
        for name, check in CHECKS.items():
            with found.of(name):
                check(run, found)
    return Checked(run, found, time.monotonic() - started)


def write_data(checked: Checked, folder: Path) -> None:
    """``data_report.json`` in the run's folder; where bad rows are skipped, the files without them, which it reads."""
    write_report(checked.reports, folder / REPORT)
    config = checked.run.config
    if config.data.on_bad_row != "skip":
        return
    for setting in FILES:
        paths = []
        for number, scan in enumerate(checked.run.scans(setting)):
            copy = good_copy(folder, setting, number)
            if scan.bad:
                write_without(scan.path, scan.bad, copy)
            paths.append(str(copy if scan.bad else scan.path))
        config.data[setting.partition(".")[2]] = paths
