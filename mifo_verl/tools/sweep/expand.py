"""Hydra's multirun overrides (``seed=0,1``, ``range(0,5)``, ``choice(a,b)``) as single combinations."""

from dataclasses import dataclass
from itertools import product

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from mifo_verl.compose import ConfigError


@dataclass(frozen=True)
class Combination:
    """The overrides of one run, and the values among them that were swept."""

    overrides: list[str]
    swept: dict[str, str]


def expand(overrides: list[str]) -> list[Combination]:
    """Every combination, the last key changing fastest, as Hydra's own multirun does. Of a key given twice, the last.

    Raises ConfigError on overrides that are none, and on sweeps without an end to their values.
    """
    last = {_key(given): given for given in overrides}
    values = {key: _values(given) for key, given in last.items()}
    swept = [key for key, choices in values.items() if choices is not None]
    kept = [given for key, given in last.items() if values[key] is None]
    found = []
    for chosen in product(*(values[key] or [] for key in swept)):
        pairs = dict(zip(swept, chosen, strict=True))
        found.append(Combination(kept + [f"{key}={value}" for key, value in pairs.items()], pairs))
    return found


def _key(given: str) -> str:
    return given.partition("=")[0].strip()


def _values(given: str) -> list[str] | None:
    """The values of a swept override; None where it has one value."""
    try:
        parsed: Override = OverridesParser.create().parse_override(given)
    except HydraException:
        return None  # composing it says what is wrong
    if not parsed.is_sweep_override():
        return None
    if not (parsed.is_choice_sweep() or parsed.is_range_sweep()):
        raise ConfigError(f"{given} must be values that can be counted; write them with commas, or as range(0,5)")
    return list(parsed.sweep_string_iterator())
