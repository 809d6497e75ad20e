"""Hydra composition with errors in one line: what was set, why it is wrong, what to do."""

import re
import shlex
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mifo_verl.errors import nearest
from mifo_verl.overrides import (
    CHOICES,
    DEAD_NODES,
    FREE_NODE,
    chosen,
    group_of,
    keys,
    likely,
    malformed,
    normalised,
    not_a_group,
    not_added,
    own_folders,
    parse,
)

PACKAGE = Path(__file__).parent
_MOST_ERRORS = 8
_PATHS = """
    trainer.resume_from_path trainer.default_local_dir actor_rollout_ref.model.path reward.custom_reward_function.path
    actor_rollout_ref.model.tokenizer_path data.train_files data.val_files
""".split()
"""Settings whose ``~/`` is the user's folder."""


class ConfigError(ValueError):
    """Something that the user can fix before a run starts: one line for each mistake."""

    def __init__(self, *errors: str, rest: "ComposedConfig | None" = None) -> None:
        self.errors = list(errors)
        self.rest = rest
        """The config without the overrides that are wrong, for checks of each other one by itself."""
        super().__init__("\n".join(errors))


def config_folder() -> Path:
    """trainer_configs/ beside the package in a checkout, inside it where it is installed."""
    beside = PACKAGE.parent / "trainer_configs"
    return beside if (beside / "mifo.yaml").exists() else PACKAGE / "trainer_configs"


def config_folders(overrides: Sequence[str] = ()) -> list[Path]:
    """Every folder in which a group's file may lie: ours, ``trainer_configs/`` of packages with parts, the user's own.

    The user's are those of ``--config-dir`` and ``mifo.config_dirs``. A name that two folders have is the first one's.
    """
    return [config_folder(), *_folders_of_packages(), *own_folders(overrides)]


@cache
def _folders_of_packages() -> tuple[Path, ...]:
    found = []
    for name in sorted({entry.module.partition(".")[0] for entry in entry_points(group="mifo_verl.parts")}):
        package = find_spec(name)
        places = (package.submodule_search_locations or ()) if package else ()
        found += [Path(place) / "trainer_configs" for place in places]
    return tuple(folder for folder in dict.fromkeys(found) if folder.is_dir())


@dataclass(frozen=True)
class ComposedConfig:
    """A run's whole config, resolved."""

    node: DictConfig
    overrides: tuple[str, ...] = ()
    """What it is composed of."""

    def environment(self) -> dict[str, str]:
        """The environment variables of the run's processes."""
        made = {"TENSORBOARD_DIR": f"{self.node.run_dir}/tensorboard", "WANDB_DIR": str(self.node.run_dir)}
        made["RAY_worker_niceness"] = "0"  # Ray's own is 15: beside anything else a run would starve
        return made | {str(name): str(value) for name, value in self.node.env.items()}

    def to_yaml(self) -> str:
        """The config as YAML."""
        return OmegaConf.to_yaml(self.node)

    def to_dict(self) -> dict[str, Any]:
        """The config as plain values."""
        return OmegaConf.to_container(self.node, resolve=True)  # type: ignore[return-value]


def compose_config(overrides: list[str]) -> ComposedConfig:
    """Compose ``trainer_configs/mifo.yaml`` with overrides, on top of verl's own config.

    ``--config-dir <folder>`` is taken among the overrides. Raises ConfigError on unknown keys or choices, malformed
    overrides, or a setting that must be given and is not.
    """
    overrides = normalised(overrides)
    errors = malformed(overrides, known_settings)
    for folder in own_folders(overrides):
        if not folder.is_dir():
            errors.append(f"mifo.config_dirs={folder} must be a folder that exists; check the path")
    if errors:
        raise ConfigError(*errors)
    return _placed(_resolved(overrides), overrides)


def composed_defaults(overrides: list[str]) -> DictConfig:
    """The config that the choices among the overrides give without the overrides of single values, not resolved.

    It is every caller's: none may change it.
    """
    folders = _folders(normalised(overrides))
    return _of_choices(folders, *_split(normalised(overrides), folders)[0])


def composed_on(config: Mapping[str, Any], overrides: Sequence[str]) -> DictConfig:
    """A run's whole config with overrides on it: of ``method`` and ``mifo/<group>`` the parts, then values.

    Raises ConfigError on what is unknown or malformed, and on the choice of an experiment, a task, an algorithm or
    hardware, because the run has its own.
    """
    given = normalised(overrides)
    errors = malformed(given, known_settings)
    for one in given:
        if one.partition("=")[0] in set(CHOICES) - {"method"}:
            errors.append(f"{one} must be a method, a part or a value, because the run is made already; leave it out")
    if errors:
        raise ConfigError(*errors)
    node, folders = OmegaConf.create(deepcopy(dict(config))), _folders(given)
    OmegaConf.set_struct(node, True)
    try:
        choices, values = _split(given, folders)
        made = deepcopy(_of_choices(folders, *choices))
        made.actor_rollout_ref.model.path = ""  # parts refer to no model, and resolving needs one
        groups = {choice.partition("=")[0].removeprefix("mifo/") for choice in choices}
        for group, part in made.mifo.items():
            if group in groups or ("method" in groups and OmegaConf.is_dict(part) and "name" in part):
                node.mifo[group] = OmegaConf.create(OmegaConf.to_container(part, resolve=True))
        OmegaConf.set_struct(node, True)
        ConfigLoaderImpl._apply_overrides_to_config(values, node)
        OmegaConf.resolve(node)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(_one_line(error, given)[0]) from None
    return node


@cache
def known_settings() -> list[str]:
    """The full name of every setting and group of settings."""
    return list(keys(composed_defaults([])))


def _composed(overrides: Sequence[str]) -> DictConfig:
    """What Hydra composes of overrides: a choice of files once in a process, and the values on a copy of it."""
    folders = _folders(overrides)
    choices, values = _split(overrides, folders)
    node = deepcopy(_of_choices(folders, *choices))
    ConfigLoaderImpl._apply_overrides_to_config(values, node)
    return node


def _split(overrides: Sequence[str], folders: Sequence[Path]) -> tuple[list[str], list[Override]]:
    """The overrides that Hydra reads as choices of a group's file, or as its own; and those of values."""
    choices, values = [], []
    for given in overrides:
        parsed = parse(given)
        assert parsed is not None, given
        is_group = any((folder / parsed.key_or_group).is_dir() for folder in folders)
        if parsed.is_hydra_override() or (is_group and not isinstance(parsed.value(), dict)):
            choices.append(given)
        else:
            values.append(parsed)
    return choices, values


@lru_cache
def _of_choices(folders: tuple[Path, ...], *choices: str) -> DictConfig:
    OmegaConf.register_new_resolver("mifo_data", lambda name: str(PACKAGE / "data" / name), replace=True)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folders[0]), version_base=None):
        further = ",".join(f'"file://{folder}"' for folder in folders[1:])
        node = compose("mifo", overrides=[f"hydra.searchpath=[{further}]", *choices])
    for given in choices:
        _keep_own_settings(node, given, folders)
    return node


def _keep_own_settings(node: DictConfig, choice: str, folders: Sequence[Path]) -> None:
    """Of a part that was chosen by name, drop what a method's file has set of the one that it replaces."""
    group, _, name = choice.partition("=")
    file = next((path for folder in folders if (path := folder / group / f"{name}.yaml").is_file()), None)
    if file is None or not group.startswith("mifo/"):
        return
    part, own = node.mifo[group.removeprefix("mifo/")], OmegaConf.load(file)
    with open_dict(part):
        for key in [] if "defaults" in own else set(part) - set(own):
            del part[key]


def _placed(node: DictConfig, overrides: list[str]) -> ComposedConfig:
    """The config with its paths made absolute, and the environment that Ray hands on."""
    for key in ("name", "run_dir"):
        if OmegaConf.is_config(node[key]) or not str(node[key] or "").strip():
            raise ConfigError(
                f"{key}={node[key]} must be one text that is not empty; write {key}=<text>, or leave it out"
            )
    node.run_dir = str(Path(node.run_dir).expanduser().absolute())
    for key in _PATHS:
        value = OmegaConf.select(node, key)
        paths = value if OmegaConf.is_list(value) else [value]
        if any(isinstance(path, str) and path.startswith("~/") for path in paths):
            full = [str(Path(path).expanduser()) for path in paths]
            OmegaConf.update(node, key, full if OmegaConf.is_list(value) else full[0])
    composed = ComposedConfig(node, tuple(overrides))
    # a local cluster inherits the driver's environment; a remote one gets it from Ray
    OmegaConf.update(node, "ray_kwargs.ray_init.runtime_env.env_vars", composed.environment(), force_add=True)
    return composed


def _resolved(overrides: list[str]) -> DictConfig:
    """The config, resolved. A wrong override is left out and composed without, to find the next one's error."""
    errors: list[str] = []
    left = list(overrides)
    while True:
        try:
            node = _composed(left)
            _require_given(node)
            OmegaConf.resolve(node)
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
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
        refused = [given for given in overrides if given not in left]
        has_choice = bool(chosen(refused)) or any(nearest(given.partition("=")[0], [*CHOICES]) for given in refused)
        raise ConfigError(*errors, rest=None if has_choice else ComposedConfig(node, tuple(left)))
    return node


def _require_given(node: DictConfig) -> None:
    for group in CHOICES:
        if group in node:  # the file's settings lie under its group's name, where nothing reads them
            raise ConfigError(f"a file of {group}/ must begin with the line '# @package _global_'; add it to the file")
    path = "actor_rollout_ref.model.path"
    if OmegaConf.is_missing(node.actor_rollout_ref.model, "path"):
        raise ConfigError(f"{path} must be set; write {path}=<folder or hub name of the model>")


def _one_line(error: Exception, overrides: list[str]) -> tuple[str, str]:
    """Hydra's message without its traceback, with the nearest key or file where one was misspelt; and the override."""
    text = " ".join(str(error).split())
    if isinstance(error, YAMLError):
        return f"a file of settings must be YAML ({text}); correct it", ""
    group = re.search(r"Could not find '?([\w/]+)/([\w-]+)'?", text)
    if group:
        given, folders = f"{group[1]}={group[2]}", [folder / group[1] for folder in config_folders(overrides)]
        names = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
        if names:
            where = ", ".join([f"trainer_configs/{group[1]}/", *(f"{folder}/" for folder in folders[1:])])
            return f"{given} must be one of {', '.join(names)}{nearest(group[2], names)}; the files of {where}", given
        return not_a_group(given, group_of(f"{group[1]}.", known_settings())), given
    if "An item is already at" in text:
        given = next(o for o in overrides if o.startswith("+") and f"'{o[1:].partition('=')[0]}'" in text)
        return not_added(given), given
    key = re.search(r"Could not override '([\w.@/]+)'|Key '([\w.]+)' is not in struct", text)
    if key:
        node = key[1] or key[2]
        full = getattr(error.__cause__, "full_key", None) or node  # of a key inside the value too: optim={lrr:1}
        name = full if full.startswith(node) else node
        given = next((o for o in overrides if o.split("=")[0].lstrip("+~") == node), name)
        if name in known_settings() and (inside := group_of(f"{name}.", known_settings())):
            return not_a_group(given, inside), given
        return f"{given}: no setting is called {name}{_cure(given, name, overrides)}", given
    missing = re.search(r"Could not delete from config. '([^']+)' does not exist", text)
    if missing:
        given = next((o for o in overrides if o.startswith(f"~{missing[1]}")), f"~{missing[1]}")
        return f"{given} must name a setting that is there, and {missing[1]} is not; leave it out", given
    reference = re.search(r"Interpolation key '([^']+)' not found", text)
    if reference:
        given = next((o for o in overrides if f"${{{reference[1]}" in o), f"${{{reference[1]}}}")
        return f"{given} must refer to a setting, and there is no {reference[1]}; correct it", given
    if "nterpolation" in text and (given := next((o for o in overrides if "${" in o), "")):
        return f"{given} must refer to what is there ({text}); write the value itself", given
    if (merged := text.partition("Error merging override ")[2]) in overrides:
        return f"{merged} must be of the kind of the setting that is there; leave it out", merged
    return f"{text.split('See https')[0].strip()}; correct it", ""


def _cure(given: str, name: str, overrides: list[str]) -> str:
    choices = [choice for choice in chosen(overrides) if choice != given]
    try:
        base = composed_defaults(choices)
    except HydraException:  # another choice is wrong too
        base = composed_defaults([])
    if name.partition(".")[0] in DEAD_NODES:
        return f"; leave it out: nothing reads {name.partition('.')[0]}, and what is read lies in reward"
    every = list(keys(base))
    known = likely(name, [*every, *CHOICES])
    if known and known != name:
        value = given.partition("=")[2] if given.startswith(f"{name}=") else "<value>"
        inside = "" if value.startswith("{") else group_of(f"{known}.", every)
        return f" (did you mean {known}?); " + (f"choose one inside: {inside}" if inside else f"write {known}={value}")
    if FREE_NODE.search(name.rpartition(".")[0]):
        return f"; write {shlex.quote('+' + given)}, because {name.rpartition('.')[0]} takes any name"
    if group := group_of(name, every):
        return f"; choose another one: {group}"
    return f"; leave it out, or add it with +{given} if code of your own reads it"


def _folders(overrides: Sequence[str]) -> tuple[Path, ...]:
    """Where Hydra looks: ours; verl's, found without importing verl, which would pick a device at once; others'."""
    verl = find_spec("verl")
    if verl is None or verl.origin is None:
        raise ConfigError("verl is not installed; run pip install -e '.[cpu]' or '.[gpu]'")
    ours, *others = config_folders(overrides)
    return (ours, Path(verl.origin).parent / "trainer" / "config", *others)
