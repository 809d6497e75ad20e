"""All that is checked before the first run starts: every check that a training makes, and folders that are taken."""

import os
from collections.abc import Sequence

import yaml

from mifo_verl.compose import ConfigError
from mifo_verl.run.flatten import settings_of
from mifo_verl.run.journal import CONFIG
from mifo_verl.tools.sweep.plan import PlannedRun, in_arms
from mifo_verl.tools.sweep.store import is_finished

_SHOWN = 5


def check_arms(runs: Sequence[PlannedRun]) -> None:
    """Check one run of each arm. Raises ConfigError with all errors. Arms that have a finished run have passed."""
    from mifo_verl.checks.preflight import check_run, prepare_data

    passed = {run.arm for run in runs if is_finished(run.folder)}
    first = {run.arm: run for run in reversed(runs) if run.arm not in passed}
    errors: dict[str, list[str]] = {}
    for run in reversed(first.values()):
        environment = dict(os.environ)
        os.environ.update(run.composed.environment())
        try:
            prepare_data(run.composed.node)
            for error in check_run(run.composed.node, run.overrides).found.errors():
                errors.setdefault(str(error), []).append(run.arm)
        finally:
            os.environ.clear()
            os.environ.update(environment)
    if errors:
        raise ConfigError(*in_arms(errors))


def refuse_others(runs: Sequence[PlannedRun]) -> None:
    """Raise ConfigError if a folder holds a run of other settings: it is neither skipped nor written over."""
    errors = [
        f"{run.folder} holds a run of other settings: {differing}; set them back, choose another sweep_dir, or move "
        "that folder away"
        for run in runs
        if (differing := _differences(run))
    ]
    if errors:
        raise ConfigError(*errors)


def _differences(run: PlannedRun) -> str:
    """In which settings the run in this one's folder differs, in words; '' if it does not, or no run is there."""
    if not (run.folder / CONFIG).exists():
        return ""
    held = settings_of(yaml.load((run.folder / CONFIG).read_text(), yaml.CSafeLoader))
    own = run.settings
    keys = [key for key in sorted({*held, *own}) if held.get(key) != own.get(key)]
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return "; ".join(f"{key}={own.get(key)} (the folder has {held.get(key)})" for key in keys[:_SHOWN]) + more
