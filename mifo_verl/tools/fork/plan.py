"""What a fork is asked for: arms of a file, checkpoints, data; checked before verl is imported."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mifo_verl.compose import ConfigError, composed_on
from mifo_verl.config import build_config, config_errors
from mifo_verl.errors import require, require_choice, require_count
from mifo_verl.loop.state import FOLDER, LoopState
from mifo_verl.run.checkpoints import MANIFEST, Checkpoint, file_sha256, verify
from mifo_verl.tools.command_line import take
from mifo_verl.tools.evaluate.engines import choose_engine
from mifo_verl.tools.evaluate.models import checkpoint_name, checkpoint_of
from mifo_verl.tools.fork.definition import Bed, Definition, read_definition
from mifo_verl.tools.fork.records import read_arm

ALWAYS = (
    "mifo/schedule=when_full",
    "mifo.probe.around_sft=true",  # the weights before the phase are kept, to compare with
    "mifo.probe.rollouts=1",
    "mifo.probe.kl_to_start=false",
    "mifo.inspect.mask=false",
    "mifo.inspect.tokens=false",
)
"""In front of the overrides of all arms: a phase that is compared with its start, and measured by the fork alone."""
_FILES = ("train", "own", "gained")


@dataclass(frozen=True)
class Settings:
    """The command line, but for overrides of all arms. What is None is the arms file's."""

    sweep: str
    out: Path
    bed: str | None = None
    data: Path = Path("data/fork")
    train: str | None = None
    own: str | None = None
    gained: str | None = None
    prompts: str | None = None
    """Questions whose right answers are the own rollouts of arms that need some; the run's data.train_files if None."""
    gain: float | None = None
    updates: int | None = None
    only: tuple[str, ...] = ()
    order: int = 0
    """Seed of the demonstrations' order."""
    probes: int = 64
    """Rollouts and demonstrations whose cross-entropy and KL are taken."""
    engine: str = "auto"
    batch: int = 256
    threads: int = 1
    gpu_memory: float = 0.4

    def __post_init__(self) -> None:
        for name in ("probes", "batch", "threads", *(["updates"] if self.updates is not None else [])):
            require_count(name, getattr(self, name), "correct it")
        choose_engine(self.engine)


@dataclass(frozen=True)
class Arm:
    """An arm of a checkpoint that is left to run."""

    name: str
    overrides: list[str]
    config: Any
    """The run's, with the arm's overrides on it."""
    key: str
    """A digest of all that its outcome depends on."""
    file: Path
    prompts: list[Path]
    """Files of the questions whose right answers are its own rollouts; none if it needs none, or the run kept some."""


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    settings: Settings
    definition: Definition
    bed: Bed
    checkpoints: Mapping[str, Checkpoint]
    """By their labels."""
    left: Mapping[str, list[Arm]]
    """By the labels of their checkpoints."""


def read_plan(arguments: Sequence[str]) -> Plan:
    """The plan of a command line. Raises ValueError on mistakes, and on an arm that is done with other settings."""
    settings, overrides = take(Settings, [one for one in arguments if "=" in one])
    definition = read_definition(settings.sweep)
    for arm in settings.only:
        require_choice("only", arm, tuple(definition.arms))
    if settings.updates:
        at = tuple(one for one in definition.at if one < settings.updates)
        definition = replace(definition, updates=settings.updates, at=(*at, settings.updates))
    definition = replace(definition, overrides=[*definition.overrides, *overrides])
    checkpoints = _checkpoints([one for one in arguments if "=" not in one])
    bed = _bed(settings, definition.beds)
    files = [sha256_of(one, Path(getattr(bed, one))) for one in _FILES]
    asked = [getattr(settings, one) for one in ("order", "probes", "batch", "threads")]
    shared = [files, asked, choose_engine(settings.engine), definition.updates, definition.at]
    left = {label: _left(settings, definition, label, one, shared) for label, one in checkpoints.items()}
    return Plan(settings, definition, bed, checkpoints, left)


def _checkpoints(paths: Sequence[str]) -> dict[str, Checkpoint]:
    """The checkpoints of runs and of folders, by label. Raises ValueError on those that cannot be forked together."""
    found: dict[str, Checkpoint] = {}
    for path in paths:
        folder = checkpoint_of(Path(path).expanduser())
        cure = "save one with trainer.save_freq=<steps>"
        require(
            folder is not None and (folder / MANIFEST).is_file(),
            "checkpoint",
            path,
            "one of a run, or a run with one",
            cure,
        )
        assert folder is not None
        label = checkpoint_name(folder.resolve()).replace("/", "_")
        require(
            label not in found,
            "checkpoint",
            path,
            f"told from the others, and {label} is there twice",
            "rename the run",
        )
        found[label] = verify(folder)
        cure = "this one is inside an SFT phase: let the run go on"
        require(not found[label].facts["during_step"], "checkpoint", path, "made at a step's end", cure)
    sizes = {one.facts["world_size"] for one in found.values()}
    cure = f"these are of {sorted(sizes)}" if sizes else "write mifo analyze fork runs/<name> sweep=<arms> out=<folder>"
    require(len(sizes) == 1, "checkpoints", len(found), "at least one, all of one number of ranks", cure)
    return found


def _bed(settings: Settings, beds: Mapping[str, Bed]) -> Bed:
    """The bed of the arms file that is named, or its only one, with what the command line says."""
    given = {one: value for one in (*_FILES, "gain") if (value := getattr(settings, one)) is not None}
    if settings.bed is None and set(_FILES) <= given.keys():
        return Bed(**({"gain": 0.1} | given))
    name = settings.bed or (next(iter(beds)) if len(beds) == 1 else None)
    if not beds:
        missing = next(one for one in _FILES if one not in given)
        raise ValueError(f"{missing}= must be given; write {missing}=<parquet file>")
    require(name in beds, "bed", name, f"one of {', '.join(beds)}", "or give train=, own= and gained=<file>")
    own = beds[str(name)]
    return replace(own, **({one: str(settings.data / getattr(own, one)) for one in _FILES} | given))


def _left(
    settings: Settings, definition: Definition, label: str, checkpoint: Checkpoint, shared: list[Any]
) -> list[Arm]:
    """The arms of a checkpoint that are not done. Raises ConfigError with all that is wrong in any, ValueError if one
    is done with other settings or data.
    """
    left, errors = [], dict[str, list[str]]()
    begin = sha256_of("checkpoint", checkpoint.folder / MANIFEST)
    for name in settings.only or definition.arms:
        overrides = [*definition.overrides, *definition.arms[name]]
        try:
            config = composed_on(checkpoint.facts["config"], [*ALWAYS, *overrides])
            if wrong := config_errors(plain(config.mifo)):
                raise ConfigError(*wrong)
            prompts = _prompts(settings, checkpoint, config)
        except ConfigError as error:
            for line in error.errors:
                errors.setdefault(line, []).append(name)
            continue
        counts = [
            shared,
            begin,
            *(plain(node) for node in (config.mifo, config.actor_rollout_ref.actor, config.actor_rollout_ref.model)),
            *(sha256_of("prompts", one) for one in prompts),
            *([plain(config.actor_rollout_ref.rollout), config.data.max_response_length] if prompts else []),
        ]
        key = hashlib.sha256(json.dumps(counts, sort_keys=True, default=str).encode()).hexdigest()
        file = settings.out / label / f"{name}.jsonl"
        if not file.exists():
            left.append(Arm(name, overrides, config, key, file, prompts))
            continue
        rule = f"a folder for these settings and data, and {file} is of others"
        require(read_arm(file).began.key == key, "out", settings.out, rule, "choose another one, or delete the file")
    if errors:
        raise ConfigError(*(f"{line} (in {', '.join(names)})" for line, names in errors.items()))
    return left


def _prompts(settings: Settings, checkpoint: Checkpoint, config: Any) -> list[Path]:
    """``Arm.prompts``."""
    if (
        not build_config(plain(config.mifo)).keeps_own_rollouts
        or LoopState.load(checkpoint.folder / FOLDER).own_rollouts
    ):
        return []
    given = settings.prompts or config.data.train_files
    return [Path(one).expanduser() for one in ([given] if isinstance(given, str) else given)]


def sha256_of(setting: str, file: Path) -> str:
    """A digest of a file. Raises ValueError, naming the setting, if there is none."""
    require(file.is_file(), setting, file, "a file that exists", "make it with mifo data, or check the path")
    return file_sha256(file)


def plain(node: Any) -> Any:
    """A node of a config as plain values."""
    return OmegaConf.to_container(node, resolve=True)
