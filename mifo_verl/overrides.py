"""The overrides of a command line: their form, and what each would be without them."""

import re
from collections.abc import Iterator
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from mifo_verl.errors import nearest

CHOICES = ("experiment", "method", "rl", "task", "hardware")
"""Groups that are chosen by a plain name; the other groups have a slash."""


def malformed(overrides: list[str]) -> list[str]:
    """One line for each override that is none."""
    errors = []
    for given in overrides:
        name, equals, value = given.partition("=")
        if given.startswith("-"):
            errors.append(f"{given} must be written without the dashes; write {given.lstrip('-')}")
        elif not name.strip() or not (equals or given.startswith("~")):
            errors.append(f"{given} must be setting=value, without blanks around the equals sign; write it so")
        elif (parsed := _parse(given)) is None:
            errors.append(f"{given} must be setting=value in Hydra's syntax; put quotes around '{name}={value}'")
        elif parsed.is_sweep_override():
            errors.append(f"{given} must be one value, or a list in brackets; write '{name}=[{value}]'")
    return errors


def chosen(overrides: list[str]) -> list[str]:
    """The overrides that choose a file of a group, such as ``method=mifo`` and ``mifo/constraint=none``."""
    return [given for given in overrides if "/" in given.partition("=")[0] or given.partition("=")[0] in CHOICES]


def changes(defaults: DictConfig, config: DictConfig, overrides: list[str]) -> Iterator[tuple[str, Any, Any]]:
    """(setting, value without its override, value with it) of every override of a plain value."""
    for given in overrides:
        name = given.partition("=")[0].lstrip("+~")
        if given in chosen(overrides) or given.startswith(("+", "~")) or "@" in name:
            continue
        value = OmegaConf.select(config, name)
        if not isinstance(value, DictConfig):
            yield name, OmegaConf.select(defaults, name), value


def misspelt(defaults: DictConfig, overrides: list[str]) -> Iterator[str]:
    """One line for each key added with a plus beside one that looks like it: nothing would read it."""
    for given in overrides:
        name = given.partition("=")[0]
        parent, _, key = name.lstrip("+").rpartition(".")
        node = OmegaConf.select(defaults, parent) if parent else defaults
        if not name.startswith("+") or not isinstance(node, DictConfig) or key in node:
            continue
        close = nearest(key, [str(known) for known in node], cutoff=0.85)
        if close:
            known = re.sub(r"mean (\S+)\?", rf"mean {parent}.\1?" if parent else r"mean \1?", close)
            yield f"{given}: nothing reads the new setting {name.lstrip('+')}{known}; drop the + and correct it"


def _parse(given: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(given)
    except HydraException:
        return None
