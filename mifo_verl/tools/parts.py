"""The parts of a run, built from its config by their registries; a part that is not known here breaks nothing."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from mifo_verl import method
from mifo_verl.method.registry import Registry


def part_of(config: Mapping[str, Any], group: str) -> Any:
    """The part that the run chose in this group of ``mifo``; None if there is none, or nobody here knows it.

    Raises ValueError if a member that is known refuses a setting.
    """
    node, registry = config["mifo"].get(group), _registries().get(group)
    if registry is None or not isinstance(node, Mapping):
        return None
    try:
        return registry.build(node)
    except ValueError:
        if node.get("name") in registry.names():
            raise
        return None


def described(config: Mapping[str, Any]) -> dict[str, str]:
    """Every part of the run in a few words, by its group; of one that nobody here knows the name and the settings."""
    found = {}
    for group, node in config["mifo"].items():
        if isinstance(node, Mapping) and {"name", "_target_"} & node.keys():
            part = part_of(config, group)
            found[group] = _told(node) if part is None else part.describe()
    return found


def _told(node: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{key}={value}" for key, value in node.items() if key != "name")
    return f"{node.get('name', '')} ({settings})".strip() if settings else str(node["name"])


@cache
def _registries() -> dict[str, Registry[Any]]:
    """Those of all groups, by group. Loads torch, which the parts are made of."""
    modules = [import_module(f"{method.__name__}.{one.name}") for one in iter_modules(method.__path__)]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Registry)]
    return {registry.group.removeprefix("mifo/"): registry for registry in found}
