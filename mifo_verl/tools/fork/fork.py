"""``mifo analyze fork``: every arm of every checkpoint once, in one process a rank; then the table and the figure."""

import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
from omegaconf import OmegaConf

from mifo_verl.compose import ConfigError, composed_on
from mifo_verl.config import build_config, config_errors
from mifo_verl.errors import nearest, require, require_choice, require_count
from mifo_verl.run.checkpoints import MANIFEST, Checkpoint, verify
from mifo_verl.tools.command_line import read
from mifo_verl.tools.evaluate.engines import choose_engine
from mifo_verl.tools.evaluate.models import checkpoint_name, checkpoint_of
from mifo_verl.tools.fork.definition import Bed, Definition, read_definition
from mifo_verl.tools.fork.page import write_page
from mifo_verl.tools.fork.records import Began, Line, read_arm

_ALWAYS = (
    "mifo/schedule=when_full",
    "mifo.probe.around_sft=true",  # the weights before the phase are kept, to compare with
    "mifo.probe.rollouts=1",
    "mifo.probe.kl_to_start=false",
    "mifo.inspect.mask=false",
    "mifo.inspect.tokens=false",
)
"""In front of the overrides of all arms: a phase that is compared with its start, and measured by the fork alone."""


@dataclass(frozen=True)
class Settings:
    """The command line. What is None is the arms file's."""

    sweep: str
    out: Path
    bed: str | None = None
    data: Path = Path("data/fork")
    train: str | None = None
    own: str | None = None
    gained: str | None = None
    gain: float | None = None
    updates: int | None = None
    only: tuple[str, ...] = ()
    seed: int = 0
    probes: int = 128
    engine: str = "auto"
    batch: int = 256
    threads: int = 1
    gpu_memory: float = 0.4

    def __post_init__(self) -> None:
        for name in ("probes", "batch", "threads"):
            require_count(name, getattr(self, name), "correct it")
        require(self.updates is None or self.updates > 0, "updates", self.updates, "at least 1", "leave it out")
        choose_engine(self.engine)


@dataclass(frozen=True)
class Plan:
    """What is asked for, checked as far as it can be without a model."""

    settings: Settings
    definition: Definition
    bed: Bed
    checkpoints: dict[str, Checkpoint]
    """By their labels."""

    @property
    def arms(self) -> list[str]:
        """The arms that are run."""
        return list(self.settings.only or self.definition.arms)

    def file(self, label: str, arm: str) -> Path:
        """Where the records of a checkpoint's arm are."""
        return self.settings.out / label / f"{arm}.jsonl"

    def shared(self, checkpoint: Checkpoint) -> list[Any]:
        """What all arms of a checkpoint depend on."""
        files = [sha256_of(one, Path(getattr(self.bed, one))) for one in ("train", "own", "gained")]
        settings = [getattr(self.settings, one) for one in ("seed", "probes", "batch", "threads")]
        length = [self.definition.updates, self.definition.at, choose_engine(self.settings.engine)]
        return [sha256_of("checkpoint", checkpoint.folder / MANIFEST), files, settings, length]

    def overrides(self, arm: str) -> list[str]:
        """Of an arm, those of all in front."""
        return [*self.definition.overrides, *self.definition.arms[arm]]

    def configs(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The config of every arm. Raises ConfigError with all that is wrong in any of them."""
        made, errors = {}, dict[str, list[str]]()
        for arm in self.arms:
            try:
                made[arm] = composed_on(checkpoint.facts["config"], [*_ALWAYS, *self.overrides(arm)])
                wrong = config_errors(_plain(made[arm].mifo))
            except ConfigError as error:
                wrong = error.errors
            for line in wrong:
                errors.setdefault(line, []).append(arm)
        if errors:
            raise ConfigError(*(f"{line} (in {', '.join(arms)})" for line, arms in errors.items()))
        return made


def fork(arguments: Sequence[str]) -> None:
    """Run what is left of the arms, and write the table. Raises ValueError, before the first arm, on mistakes."""
    plan = read_plan(arguments)
    left = {label: _left(plan, label) for label in plan.checkpoints}
    first = next(iter(plan.checkpoints.values()))
    os.environ.update({name: str(value) for name, value in first.facts["config"]["env"].items()})
    ranks = first.facts["world_size"]
    if any(left.values()) and ranks > 1 and "RANK" not in os.environ:
        launch = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={ranks}",
            "-m",
            "mifo_verl.tools.fork",
        ]
        if subprocess.run([sys.executable, *launch, *arguments]).returncode:
            raise ValueError(f"a rank of {first.folder} has failed; its error stands above")
        return
    for label, arms in left.items():
        if arms:
            _run(plan, label, arms)
    if os.environ.get("RANK", "0") == "0":
        write_page(plan.settings.out, plan.definition, plan.bed, f"mifo analyze fork {shlex.join(arguments)}")


def _left(plan: Plan, label: str) -> dict[str, tuple[Any, str]]:
    """Config and key of every arm that is not done. Raises ValueError if one is done with other settings or data."""
    checkpoint, left = plan.checkpoints[label], {}
    shared = plan.shared(checkpoint)
    for arm, config in plan.configs(checkpoint).items():
        counts = [
            shared,
            _plain(config.mifo),
            _plain(config.actor_rollout_ref.actor),
            _plain(config.actor_rollout_ref.model),
        ]
        key = hashlib.sha256(json.dumps(counts, sort_keys=True, default=str).encode()).hexdigest()
        file = plan.file(label, arm)
        if not file.exists():
            left[arm] = config, key
        elif read_arm(file)[0].key != key:  # type: ignore[union-attr]
            rule = f"a folder for these settings and data, and {file} is of others"
            require(
                False, "out", plan.settings.out, rule, "choose another one, or delete the file to run the arm again"
            )
    return left


def _run(plan: Plan, label: str, arms: Mapping[str, tuple[Any, str]]) -> None:
    """The arms of one checkpoint that are left. Collective."""
    from mifo_verl.tools.fork.arm import begin, run_arm
    from mifo_verl.verl.local import LocalActor, be_a_rank

    be_a_rank()
    checkpoint, settings = plan.checkpoints[label], plan.settings
    plan.file(label, "").parent.mkdir(parents=True, exist_ok=True)
    base = composed_on(checkpoint.facts["config"], [*_ALWAYS, "method=interleave"])
    with tempfile.TemporaryDirectory(dir=settings.out, prefix=".model.") as scratch:
        phase, asker = begin(plan, checkpoint, base, Path(scratch))
        for arm, (config, key) in arms.items():
            model = config.actor_rollout_ref.model
            is_adapter = bool(model.lora_rank) and not base.actor_rollout_ref.model.lora_rank
            if is_adapter:  # beside the checkpoint's weights, whose file has none
                asker.write(phase.start.weights)
                model.path = str(asker.model)
            actor = LocalActor(config, None if is_adapter else checkpoint.folder)
            if build_config(_plain(config.mifo)).keeps_start and not actor.has_start():
                why = f"with the start of its interval, which {arm} needs"
                require(False, "checkpoint", checkpoint.folder, why, "make the run with mifo.probe.kl_to_start=true")
            began = Began(
                arm=arm,
                checkpoint=label,
                overrides=plan.overrides(arm),
                key=key,
                weights_sha256=actor.weights_sha256(),
                mask=actor.begin_sft(phase.interval),
            )
            lines = chain([began], run_arm(actor, _plain(config.mifo), phase, asker))
            started = time.monotonic()
            _write(plan.file(label, arm), lines, actor.is_first)
            if actor.is_first:
                print(f"{label} {arm}: {time.monotonic() - started:.1f} s", flush=True)


def _write(file: Path, lines: Iterable[Line], is_first: bool) -> None:
    """The records of an arm, under their name once they are whole."""
    unfinished = file.with_name(f".{file.name}")
    with unfinished.open("wb") if is_first else nullcontext() as opened:
        for line in lines:
            if opened is not None:
                opened.write(msgspec.json.encode(line) + b"\n")
                opened.flush()
    if is_first:
        unfinished.rename(file)


def sha256_of(setting: str, file: Path) -> str:
    """A digest of a file. Raises ValueError, naming the setting, if there is none."""
    require(file.is_file(), setting, file, "a file that exists", "make it with mifo data, or check the path")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True)


def read_plan(arguments: Sequence[str]) -> Plan:
    """The plan of a command line. Raises ValueError on mistakes."""
    settings = read(Settings, [one for one in arguments if "=" in one])
    definition = read_definition(settings.sweep)
    if settings.updates:
        kept = [one for one in definition.at if one < settings.updates]
        definition = replace(definition, updates=settings.updates, at=(*kept, settings.updates))
    for arm in settings.only:
        require_choice("only", arm, tuple(definition.arms))
    found: dict[str, Checkpoint] = {}
    for path in (one for one in arguments if "=" not in one):
        folder = checkpoint_of(Path(path).expanduser())
        if folder is None or not (folder / MANIFEST).is_file():
            raise ValueError(
                f"{path} must be a run with a checkpoint, or a checkpoint of one; save it with trainer.save_freq"
            )
        label = checkpoint_name(folder.resolve()).replace("/", "_")
        require(
            label not in found,
            "checkpoint",
            path,
            f"one label each, and {label} is there twice",
            "name the runs otherwise",
        )
        found[label] = verify(folder)
        inside = found[label].facts["during_step"]
        require(
            not inside, "checkpoint", path, "made at a step's end", "this one is inside an SFT phase; let the run go on"
        )
    require(
        bool(found), "checkpoints", 0, "one or more", "write mifo analyze fork runs/<name> sweep=<arms> out=<folder>"
    )
    sizes = {one.facts["world_size"] for one in found.values()}
    require(
        len(sizes) == 1,
        "checkpoints",
        len(found),
        "of one number of ranks",
        f"these are of {sizes}; fork them one by one",
    )
    plan = Plan(settings, definition, _bed(settings, definition), found)
    for checkpoint in found.values():
        plan.configs(checkpoint)
    return plan


def _bed(settings: Settings, definition: Definition) -> Bed:
    """The bed of the arms file that is named, or the only one, with the command line over it."""
    beds = definition.beds
    name = settings.bed or (next(iter(beds)) if len(beds) == 1 else None)
    given = {
        one: getattr(settings, one) for one in ("train", "own", "gained", "gain") if getattr(settings, one) is not None
    }
    if name is not None:
        require(name in beds, "bed", name, f"one of {', '.join(beds)}{nearest(name, list(beds))}", "correct it")
        own = beds[name]
        files = {one: str(settings.data / getattr(own, one)) for one in ("train", "own", "gained")}
        return replace(own, **(files | given))
    for one in ("train", "own", "gained"):
        require(
            one in given,
            one,
            None,
            "given",
            f"write {one}=<file>, or bed=<one of {', '.join(beds) or 'the arms file'}>",
        )
    return Bed(**({"gain": 0.1} | given))
