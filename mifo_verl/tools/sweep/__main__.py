"""``python -m mifo_verl.tools.sweep``: methods x seeds x settings, run by run, then a table of what can be claimed.

Exit code 0 when every run has ended; 1 when one has failed; 2 for what a user can fix, found before the first run
starts; 75 when it was asked to stop: the same command goes on.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mifo_verl.compose import ConfigError
from mifo_verl.tools.sweep.check import check_arms
from mifo_verl.tools.sweep.definition import Definition, read_definition
from mifo_verl.tools.sweep.finish import finish
from mifo_verl.tools.sweep.plan import PlannedRun, plan
from mifo_verl.tools.sweep.run import TRAIN, Runner, refuse_others
from mifo_verl.tools.sweep.store import SWEEP, write_sweep

USAGE = """usage: python -m mifo_verl.tools.sweep [setting=value,value ...] [sweep=<name>] [sweep_dir=<folder>]
       python -m mifo_verl.tools.sweep table <folder> [out=<file>]

  experiment=quickstart method=mifo,rl_only seed=0,1,2    every combination is a run; seed=range(0,5) is 0 to 4
  sweep=<name>         the arms of trainer_configs/sweep/<name>.yaml, with these settings over theirs
  sweep_dir=<folder>   where the runs are kept (default runs/sweep); the same command goes on there
  baseline=<arm>       what the other arms are compared with (default: the first)
  jobs=<n>             runs at a time (default 1)
  --plan               check and list the runs, and stop
  table                make the table again, of the runs that are finished"""


@dataclass(frozen=True)
class Request:
    """A command line, taken apart."""

    definition: Definition
    overrides: list[str]
    sweep_dir: Path
    jobs: int
    only_plan: bool
    command: str


def main(arguments: list[str], train: Sequence[str] = TRAIN) -> int:
    """Run a sweep, or make its table again; returns the exit code. ``train`` is the command that runs a training."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0 if arguments else 2
    try:
        if arguments[0] == "table":
            _table(arguments[1:])
            return 0
        return sweep(request(arguments), train)
    except ConfigError as error:
        for line in error.errors:
            print(f"error: {line}", file=sys.stderr)
        return 2


def request(arguments: list[str], module: str = "mifo_verl.tools.sweep") -> Request:
    """Our own settings and those of the runs. Raises ConfigError on a number of jobs that is none."""
    own = {"sweep": "", "sweep_dir": "", "baseline": "", "jobs": "1"}
    overrides = []
    for given in arguments:
        name, equals, value = given.partition("=")
        if equals and name in own:
            own[name] = value
        elif given != "--plan":
            overrides.append(given)
    if not own["jobs"].isdigit() or own["jobs"] == "0":
        raise ConfigError(f"jobs={own['jobs']} must be a whole number of at least 1; write jobs=1")
    definition = read_definition(own["sweep"]) if own["sweep"] else Definition()
    definition = replace(definition, baseline=own["baseline"] or definition.baseline)
    sweep_dir = Path(own["sweep_dir"] or f"runs/{own['sweep'] or 'sweep'}").expanduser()
    command = shlex.join(["python", "-m", *module.split(), *(one for one in arguments if one != "--plan")])
    return Request(definition, overrides, sweep_dir, int(own["jobs"]), "--plan" in arguments, command)


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


def _table(arguments: list[str]) -> None:
    outs = [one.removeprefix("out=") for one in arguments if one.startswith("out=")]
    folders = [one for one in arguments if not one.startswith("out=")]
    if len(folders) != 1 or len(outs) > 1:
        raise ConfigError(f"table takes the folder of one sweep, which holds a {SWEEP}; see --help")
    finish(Path(folders[0]), Path(outs[0]) if outs else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
