"""A sweep from its command line to its table."""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mifo_verl.compose import ConfigError
from mifo_verl.errors import require_count
from mifo_verl.tools.command_line import take
from mifo_verl.tools.sweep.check import check_arms, refuse_others
from mifo_verl.tools.sweep.definition import Definition, read_definition
from mifo_verl.tools.sweep.finish import finish
from mifo_verl.tools.sweep.plan import PlannedRun, plan
from mifo_verl.tools.sweep.run import TRAIN, Runner
from mifo_verl.tools.sweep.store import SWEEP, write_sweep


@dataclass(frozen=True)
class Settings:
    """The settings of a sweep itself; all others of its command line are those of the runs."""

    sweep: str | None = None
    sweep_dir: Path | None = None
    baseline: str | None = None
    jobs: int = 1

    def __post_init__(self) -> None:
        require_count("jobs", self.jobs, "write jobs=1")


@dataclass(frozen=True)
class Request:
    """What is to be run."""

    definition: Definition
    overrides: list[str]
    sweep_dir: Path
    jobs: int
    only_plan: bool
    command: str
    """The command line that asks for it again."""


def request(arguments: Sequence[str]) -> Request:
    """A command line, taken apart. Raises ValueError on its mistakes."""
    given = [one for one in arguments if one != "--plan"]
    own, overrides = take(Settings, given)
    definition = read_definition(own.sweep) if own.sweep else Definition()
    definition = replace(definition, baseline=own.baseline or definition.baseline)
    sweep_dir = own.sweep_dir or Path("runs") / (own.sweep or "sweep")
    return Request(definition, overrides, sweep_dir, own.jobs, "--plan" in arguments, f"mifo sweep {shlex.join(given)}")


def sweep(asked: Request, train: Sequence[str] = TRAIN) -> int:
    """Check every run, run what is not finished, and make the table; returns the exit code. Raises ConfigError."""
    runs = plan(asked.definition, asked.overrides, asked.sweep_dir)
    refuse_others(runs)
    check_arms(runs)
    if asked.only_plan:
        show_plan(runs)
        return 0
    write_sweep(asked.sweep_dir, asked.definition, asked.command, runs)
    code = Runner(train, asked.jobs).run(runs)
    try:
        finish(asked.sweep_dir)
    except ConfigError as error:
        print(f"no table: {error}", file=sys.stderr)
    return code


def show_plan(runs: Sequence[PlannedRun]) -> None:
    """Every run's folder and overrides, a line each."""
    for run in runs:
        print(f"{run.folder}: {shlex.join(run.overrides)}")


@dataclass(frozen=True)
class TableSettings:
    """The settings of ``mifo sweep table``."""

    out: Path | None = None


def table(arguments: Sequence[str]) -> int:
    """``mifo sweep table <folder> [out=<file>]``. Raises ValueError on mistakes."""
    own, folders = take(TableSettings, arguments)
    if len(folders) != 1:
        raise ValueError(f"table takes the folder of one sweep, which holds a {SWEEP}; see --help")
    finish(Path(folders[0]), own.out)
    return 0


def exit_code(action: Callable[[], int]) -> int:
    """What the action returns, or 2 after a line on stderr for each mistake that the user can fix."""
    try:
        return action()
    except ValueError as error:
        for line in error.errors if isinstance(error, ConfigError) else [error]:
            print(f"error: {line}", file=sys.stderr)
        return 2
