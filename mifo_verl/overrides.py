"""The overrides of a command line: their form, and what they change."""

import re
import shlex
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from mifo_verl.errors import RENAMED, nearest

CHOICES = ("experiment", "method", "rl", "task", "hardware")
"""Groups that are chosen by a plain name; the other groups have a slash."""
CONFIG_DIRS = "mifo.config_dirs"
_MOVED = {
    "n_val": "actor_rollout_ref.rollout.val_kwargs.n",
    "lr": "actor_rollout_ref.actor.optim.lr",
    "learning_rate": "actor_rollout_ref.actor.optim.lr",
    **dict.fromkeys(("num_generations", "num_return_sequences"), "actor_rollout_ref.rollout.n"),
    "batch_size": "data.train_batch_size",
    "epochs": "trainer.total_epochs",
    "num_epochs": "trainer.total_epochs",
    "num_train_epochs": "trainer.total_epochs",
    **dict.fromkeys(("max_steps", "steps", "num_steps"), "trainer.total_training_steps"),
    "save_steps": "trainer.save_freq",
    "eval_steps": "trainer.test_freq",
    "warmup_ratio": "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio",
    "lora_r": "actor_rollout_ref.model.lora_rank",
    "gradient_checkpointing": "actor_rollout_ref.model.enable_gradient_checkpointing",
    "per_device_train_batch_size": "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu",
    "model": "actor_rollout_ref.model.path",
    "model_name_or_path": "actor_rollout_ref.model.path",
    "model_path": "actor_rollout_ref.model.path",
    **dict.fromkeys(("gpus", "n_gpus", "num_gpus"), "trainer.n_gpus_per_node"),
    **dict.fromkeys(("reward_fn", "reward_function", "reward_funcs"), "reward.custom_reward_function.path"),
    **dict.fromkeys(("project", "wandb_project"), "trainer.project_name"),
    **dict.fromkeys(
        ("max_length", "max_tokens", "max_new_tokens", "max_completion_length"), "data.max_response_length"
    ),
    **dict.fromkeys(("dataset", "train_file", "train_data"), "data.train_files"),
    **dict.fromkeys(("test_files", "eval_files", "val_file"), "data.val_files"),
    **dict.fromkeys(("output_dir", "output", "out"), "run_dir"),
}
"""Settings by the last word of the names that other trainers give them."""
_FIRST = ("trainer.", "data.", "actor_rollout_ref.actor.", "actor_rollout_ref.rollout.", "algorithm.")
"""Of several settings of one last word, the one that is meant is in the first of these."""
DEAD_NODES = ("custom_reward_function", "reward_model", "sandbox_fusion")
"""Nodes of earlier versions of verl, which it keeps and reads nowhere: what is read lies in the node reward."""
FREE_NODE = re.compile(r"(^|\.)(env|\w*kwargs|override_\w*config)(\.|$)")
"""Nodes that take keys of any name."""
_PLAIN = str.maketrans({**dict.fromkeys("−–—‐‑", "-"), **dict.fromkeys("\ufeff\u200b\u200e\u2060", "")})
"""Signs that a copied line may hold in the place of others, or unseen."""
_OPEN = re.compile(r"(^|\.)(env|mifo|\w*kwargs|override_\w*config)(\.|$)")
"""These, and nodes whose keys are checked elsewhere, with all below them."""


def normalised(arguments: Sequence[str]) -> list[str]:
    """The overrides with every own folder, also of ``--config-dir``, as one ``mifo.config_dirs`` of absolute paths."""
    left, folders, given = [], [], iter(arguments)
    for argument in given:
        name, equals, value = argument.partition("=")
        if name == "--config-dir":
            folders.append(value if equals else next(given, ""))
        elif name == CONFIG_DIRS and (parsed := parse(argument)) is not None:
            listed = parsed.value()
            folders += map(str, listed if isinstance(listed, list) else [listed])
        else:
            left.append(argument)
    paths = [str(Path(folder).expanduser().absolute()) for folder in folders if folder]
    quoted = ",".join(f'"{path}"' for path in dict.fromkeys(paths))
    return [*left, f"{CONFIG_DIRS}=[{quoted}]"] if paths else left


def own_folders(overrides: Sequence[str]) -> list[Path]:
    """The folders of ``--config-dir`` and ``mifo.config_dirs``."""
    found = (parse(given) for given in normalised(overrides) if given.startswith(f"{CONFIG_DIRS}="))
    return [Path(path) for parsed in found if parsed is not None for path in parsed.value()]


def malformed(overrides: list[str], known: Callable[[], Collection[str]] = tuple) -> list[str]:
    """One line for each override that is none; ``known`` gives the full names of settings and groups."""
    return [error for given in _joined(overrides) if (error := _form_error(given, known))]


def _joined(overrides: list[str]) -> Iterator[str]:
    """The overrides, with ``--name value`` as one: so other commands take a setting; ``name = value`` as one too."""
    left = list(overrides)
    while left:
        if left[1:2] == ["="]:
            yield " ".join(left[:3])
            del left[:3]
            continue
        given, after = left.pop(0), left[0] if left else "-"
        is_pair = re.fullmatch(r"--[\w./]+", given) and given != "--multirun" and re.match(r"[^-+~][^=]*$", after)
        yield f"{given} {left.pop(0)}" if is_pair else given


def not_added(given: str) -> str:
    """The line for an override with a plus whose setting is there already."""
    return f"{given} must be written without the plus, because it is there; write {shlex.quote(given.lstrip('+'))}"


def not_a_group(given: str, inside: str) -> str:
    """The line for one value in the place of a whole group."""
    return f"{given} must be a setting inside the group, not the group; choose one: {inside}"


def _form_error(given: str, known: Callable[[], Collection[str]]) -> str:
    name, equals, value = given.partition(" " if re.match(r"--[\w./]+ ", given) else "=")
    if given in ("-m", "--multirun"):
        return f"{given} must be left out: a run has one value a setting; write mifo sweep <settings> for several runs"
    if "\r" in given:
        cure = "save the script with Unix line ends (sed -i 's/\\r$//' <script>)"
        return f"{given.replace(chr(13), '<CR>')} must not hold a carriage return, as Windows ends its lines; {cure}"
    if len(given) > 2 and given[0] == given[-1] and given[0] in "\"'":
        return f"{given} must be written without the quotes around the whole; write {given[1:-1]}"
    if equals and name != name.rstrip():
        return f"{given} must have no blanks around the equals sign; write {name.strip()}={value.strip()}"
    plain = name.lstrip("+~-")
    if given.startswith("-"):
        named = [*known(), *CHOICES]
        meant = plain if plain in named else likely(plain, named) if equals else ""
        if meant:
            return f"{given} must be written without the dashes; write {meant}={value or '<value>'}"
        return (
            f"{given} must be left out: it is no setting; write experiment=<name>, and --config-dir <folder> for files"
        )
    if not name.isascii():
        return _syntax_error(given, name, value)
    if not name.strip() or not (equals or given.startswith("~")):
        return f"{given} must be setting=value, without blanks around the equals sign; write it so"
    if re.match(r"hydra\b", plain):
        return f"{given} must be left out: nothing reads hydra; write run_dir=<folder>, or --config-dir <folder>"
    if given.startswith("+") and (plain in CHOICES or ("/" in plain and plain.replace("/", ".") in known())):
        return not_added(given)
    if given.startswith("~") and plain not in known() and not _OPEN.search(plain):
        return f"{given} must name a setting that is there, and {plain} is not; leave it out"
    if given.startswith("~") and (plain.startswith("mifo") or not _OPEN.search(plain.rpartition(".")[0])):
        return f"{given} must be left out: the run reads {plain}=<value>; leave it out"
    parsed = parse(given)
    if parsed is None:
        return _syntax_error(given, name, value)
    if inside := _lost_group(plain, parsed, known):
        return not_a_group(given, inside)
    if parsed.is_sweep_override():
        several = f"mifo sweep {shlex.quote(given)} ... for a run of each"
        is_list = "(" not in value and not re.fullmatch(r"[-+.\deE,\s]+", value)
        text = shlex.quote(f'{name}="{value}"')
        listed = f"write {text} for one text, '{name}=[{value}]' for a list, or " if is_list else "write "
        if re.fullmatch(r"\d{1,3}(?:,\d{3})+", value):
            listed = f"write {name}={value.replace(',', '')} for one number, or "
        return f"{given} must be one value; {listed}{several}"
    return ""


def _lost_group(name: str, parsed: Override, known: Callable[[], Collection[str]]) -> str:
    """What a group of settings holds in whose place an override would put one value; '' if it does not.

    A part says so itself, with its choices; a text may be a file of one of verl's groups, or name another node; a
    group inside a group may be null.
    """
    inside = [key for key in known() if key.startswith(f"{name}.")]
    value = parsed.value()
    if name == "env" and not isinstance(value, dict):
        return "+env.<NAME>=<value>"
    is_choice = isinstance(value, str) and "." not in name
    is_other_node = (isinstance(value, str) and value.startswith("${")) or (value is None and "." in name)
    if parsed.is_delete() or isinstance(value, dict) or is_choice or not inside or f"{name}.name" in inside:
        return ""
    return "" if is_other_node else group_of(f"{name}.", list(known()))


def _syntax_error(given: str, name: str, value: str) -> str:
    """What Hydra cannot parse, with a cure that it can."""
    ascii = unicodedata.normalize("NFKC", given).translate(_PLAIN)
    if (
        ascii.isascii()
        and (not name.isascii() or re.fullmatch(r"[-+.\deE]+", ascii.partition("=")[2]))
        and parse(ascii)
    ):
        return f"{given} must be typed in plain letters, and holds others that look alike; write {ascii}"
    alone = value.strip().rstrip(",;")
    if alone != value and parse(f"{name}={alone}"):
        return f"{given} must end with its value; write {shlex.quote(f'{name}={alone}')}"
    pieces = re.split(r"[\s,;]+(?=[\w./@+~]+=)", given)
    if len(pieces) > 1 and all(map(parse, pieces)):
        cure = f"write {' '.join(map(shlex.quote, pieces))}"
        return f"{given!r} must be {len(pieces)} arguments, one a setting, not quoted as one; {cure}"
    if listed := re.fullmatch(r"\[(.*)\]", value.strip(), re.DOTALL):
        items = [item.strip() for item in listed[1].split(",")]
        items = [item if parse(f"x={item}") else '"{}"'.format(item.strip("\"'")) for item in items]
        if parse(whole := f"{name}=[{','.join(items)}]"):
            return f"{given} must have its values quoted for Hydra; write {shlex.quote(whole)}"
    quoted = '{}="{}"'.format(name, value.replace('"', r"\""))
    if not re.match(r"\[|\{.*:", value) and parse(quoted):
        return f"{given} must be quoted for Hydra, inside the quotes of the shell; write {shlex.quote(quoted)}"
    return f"{given} must be setting=value, with brackets and quotes in pairs; write lists as '{name}=[a,b]'"


def chosen(overrides: list[str]) -> list[str]:
    """The overrides that choose a file of a group (``method=mifo``, ``mifo/constraint=none``), and their folders."""
    names = (*CHOICES, CONFIG_DIRS)
    return [given for given in overrides if "/" in given.partition("=")[0] or given.partition("=")[0] in names]


def changes(defaults: DictConfig, config: DictConfig, overrides: list[str]) -> Iterator[tuple[str, Any, Any]]:
    """(setting, value without its override, value with it) of every override of a plain value."""
    for given in overrides:
        name = given.partition("=")[0].lstrip("+~")
        if given in chosen(overrides) or given.startswith(("+", "~")) or "@" in name:
            continue
        value = OmegaConf.select(config, name)
        if not isinstance(value, DictConfig):
            yield name, OmegaConf.select(defaults, name), value


def keys(node: DictConfig) -> Iterator[str]:
    """The full name of every setting and group of settings, groups first; none inside of what is a reference."""
    yield from _keys(OmegaConf.to_container(node, resolve=False), "")


def _keys(values: Any, prefix: str) -> Iterator[str]:
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


def likely(name: str, known: Collection[str], cutoff: float = 0.6) -> str:
    """The known setting that is most likely meant: of the same group, or of the same last word elsewhere; '' if none.

    ``known`` are full names.
    """
    old = re.match(rf"mifo([./])({'|'.join(RENAMED)})\b", name)
    if old:
        return f"mifo{old[1]}{RENAMED[old[2]]}{name[old.end() :]}"
    parent, _, last = name.rpartition(".")
    known = [key for key in known if key.partition(".")[0] not in DEAD_NODES]
    groups = {key.rpartition(".")[0] for key in known}
    ends = [key for key in known if parent and key.endswith(f".{name}")]
    if ends:
        return min(ends, key=_place)
    beside = [key for key in known if key.rpartition(".")[0] == parent]
    elsewhere = [key for key in known if key.rpartition(".")[2] == last]
    if parent.startswith("mifo.") and parent in groups:  # of another part it would mean something else
        elsewhere = []
    if not parent and last in _MOVED:
        return _MOVED[last]
    if last in _MOVED and not nearest(last, [key.rpartition(".")[2] for key in beside], 0.85):
        return _MOVED[last]
    if len(elsewhere) == 1:
        only = elsewhere[0]
        main = (f"{only}.{each}" for each in ("path", "name") if f"{only}.{each}" in known)
        return next(main, only) if only in groups else only
    if elsewhere and not parent:
        return min(elsewhere, key=_place)
    found = re.search(r"mean (\S+)\?", nearest(last, [key.rpartition(".")[2] for key in beside], cutoff))
    return f"{parent}.{found[1]}".lstrip(".") if found else ""


def _place(key: str) -> int:
    return next((place for place, node in enumerate(_FIRST) if key.startswith(node)), len(_FIRST))


def group_of(name: str, known: list[str]) -> str:
    """What to say of the group that a misspelt setting lies in: where the group is, and what it holds; '' if none."""
    parent = name.rpartition(".")[0]
    parents = {key.rpartition(".")[0] for key in known}
    groups = [key for key in parents if parent and (key == parent or key.endswith(f".{parent}"))]
    if not groups:
        return ""
    group = min(groups, key=lambda key: (key != parent, _place(f"{key}."), key))
    inside = [key.removeprefix(f"{group}.") for key in known if key.rpartition(".")[0] == group]
    inside = [key for key in inside if not key.startswith("_")]
    return f"the settings of {group} are {', '.join(inside[:20])}{' ...' if len(inside) > 20 else ''}"


def added(defaults: DictConfig, config: DictConfig) -> Iterator[str]:
    """Every setting that + or an own file has added, but those of nodes that take keys of any name."""
    there = set(keys(defaults))
    for key in keys(config):
        if key in there or key.endswith("._target_"):
            continue
        parent = key.rpartition(".")[0]
        is_typed = "_target_" in (OmegaConf.select(config, parent) or {}) if parent else False
        if (is_typed or not _OPEN.search(key)) and not isinstance(OmegaConf.select(config, key), DictConfig):
            yield key


@cache
def parse(given: str) -> Override | None:
    """The override as Hydra reads it; None if it cannot."""
    try:
        return OverridesParser.create().parse_override(given)
    except HydraException:
        return None
