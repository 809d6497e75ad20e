"""MifoConfig: the one typed tree of our settings, built from the Hydra node ``mifo``.

Everything else in a run's config is verl's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from mifo_verl.errors import exact_share, nearest, require, require_count, require_positive
from mifo_verl.method.constraint import CONSTRAINTS, Constraint
from mifo_verl.method.gate import GATES, Gate
from mifo_verl.method.importance import IMPORTANCES, Importance
from mifo_verl.method.mixing import MIXINGS, Mixing, NoMixing
from mifo_verl.method.off_policy import OFF_POLICIES, NotTrained, OffPolicy
from mifo_verl.method.part import Part
from mifo_verl.method.prefix import PREFIXES, NoPrefix, Prefix
from mifo_verl.method.registry import Registry
from mifo_verl.method.schedule import SCHEDULES, Schedule
from mifo_verl.method.sft_loss import SFT_LOSSES, SftLoss
from mifo_verl.method.token_selection import TOKEN_SELECTORS, TokenSelector
from mifo_verl.types import Share


@dataclass(frozen=True)
class SftConfig:
    """How an SFT phase trains (``mifo.sft``)."""

    lr: float = 1e-6
    """Learning rate of the SFT phase, constant; the RL phase keeps its own schedule."""
    batch_size: int = 64
    """Demonstrations an update at most, over all ranks."""
    passes: int = 1
    """Times that each buffered demonstration is trained on in a phase."""
    clip_grad: float = 1.0
    """Largest gradient norm of an update, taken after the mask."""
    optimizer: Literal["shared", "separate", "fresh"] = "shared"
    """The AdamW of the RL phase, a second one that persists, or a new one every interval."""
    surplus: Literal["use", "keep"] = "use"
    """Whether what the buffer holds over S is used in this SFT phase or kept for the next one."""
    normalise: Literal["sequence", "token"] = "sequence"
    """Whether an update's loss is the mean over its sequences, each a mean over its tokens, or over all its tokens."""
    cut: Literal["even", "full"] = "even"
    """Whether the updates of a pass are as even as can be, or full but for the last: 33 + 32 or 64 + 1 of 65 at 64."""

    def __post_init__(self) -> None:
        require_positive("lr", self.lr, "the paper's value is 1e-6")
        require_count("batch_size", self.batch_size, "the paper's value is 64")
        _require_choice("cut", self.cut, ("even", "full"))
        require_count("passes", self.passes, "use mifo/schedule=never for RL alone")
        require_positive("clip_grad", self.clip_grad, "use a large number to switch clipping off")
        _require_choice("optimizer", self.optimizer, ("shared", "separate", "fresh"))
        _require_choice("surplus", self.surplus, ("use", "keep"))
        _require_choice("normalise", self.normalise, ("sequence", "token"))


@dataclass(frozen=True)
class ProbeConfig:
    """What is measured beside the training (``mifo.probe``); each probe costs time, and none changes the run."""

    around_sft: bool = True
    """Measure at the borders of RL and SFT phases: all that follows but the last two."""
    every: int = 1
    """Intervals from one that is measured to the next; the first is."""
    prompts: int | None = 64
    """Validation prompts asked before and after an SFT phase, evenly spaced; all of them where None."""
    solved: int = 32
    """Training prompts last seen solved, asked before and after an SFT phase."""
    solved_accuracy: Share = 1
    """Rollout accuracy from which a training prompt is solved."""
    hard: int = 32
    """Prompts that an SFT phase trains on, the oldest first, asked before and after it."""
    demonstrations: int = 64
    """Held-out demonstrations whose cross-entropy is taken at every border."""
    demonstration_file: str | None = None
    """Parquet file with them; the validation data where None."""
    rollouts: int = 32
    """Answers to these validation prompts before an SFT phase, one each, on which KL, entropy and margin are taken."""
    kl_to_start: bool = True
    """KL of the policy to the start of the interval on each RL batch: one more forward pass."""
    kl_rollouts: int | None = 64
    """Rollouts of an RL batch on which that KL is taken, evenly spaced; all of them where None."""

    def __post_init__(self) -> None:
        for name in ("around_sft", "kl_to_start"):
            value = getattr(self, name)
            require(isinstance(value, bool), name, value, "true or false", "correct it")
        require_count("every", self.every, "use around_sft=false to measure nothing")
        for name in ("solved", "hard", "demonstrations", "rollouts"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            require(whole, name, value, "a whole number of at least 0", "use 0 to switch it off")
        for name, everything in (("prompts", "validation set"), ("kl_rollouts", "batch")):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name), f"use null for the whole {everything}")
        share = exact_share("solved_accuracy", self.solved_accuracy)
        require(share > 0, "solved_accuracy", self.solved_accuracy, "above 0", "1 asks for every rollout to be right")

    @property
    def shifts(self) -> bool:
        """Whether an SFT phase's policy is compared with the one before it."""
        return self.around_sft and self.rollouts > 0

    def is_due(self, interval: int) -> bool:
        """Whether this interval's borders are measured; the first interval is 1."""
        return self.around_sft and (interval - 1) % self.every == 0


@dataclass(frozen=True)
class InspectConfig:
    """What every SFT phase writes to ``inspection.jsonl`` (``mifo.inspect``)."""

    mask: bool = True
    """The mask, the RL and the SFT update by layer and by kind of matrix; 2 bytes a coordinate on the host."""
    tokens: bool = True
    """Entropies and positions of the tokens and of those kept, and the tokens kept most often."""
    examples: int = 2
    """Demonstrations of a phase kept with every token, its entropy and whether it was kept."""
    example_tokens: int = 512
    """Tokens of such a demonstration that are kept, from its first."""

    def __post_init__(self) -> None:
        for name in ("mask", "tokens"):
            value = getattr(self, name)
            require(isinstance(value, bool), name, value, "true or false", "correct it")
        for name in ("examples", "example_tokens"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            require(whole, name, value, "a whole number of at least 0", "0 keeps no demonstration")


@dataclass(frozen=True)
class CheckpointConfig:
    """What happens to checkpoints (``mifo.checkpoint``); ``trainer.save_freq`` says when one is made."""

    keep_last: int = 2
    """Newest checkpoints that are kept."""
    keep_best: int = 1
    """Further checkpoints that are kept, those of the highest validation accuracy."""
    on_failed_save: Literal["continue", "stop"] = "continue"
    """What a run does whose checkpoint the disk refuses. The last good one is kept either way."""

    def __post_init__(self) -> None:
        require_count("keep_last", self.keep_last, "the newest checkpoint is always kept")
        whole = isinstance(self.keep_best, int) and not isinstance(self.keep_best, bool)
        require(whole and self.keep_best >= 0, "keep_best", self.keep_best, "a whole number", "use 0 to keep none")
        _require_choice("on_failed_save", self.on_failed_save, ("continue", "stop"))


@dataclass(frozen=True)
class WatchdogConfig:
    """When a wait is reported, and what ends the run with a reason (``mifo.watchdog``)."""

    factor: float = 2.0
    """A stage that takes this many times its median so far is reported, with what is awaited."""
    floor_seconds: float = 30.0
    """No stage is reported earlier."""
    limit_seconds: float = 3600.0
    """A stage that takes longer ends the run with a reason."""
    stopped_seconds: float = 60.0
    """An actor whose process stays stopped (SIGSTOP, a debugger) for longer ends the run with a reason."""
    max_skipped_updates: int = 3
    """Updates in a row, of the actor or the critic, that may be skipped because their gradient is not finite; one more
    ends the run."""

    def __post_init__(self) -> None:
        require_count("max_skipped_updates", self.max_skipped_updates, "the default is a good start")
        for name in ("factor", "floor_seconds", "limit_seconds", "stopped_seconds"):
            require_positive(name, getattr(self, name), "the default is a good start")


@dataclass(frozen=True)
class BudgetConfig:
    """The compute that a run may spend on training (``mifo.budget``); ``mifo_verl/compute.py`` says how it counts."""

    flops: float | None = None
    """The run ends with the step in which its training has spent this much; no limit where None."""

    def __post_init__(self) -> None:
        if self.flops is not None:
            require_positive("flops", self.flops, "use null for no limit")


@dataclass(frozen=True)
class MifoConfig:
    """All settings of MIFO; each field is the node of the same name under ``mifo``."""

    gate: Gate
    token_selector: TokenSelector
    sft_loss: SftLoss
    importance: Importance
    schedule: Schedule
    constraint: Constraint
    sft: SftConfig
    probe: ProbeConfig
    inspect: InspectConfig
    checkpoint: CheckpointConfig
    watchdog: WatchdogConfig
    budget: BudgetConfig
    prefix: Prefix = field(default_factory=NoPrefix)
    off_policy: OffPolicy = field(default_factory=NotTrained)
    mixing: Mixing = field(default_factory=NoMixing)

    @property
    def parts(self) -> list[Part]:
        """Every part of the method."""
        return [getattr(self, key) for key in _REGISTRIES]

    @property
    def keeps_start(self) -> bool:
        """Whether an interval's start is kept: for a part, for the inspection of RL's update, for the KL of RL."""
        of_sft = self.inspect.mask or any("start" in part.needs for part in self.parts)
        return self.probe.kl_to_start or (of_sft and self.schedule.has_sft_phases)

    @property
    def keeps_before_sft(self) -> bool:
        """Whether the weights before an SFT phase are kept, on the host: to inspect or to measure what it changed."""
        return self.schedule.has_sft_phases and (self.inspect.mask or self.probe.shifts)

    @property
    def token_facts(self) -> list[str]:
        """What an SFT update takes of every token: what the parts need, and the entropy, which is always recorded."""
        return sorted({"entropy"} | self.token_selector.needs | self.sft_loss.needs)

    @property
    def sft_limit(self) -> int | None:
        """The entries that an SFT phase takes out of the buffer at most, the oldest; all where None."""
        return self.schedule.buffer_limit if self.sft.surplus == "keep" else None


_REGISTRIES: dict[str, Registry[Any]] = {
    "gate": GATES,
    "token_selector": TOKEN_SELECTORS,
    "sft_loss": SFT_LOSSES,
    "importance": IMPORTANCES,
    "schedule": SCHEDULES,
    "constraint": CONSTRAINTS,
    "prefix": PREFIXES,
    "off_policy": OFF_POLICIES,
    "mixing": MIXINGS,
}
_SECTIONS: dict[str, type] = {
    "sft": SftConfig,
    "probe": ProbeConfig,
    "inspect": InspectConfig,
    "checkpoint": CheckpointConfig,
    "watchdog": WatchdogConfig,
    "budget": BudgetConfig,
}
RENAMED = {
    "freeze": "called mifo.constraint, as the group mifo/freeze is mifo/constraint",
    "prompt_selector": "called mifo.gate, as the group mifo/prompt_selector is mifo/gate",
    "sparsify": "chosen by mifo/constraint=sparsify, whose settings are mifo.constraint.rate, phase and seed",
}
"""Nodes of earlier versions, and what they are now."""
_KNOWN = [*_REGISTRIES, *_SECTIONS]
_NEUTRAL = ("prefix", "off_policy", "mixing")
"""Groups that a run written before them does not have."""


def build_config(node: Mapping[str, Any]) -> MifoConfig:
    """The typed settings of a plain ``mifo`` mapping.

    Raises ValueError, naming the setting, its value, the rule and the cure, on anything unknown, missing or out of
    range.
    """
    errors = config_errors(node)
    if errors:
        raise ValueError(errors[0])
    return MifoConfig(**{key: _build(key, node[key]) for key in _KNOWN if key in node})


def config_errors(node: Mapping[str, Any]) -> list[str]:
    """What is wrong with a ``mifo`` mapping: one line for each of its nodes that cannot be built."""
    errors = []
    for key in node:
        if key in RENAMED:
            errors.append(f"mifo.{key} must be {RENAMED[key]}; rename it")
        elif key not in _KNOWN:
            nearby = nearest(str(key), _KNOWN)
            errors.append(f"mifo.{key} must be one of {', '.join(_KNOWN)}{nearby}; remove it")
    for key in _KNOWN:
        if key in _NEUTRAL and key not in node:
            continue
        try:
            if key not in node:
                raise ValueError(f"mifo.{key} must be set; start from trainer_configs/mifo.yaml, which sets it")
            _build(key, node[key])
        except ValueError as error:
            errors.append(str(error))
    return errors


def _build(key: str, node: Any) -> Any:
    return _REGISTRIES[key].build(node) if key in _REGISTRIES else _section(f"mifo.{key}", _SECTIONS[key], node)


def _section(setting: str, kind: type, node: Mapping[str, Any]) -> Any:
    known = [field.name for field in fields(kind)]
    if not isinstance(node, Mapping):
        raise ValueError(f"{setting}={node} must be a group of settings ({', '.join(known)}); set them one by one")
    for key in node:
        if key not in known:
            raise ValueError(f"{setting}.{key} must be one of {', '.join(known)}{nearest(str(key), known)}; remove it")
    try:
        return kind(**node)
    except ValueError as error:
        raise ValueError(f"{setting}.{error}") from None


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    rule = f"one of {', '.join(choices)}{nearest(str(value), list(choices))}"
    require(value in choices, name, value, rule, "choose one of them")
