"""Every check that can be made before Ray starts, as one list; its table, its JSON, and its errors."""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from mifo_verl.checks import (
    batches,
    checkpoint,
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
)
from mifo_verl.checks.findings import Findings, Status
from mifo_verl.checks.memory_plan import PHASES, Component, Place, total
from mifo_verl.checks.run import FILES, Run, good_copy, paths_of
from mifo_verl.compose import ConfigError
from mifo_verl.data.bad_rows import write_good_rows
from mifo_verl.data.report import FileReport, write_report

REPORT = "data_report.json"
CHECKS: dict[str, Callable[[Run, Findings], None]] = {
    "settings of mifo": ranges.check_settings,
    "kinds": ranges.check_kinds,
    "ranges": ranges.check_ranges,
    "magnitudes": ranges.check_magnitudes,
    "trainer": engine.check_trainer,
    "engine": engine.check_engine,
    "batches": batches.check_batches,
    "micro-batches": batches.check_micro_batches,
    "parallelism": engine.check_parallel,
    "rollout": engine.check_rollout,
    "model's files": model.check_folder,
    "model": model.check_model,
    "window": model.check_window,
    "data's files": data.check_files,
    "hard prompts": steps.check_selection,
    "steps": steps.check_steps,
    "resume": steps.check_resume,
    "checkpoint's contents": checkpoint.check_contents,
    "checkpoint": checkpoint.check_checkpoint,
    "tokenizer": model.check_tokenizer,
    "chat template": model.check_template,
    "rows": data.check_rows,
    "demonstrations": steps.check_buffer,
    "lengths": samples.check_lengths,
    "reward": reward.check_reward,
    "verification": samples.check_demonstrations,
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
_COLOURS = {Status.OK: "green", Status.SKIPPED: "dim", Status.WARNING: "yellow", Status.ERROR: "red"}


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
        from mifo_verl.tools.prepare.__main__ import main as make_data

        if make_data([config.prepare, f"out={files[0].parent}"]):
            raise ConfigError(f"prepare={config.prepare} did not make {files[0]}; see the message above")


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
                write_good_rows(scan, copy)
            paths.append(str(copy if scan.bad else scan.path))
        config.data[setting.partition(".")[2]] = paths


def print_table(checked: Checked) -> None:
    """One table of all findings, then the data's bad rows and the prediction of memory and disk."""
    console = Console(highlight=False)
    table = Table(title="Checks", title_justify="left")
    for column in ("check", "status", "finding", "cure"):
        table.add_column(column, overflow="fold")
    for finding in checked.found.all:
        colour = _COLOURS[finding.status]
        row = (finding.check, finding.status.value, finding.message, finding.cure)
        table.add_row(*(text.replace("[", r"\[") for text in row), style=colour if finding.cure else None)
    console.print(table)
    print_bad_rows(checked)
    _print_components(checked.components, console)
    errors, warnings = len(checked.found.errors()), len(checked.found.warnings())
    console.print(f"{errors} errors, {warnings} warnings in {checked.seconds:.1f} s")


def print_bad_rows(checked: Checked) -> None:
    """A table of the bad rows by reason, with the first five of each; nothing where there are none."""
    table = Table(title="Bad rows", title_justify="left")
    for column in ("file", "reason", "rows", "the first five"):
        table.add_column(column, overflow="fold")
    for report in checked.reports:
        for bad in report.bad:
            first = "\n".join(f"{shown['row']}: {shown['text']}" for shown in bad.first)
            table.add_row(report.path, bad.reason, str(bad.num_rows), first.replace("[", r"\["))
    if table.row_count:
        Console(highlight=False).print(table)


def _print_components(components: list[Component], console: Console) -> None:
    if not components:
        return
    table = Table(title="Memory and disk, predicted", title_justify="left")
    for column in ("where", "component", *PHASES, "formula"):
        table.add_column(column, justify="right" if column in PHASES else "left")
    for component in components:
        shown = memory.size(component.num_bytes)
        cells = [shown if phase in component.phases else "" for phase in PHASES]
        table.add_row(component.place, component.name, *cells, component.formula)
    sums: tuple[tuple[Place, str], ...] = (("device", "a rank"), ("host", "a node"), ("disk", "in all"))
    for place, per in sums:
        cells = [memory.size(total(components, place, phase)) for phase in PHASES]
        table.add_row(place, f"sum, {per}", *cells, "", style="bold")
    console.print(table)


def to_json(found: Findings, checked: Checked | None = None) -> str:
    """Findings, data report and prediction for machines; the findings alone where there is no config to check."""
    said: dict[str, Any] = {"findings": [asdict(one) | {"status": one.status.value} for one in found.all]}
    if checked is not None:
        said["data"] = [asdict(report) for report in checked.reports]
        said["memory"] = [asdict(component) for component in checked.components]
        said["seconds"] = round(checked.seconds, 2)
    return json.dumps(said, indent=2)
