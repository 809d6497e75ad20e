"""Every check that a training makes before it starts, made for one run of each arm before the first one starts."""

import os
from collections.abc import Sequence

from mifo_verl.checks.preflight import check_run, prepare_data
from mifo_verl.compose import ConfigError
from mifo_verl.tools.sweep.identity import is_finished
from mifo_verl.tools.sweep.plan import PlannedRun, in_arms


def check_arms(runs: Sequence[PlannedRun]) -> None:
    """Raise ConfigError with the errors of every arm. Arms that have a finished run have passed already."""
    passed = {run.arm for run in runs if is_finished(run.folder)}
    first: dict[str, PlannedRun] = {}
    for run in runs:
        if run.arm not in passed:
            first.setdefault(run.arm, run)
    errors: dict[str, list[str]] = {}
    for run in first.values():
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
