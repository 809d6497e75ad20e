"""Whether a folder holds a run of these settings: everything but where it is kept, shown and resumed from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mifo_verl.run.flat import flat
from mifo_verl.run.journal import CONFIG, SUMMARY

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
_SHOWN = 5


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved config as flat settings, without ``PLACES``."""
    own = flat(config)
    return {key: own[key] for key in sorted(own) if not any(key == one or key.startswith(f"{one}.") for one in PLACES)}


def differences(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """In which settings the run of a folder differs, in words; None where it does not, or no run is there."""
    if not (folder / CONFIG).exists():
        return None
    held = settings_of(yaml.load((folder / CONFIG).read_text(), yaml.CSafeLoader))
    keys = [key for key in sorted({*held, *settings}) if held.get(key) != settings.get(key)]
    if not keys:
        return None
    shown = [f"{key}={settings.get(key)} (the folder has {held.get(key)})" for key in keys[:_SHOWN]]
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return "; ".join(shown) + more


def is_finished(folder: Path) -> bool:
    """Whether the run of a folder has come to its end."""
    try:
        return "sft_phases" in json.loads((folder / SUMMARY).read_text())
    except (OSError, json.JSONDecodeError):
        return False
