"""Hydra composition with errors in one line: what was set, why it is wrong, what to do."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mifo_verl.errors import nearest
from mifo_verl.overrides import chosen, malformed

PACKAGE = Path(__file__).parent
_MOST_ERRORS = 8


class ConfigError(ValueError):
    """Something that the user can fix before a run starts: one line for each mistake."""

    def __init__(self, *errors: str) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(errors))


def config_folder() -> Path:
    """trainer_configs/ beside the package in a checkout, inside it where it is installed."""
    beside = PACKAGE.parent / "trainer_configs"
    return beside if (beside / "mifo.yaml").exists() else PACKAGE / "trainer_configs"


def config_folders(overrides: Sequence[str] = ()) -> list[Path]:
    """The folders in which the YAML of a group may lie."""
    return [config_folder()]


@dataclass(frozen=True)
class ComposedConfig:
    """A run's whole config, resolved."""

    node: DictConfig

    def environment(self) -> dict[str, str]:
        """The environment variables of the run's processes."""
        trackers = {"TENSORBOARD_DIR": f"{self.node.run_dir}/tensorboard", "WANDB_DIR": str(self.node.run_dir)}
        return trackers | {str(name): str(value) for name, value in self.node.env.items()}

    def to_yaml(self) -> str:
        """The config as YAML."""
        return OmegaConf.to_yaml(self.node)

    def to_dict(self) -> dict[str, Any]:
        """The config as plain values."""
        return OmegaConf.to_container(self.node, resolve=True)  # type: ignore[return-value]


def compose_config(overrides: list[str]) -> ComposedConfig:
    """Compose ``trainer_configs/mifo.yaml`` with overrides, on top of verl's own config.

    Raises ConfigError on unknown keys or choices, malformed overrides, or a setting that must be given and is not.
    """
    return _resolved(_composed(overrides))


def compose_seeds(overrides: list[str], seeds: list[int]) -> list[ComposedConfig]:
    """The same as ``compose_config`` with ``seed=<n>`` for each n, composed once. Raises as it does."""
    node = _composed([*overrides, f"seed={seeds[0]}"])
    found = []
    for seed in seeds:
        own = deepcopy(node)
        own.seed = seed
        found.append(_resolved(own))
    return found


def _composed(overrides: list[str]) -> DictConfig:
    errors = malformed(overrides)
    if errors:
        raise ConfigError(*errors)
    with _hydra():
        return _compose(overrides)


def _resolved(node: DictConfig) -> ComposedConfig:
    OmegaConf.resolve(node)
    node.run_dir = str(Path(node.run_dir).expanduser().absolute())
    for key in ("resume_from_path", "default_local_dir"):
        if isinstance(node.trainer.get(key), str):
            node.trainer[key] = str(Path(node.trainer[key]).expanduser())
    composed = ComposedConfig(node)
    # a local cluster inherits the driver's environment; a remote one gets it from Ray
    OmegaConf.update(node, "ray_kwargs.ray_init.runtime_env.env_vars", composed.environment(), force_add=True)
    return composed


def composed_defaults(overrides: list[str]) -> DictConfig:
    """The config that the choices among the overrides give without the overrides of single values, not resolved."""
    return _composed_choices(tuple(chosen(overrides)))


@lru_cache
def _composed_choices(choices: tuple[str, ...]) -> DictConfig:
    with _hydra():
        return compose("mifo", overrides=[_search_path(), *choices])


@contextmanager
def _hydra() -> Iterator[None]:
    OmegaConf.register_new_resolver("mifo_data", lambda name: str(PACKAGE / "data" / name), replace=True)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base=None):
        yield


def _compose(overrides: list[str]) -> DictConfig:
    """The config, which resolves. A wrong override is left out and composed without, to find the next one's error."""
    errors: list[str] = []
    left = list(overrides)
    while True:
        try:
            node = compose("mifo", overrides=[_search_path(), *left])
            _require_given(node)
            OmegaConf.resolve(deepcopy(node))
        except (HydraException, OmegaConfBaseException) as error:
            line, wrong = _one_line(error, left)
            errors.append(line)
            if wrong not in left or len(errors) == _MOST_ERRORS:
                raise ConfigError(*errors) from None
            left.remove(wrong)
        except ConfigError as error:
            raise ConfigError(*errors, *error.errors) from None
        else:
            break
    if errors:
        raise ConfigError(*errors)
    return node


def _require_given(node: DictConfig) -> None:
    for key in ("actor_rollout_ref.model.path",):
        if OmegaConf.is_missing(OmegaConf.select(node, key.rpartition(".")[0]), key.rpartition(".")[2]):
            raise ConfigError(f"{key} must be set; write {key}=<folder or hub name of the model>")


def _one_line(error: Exception, overrides: list[str]) -> tuple[str, str]:
    """Hydra's message without its traceback, with the nearest key or file where one was misspelt; and the override."""
    text = " ".join(str(error).split())
    group = re.search(r"Could not find '?([\w/]+)/(\w+)'?", text)
    if group:
        given = f"{group[1]}={group[2]}"
        folder = config_folder() / group[1]
        names = sorted(file.stem for file in folder.glob("*.yaml"))
        if names:
            close = nearest(group[2], names)
            return f"{given} must be one of {', '.join(names)}{close}; the files of trainer_configs/{group[1]}/", given
    key = re.search(r"Could not override '([\w.@/]+)'|Key '([\w.]+)' is not in struct", text)
    if key:
        full = re.search(r"full_key: ([\w.]+)", text)
        name = key[1] or (full[1] if full else key[2])
        given = next((o for o in overrides if o.split("=")[0].lstrip("+~") == name), name)
        known = _known_keys(overrides, name)
        return f"{given}: no setting is called {name}{nearest(name, known)}; add a new one with +{given}", given
    return text.split("See https")[0].strip(), ""


def _known_keys(overrides: list[str], name: str) -> list[str]:
    base = compose("mifo", overrides=[_search_path(), *chosen(overrides)])
    return [key for key in _keys(base, "") if key.count(".") == name.count(".")]


def _search_path() -> str:
    """Where verl keeps its config, found without importing verl (which would pick a device at once)."""
    verl = find_spec("verl")
    if verl is None or verl.origin is None:
        raise ConfigError("verl is not installed; run pip install -e '.[cpu]' or '.[gpu]'")
    return f"hydra.searchpath=[file://{Path(verl.origin).parent / 'trainer' / 'config'}]"


def _keys(node: DictConfig, prefix: str) -> Iterator[str]:
    for key in map(str, node):
        yield f"{prefix}{key}"
        plain = not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key)
        if plain and isinstance(node[key], DictConfig):
            yield from _keys(node[key], f"{prefix}{key}.")
