"""The runs of a sweep: composed before the first one starts, each in a folder of a readable, stable name."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from mifo_verl.compose import ComposedConfig, ConfigError, compose_config
from mifo_verl.config import config_errors
from mifo_verl.errors import nearest
from mifo_verl.run.flatten import settings_of
from mifo_verl.tools.sweep.definition import Definition

_PLAIN = ("method", "experiment", "rl", "task", "hardware")
"""Groups whose value says enough without its name."""


@dataclass(frozen=True)
class Combination:
    """The overrides of one run, and the values among them that were swept."""

    overrides: list[str]
    swept: dict[str, str]


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
        return settings_of(self.composed.to_dict())


def expand(overrides: list[str]) -> list[Combination]:
    """Every combination of Hydra's multirun overrides (``seed=0,1``, ``range(0,5)``, ``choice(a,b)``), the last key
    changing fastest. Of a key given twice, the last.

    Raises ConfigError on sweeps without an end to their values.
    """
    last = {given.partition("=")[0].strip(): given for given in overrides}
    swept = {key: values for key, given in last.items() if (values := _values(given)) is not None}
    kept = [given for key, given in last.items() if key not in swept]
    chosen = [dict(zip(swept, values, strict=True)) for values in product(*swept.values())]
    return [Combination(kept + [f"{key}={value}" for key, value in one.items()], one) for one in chosen]


def _values(given: str) -> list[str] | None:
    """The values of a swept override; None if it has one value."""
    try:
        parsed = OverridesParser.create().parse_override(given)
    except HydraException:
        return None  # composing it says what is wrong
    if not parsed.is_sweep_override():
        return None
    if not (parsed.is_choice_sweep() or parsed.is_range_sweep()):
        raise ConfigError(f"{given} must be values that can be counted; write them with commas, or as range(0,5)")
    return list(parsed.sweep_string_iterator())


def plan(definition: Definition, overrides: list[str], sweep_dir: Path) -> list[PlannedRun]:
    """Every run, arm by arm. Raises ConfigError with all that is wrong in any of them."""
    _refuse_unknown_arms(definition)
    runs: list[PlannedRun] = []
    errors: dict[str, list[str]] = {}
    for arm, combinations in _by_arm(definition, overrides).items():
        try:
            runs += _compose_arm(arm, combinations, sweep_dir)
        except ConfigError as error:
            for line in error.errors:
                errors.setdefault(line, []).append(arm or "every run")
    if errors:
        raise ConfigError(*in_arms(errors))
    if not runs:
        raise ConfigError("the sweep has no run; give it values, e.g. method=mifo,rl_only seed=0,1,2")
    _refuse_alike(runs)
    return runs


def _by_arm(definition: Definition, overrides: list[str]) -> dict[str, list[Combination]]:
    """Combinations that differ in nothing but the seed, by the label of their arm."""
    found: dict[str, list[Combination]] = {}
    for label, own in definition.arms.items():
        for one in expand([*definition.overrides, *own, *overrides]):
            found.setdefault(arm_label(label, one), []).append(one)
    return found


def arm_label(label: str, one: Combination) -> str:
    """The arm's own label and the values swept inside it, without the seed: ``rho=0.2``, ``mifo,share=0.5``."""
    keys = [key for key in one.swept if key != "seed"]
    if label and len(keys) == 1:
        return f"{label}={one.swept[keys[0]]}"
    parts = [one.swept[key] if key in _PLAIN else f"{_short(key, keys)}={one.swept[key]}" for key in keys]
    return ",".join([label, *parts] if label else parts)


def _short(key: str, keys: list[str]) -> str:
    """The shortest ending of a dotted key that no other swept key has."""
    split = {one: re.split(r"[./]", one) for one in keys}
    endings = (split[key][-length:] for length in range(1, len(split[key]) + 1))
    return next(
        (".".join(own) for own in endings if sum(other[-len(own) :] == own for other in split.values()) == 1), key
    )


def _refuse_unknown_arms(definition: Definition) -> None:
    """Raise ConfigError if a question is of an arm that the definition by itself does not have."""
    arms = list(_by_arm(definition, []))
    errors = [
        f"{arm} in the pairs of '{question.ask}' must be one of {', '.join(arms)}{nearest(arm, arms)}; correct it"
        for question in definition.questions
        for arm in dict.fromkeys(arm for pair in question.pairs for arm in pair)
        if arm not in arms
    ]
    if errors:
        raise ConfigError(*errors)


def in_arms(errors: Mapping[str, Sequence[str]]) -> list[str]:
    """Each error once, with the arms that have it."""
    told = []
    for line, arms in errors.items():
        more = f" and {len(arms) - 3} more" if len(arms) > 3 else ""
        told.append(f"{line} (in {', '.join(arms[:3])}{more})")
    return told


def _compose_arm(arm: str, combinations: list[Combination], sweep_dir: Path) -> list[PlannedRun]:
    """The runs of one arm. Raises ConfigError."""
    methods = [given.partition("=")[2] for given in combinations[0].overrides if given.startswith("method=")]
    composed = [compose_config(one.overrides) for one in combinations]
    errors = config_errors(composed[0].to_dict()["mifo"])
    if errors:
        raise ConfigError(*errors)
    arm = arm or (methods or ["run"])[-1]
    return [_planned(arm, one, own, sweep_dir) for one, own in zip(combinations, composed, strict=True)]


def _planned(arm: str, one: Combination, composed: ComposedConfig, sweep_dir: Path) -> PlannedRun:
    seed = int(composed.node.seed)
    plain = re.sub(r"[=,]", "-", arm)  # both mean something to a command line
    name = f"{re.sub(r'[^A-Za-z0-9._+-]', '_', plain)}-seed{seed}"
    folder = sweep_dir / name
    composed.node.run_dir = str(folder.absolute())
    text = str(folder)  # quoted, Hydra reads it back whatever is in it
    quoted = text if re.fullmatch(r"[A-Za-z0-9._/+-]+", text) else "'" + text.replace("'", "\\'") + "'"
    return PlannedRun(arm, seed, name, folder, [*one.overrides, f"name={name}", f"run_dir={quoted}"], composed)


def _refuse_alike(runs: list[PlannedRun]) -> None:
    """Raise ConfigError if two runs have one folder, or the same settings."""
    by_name = {run.name: run for run in runs}
    by_settings: dict[str, PlannedRun] = {}
    errors = [
        f"two runs would be kept in {run.name} ({run.arm} and {by_name[run.name].arm}); label them otherwise"
        for run in runs
        if by_name[run.name] is not run
    ]
    for run in runs:
        other = by_settings.setdefault(str(sorted(run.settings.items())), run)
        if other is not run:
            errors.append(f"{other.name} and {run.name} have the same settings; take one of these arms out")
    if errors:
        raise ConfigError(*errors)
