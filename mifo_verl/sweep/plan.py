"""The runs of a sweep: composed before the first one starts, each in a folder of a readable, stable name."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mifo_verl.bridge.compose import ComposedConfig, ConfigError, compose_config
from mifo_verl.bridge.expand import Combination, expand
from mifo_verl.config import config_errors
from mifo_verl.sweep.definition import Definition
from mifo_verl.sweep.identity import settings_of

_PLAIN = ("method", "experiment", "rl", "task", "hardware")
"""Groups whose value says enough without its name."""


@dataclass(frozen=True)
class PlannedRun:
    """One run: arm and seed are what it is compared by."""

    arm: str
    seed: int
    name: str
    folder: Path
    overrides: list[str]
    """All that the training is started with."""
    composed: ComposedConfig

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Its resolved settings without places, flat."""
        return settings_of(yaml.safe_load(self.composed.to_yaml()))


def plan(definition: Definition, overrides: list[str], sweep_dir: Path) -> list[PlannedRun]:
    """Every run, arm by arm. Raises ConfigError with all that is wrong in any of them."""
    runs: list[PlannedRun] = []
    errors: dict[str, list[str]] = {}
    for label, own in definition.arms.items():
        for one in expand([*definition.overrides, *own, *overrides]):
            arm = arm_label(label, one)
            try:
                runs.append(_compose(arm, one, sweep_dir))
            except ConfigError as error:
                for line in error.errors:
                    errors.setdefault(line, []).append(arm or "every run")
    if errors:
        raise ConfigError(*in_arms(errors))
    if not runs:
        raise ConfigError("the sweep has no run; give it values, e.g. method=mifo,rl_only seed=0,1,2")
    _refuse_alike(runs)
    return runs


def in_arms(errors: Mapping[str, Sequence[str]]) -> list[str]:
    """Each error once, with the arms that have it."""
    told = []
    for line, arms in errors.items():
        more = f" and {len(arms) - 3} more" if len(arms) > 3 else ""
        told.append(f"{line} (in {', '.join(arms[:3])}{more})")
    return told


def arm_label(label: str, one: Combination) -> str:
    """The arm's own label and the values swept inside it, without the seed: ``rho=0.2``, ``mifo,share=0.5``."""
    keys = [key for key in one.swept if key != "seed"]
    if label and len(keys) == 1:
        return f"{label}={one.swept[keys[0]]}"
    parts = [one.swept[key] if key in _PLAIN else f"{_short(key, keys)}={one.swept[key]}" for key in keys]
    return ",".join([label, *parts] if label else parts)


def _short(key: str, keys: list[str]) -> str:
    """The shortest ending of a dotted key that no other swept key has."""
    parts = re.split(r"[./]", key)
    for length in range(1, len(parts) + 1):
        own = parts[-length:]
        if sum(re.split(r"[./]", other)[-length:] == own for other in keys) == 1:
            return ".".join(own)
    return key


def _compose(arm: str, one: Combination, sweep_dir: Path) -> PlannedRun:
    composed = compose_config(one.overrides)
    seed = int(composed.node.seed)
    arm = arm or _chosen(one.overrides, "method") or "run"
    plain = re.sub(r"[=,]", "-", arm)  # both mean something to a command line
    name = f"{re.sub(r'[^A-Za-z0-9._+-]', '_', plain)}-seed{seed}"
    errors = config_errors(yaml.safe_load(composed.to_yaml())["mifo"])
    if errors:
        raise ConfigError(*errors)
    folder = sweep_dir / name
    overrides = [*one.overrides, f"name={name}", f"run_dir={_quoted(str(folder))}"]
    return PlannedRun(arm, seed, name, folder, overrides, composed)


def _quoted(text: str) -> str:
    """A value as Hydra reads it back, whatever is in it."""
    return text if re.fullmatch(r"[A-Za-z0-9._/+-]+", text) else "'" + text.replace("'", "\\'") + "'"


def _chosen(overrides: list[str], key: str) -> str:
    return next((given.partition("=")[2] for given in reversed(overrides) if given.partition("=")[0] == key), "")


def _refuse_alike(runs: list[PlannedRun]) -> None:
    errors = [*_twice({run.name: run for run in runs}, runs)]
    by_settings: dict[str, PlannedRun] = {}
    for run in runs:
        other = by_settings.setdefault(str(sorted(run.settings.items())), run)
        if other is not run:
            errors.append(f"{other.name} and {run.name} have the same settings; take one of these arms out")
    if errors:
        raise ConfigError(*errors)


def _twice(by_name: dict[str, PlannedRun], runs: list[PlannedRun]) -> Iterator[str]:
    for run in runs:
        if by_name[run.name] is not run:
            yield f"two runs would be kept in {run.name} ({run.arm} and {by_name[run.name].arm}); label them otherwise"
