"""A nested config as flat settings: ``mifo.constraint.share`` to its value. Standard library only."""

from collections.abc import Mapping
from typing import Any

PLACES = (
    "name",
    "run_dir",
    "restarts",
    "hydra",
    "trainer.experiment_name",
    "trainer.project_name",
    "trainer.default_local_dir",
    "trainer.logger",
    "trainer.resume_mode",
    "trainer.resume_from_path",
    "mifo.watchdog",
    "actor_rollout_ref.rollout.trace",
    "ray_kwargs.ray_init.runtime_env.env_vars",
)
"""Settings, and groups of them, that say where a run is kept, shown and resumed from, and not what it computes."""


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """The settings by their full name, in the config's order; an empty group is a setting of its own."""
    if not isinstance(node, Mapping) or not node:
        return {prefix: node}
    found: dict[str, Any] = {}
    for name, child in node.items():
        found |= flatten(child, f"{prefix}.{name}" if prefix else str(name))
    return found


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved config as flat settings without ``PLACES``, sorted: two runs with the same ones are alike."""
    own = flatten(config)
    return {key: own[key] for key in sorted(own) if not any(f"{key}.".startswith(f"{one}.") for one in PLACES)}
