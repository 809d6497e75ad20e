"""MifoConfig: the one typed tree of our settings, built from the Hydra node ``mifo``.

Everything else in a run's config is verl's own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass as dataclass_of_parts
from dataclasses import field
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from mifo_verl.errors import RENAMED, exact_share, nearest
from mifo_verl.method.constraint import CONSTRAINTS, Constraint
from mifo_verl.method.gate import GATES, Gate
from mifo_verl.method.importance import IMPORTANCES, Importance
from mifo_verl.method.mixing import MIXINGS, Mixing, NoMixing
from mifo_verl.method.off_policy import OFF_POLICIES, NotTrained, OffPolicy
from mifo_verl.method.on_policy import ON_POLICIES, OnPolicy, Verls
from mifo_verl.method.part import OWN_KL, OWN_ROLLOUTS, Part
from mifo_verl.method.prefix import PREFIXES, NoPrefix, Prefix
from mifo_verl.method.registry import Registry
from mifo_verl.method.sampling import SAMPLINGS, Fixed, Sampling
from mifo_verl.method.schedule import SCHEDULES, Schedule
from mifo_verl.method.sft_loss import SFT_LOSSES, SftLoss
from mifo_verl.method.token_facts import BEFORE, TEACHER, facts_of_logits
from mifo_verl.method.token_selection import TOKEN_SELECTORS, TokenSelector
from mifo_verl.types import Share

Switch = Annotated[bool, Field(title="true or false")]
Size = Annotated[int, Field(ge=0, title="a whole number of at least 0")]
Count = Annotated[int, Field(ge=1, title="a whole number of at least 1")]
CountOrAll = Annotated[int | None, Field(ge=1, title="a whole number of at least 1")]
Positive = Annotated[float, Field(gt=0, title="a number above 0")]
"""Kinds of values; the title is the rule that an error names, a field's description is the cure."""


def _above_0(share: Share) -> Share:
    if not exact_share("share", share):
        raise ValueError("0 is no share of the rollouts")
    return share


_STRICT = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class SftConfig:
    """How an SFT phase trains (``mifo.sft``)."""

    lr: Positive = Field(default=1e-6, description="the paper's value is 1e-6")
    """Learning rate of SFT, at its highest; the RL phase keeps its own with its own schedule."""
    batch_size: Count = Field(default=64, description="the paper's value is 64")
    """Demonstrations an update at most, over all ranks."""
    passes: Count = Field(default=1, description="use method=rl_only for RL alone")
    """Times that each buffered demonstration is trained on in a phase."""
    clip_grad: Positive = Field(default=1.0, description="use a large number to switch clipping off")
    """Largest gradient norm of an update, taken after the mask."""
    optimizer: Literal["shared", "separate", "fresh"] = "separate"
    """The AdamW of the RL phase, a second one that persists, or a new one every interval."""
    surplus: Literal["use", "keep"] = "use"
    """Whether what the buffer holds over S is used in this SFT phase or kept for the next one."""
    normalise: Literal["sequence", "token"] = "sequence"
    """Whether an update's loss is the mean over its sequences, each a mean over its tokens, or over all its tokens."""
    cut: Literal["even", "full"] = "even"
    """Whether the updates of a pass are as even as can be, or full but for the last: 33 + 32 or 64 + 1 of 65 at 64."""
    own_rollouts: Count = Field(default=64, description="the default is 64")
    """Own correct rollouts of an interval kept at most for its phase, if a part or ``max_kl`` needs them."""
    max_kl: Annotated[float | None, Field(gt=0, title="a number above 0")] = Field(
        default=None, description="use null for no limit"
    )
    """The KL of the policy at the phase's begin to the one now, mean over the tokens of own correct rollouts, behind
    which no further update of the phase is made; no limit if None."""
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls over SFT's stage: over a phase, or over phases that follow one another
    (``Schedule.sft_share``)."""
    lr_warmup_steps_ratio: Annotated[float, Field(ge=0, lt=1, title="a number in [0, 1)")] = Field(
        default=0.0, description="0 has no warm-up"
    )
    """The share of the stage in which it rises to its height, before it falls."""
    min_lr_ratio: Annotated[float, Field(ge=0, le=1, title="a number in [0, 1]")] = Field(
        default=0.0, description="0 lets it fall to 0"
    )
    """What it falls to, as a share of its height."""

    def rate(self, begin: float, end: float) -> float:
        """The learning rate of the update that goes from one share of SFT's stage to the other.

        It rises to the share at the update's end and falls by the share at its begin, so that no update has rate 0.
        """
        warmup = self.lr_warmup_steps_ratio
        fallen = max(0.0, begin - warmup) / (1 - warmup)
        height = {"constant": 1.0, "linear": 1 - fallen, "cosine": (1 + math.cos(math.pi * fallen)) / 2}
        height_now = self.min_lr_ratio + (1 - self.min_lr_ratio) * height[self.lr_scheduler_type]
        return self.lr * height_now * (min(1.0, end / warmup) if warmup else 1.0)

    @property
    def has_constant_rate(self) -> bool:
        """Whether every update has the same learning rate."""
        return self.lr_scheduler_type == "constant" and not self.lr_warmup_steps_ratio


@dataclass(frozen=True, config=_STRICT)
class ProbeConfig:
    """What is measured beside the training (``mifo.probe``); each probe costs time, and none changes the run."""

    around_sft: Switch = True
    """Measure at the borders of RL and SFT phases: all that follows but the last two."""
    every: Count = Field(default=1, description="use around_sft=false to measure nothing")
    """Intervals from one that is measured to the next; the first is."""
    prompts: CountOrAll = Field(default=64, description="use null for the whole validation set")
    """Validation prompts asked before and after an SFT phase, evenly spaced; all of them if None."""
    solved: Size = Field(default=32, description="use 0 to switch it off")
    """Training prompts last seen solved, asked before and after an SFT phase."""
    solved_accuracy: Annotated[
        Share, AfterValidator(_above_0), Field(title="a share in (0, 1], such as 1 or '3/4'")
    ] = Field(default=1, description="1 asks for every rollout to be right")
    """Rollout accuracy from which a training prompt is solved."""
    hard: Size = Field(default=32, description="use 0 to switch it off")
    """Prompts that an SFT phase trains on, the oldest first, asked before and after it."""
    demonstrations: Size = Field(default=64, description="use 0 to switch it off")
    """Held-out demonstrations whose cross-entropy is taken at every border."""
    demonstration_file: Annotated[str | None, Field(title="a parquet file")] = None
    """Parquet file with them; the validation data if None."""
    rollouts: Size = Field(default=32, description="use 0 to switch it off")
    """Answers to these validation prompts before an SFT phase, one each, on which KL, entropy and margin are taken."""
    kl_to_start: Switch = True
    """KL of the policy to the start of the interval on each RL batch: one more forward pass."""
    kl_rollouts: CountOrAll = Field(default=64, description="use null for the whole batch")
    """Rollouts of an RL batch on which that KL is taken, evenly spaced; all of them if None."""

    @property
    def shifts(self) -> bool:
        """Whether an SFT phase's policy is compared with the one before it."""
        return self.around_sft and self.rollouts > 0

    def is_due(self, interval: int) -> bool:
        """Whether this interval's borders are measured; the first interval is 1."""
        return self.around_sft and (interval - 1) % self.every == 0


@dataclass(frozen=True, config=_STRICT)
class InspectConfig:
    """What every SFT phase writes to ``inspection.jsonl`` (``mifo.inspect``)."""

    mask: Switch = True
    """The mask, the RL and the SFT update by layer and by kind of matrix; 2 bytes a coordinate on the host."""
    tokens: Switch = True
    """Entropies and positions of the tokens and of those kept, and the tokens kept most often."""
    examples: Size = Field(default=2, description="0 keeps no demonstration")
    """Demonstrations of a phase kept with every token, its entropy and whether it was kept."""
    example_tokens: Size = Field(default=512, description="0 keeps no demonstration")
    """Tokens of such a demonstration that are kept, from its first."""
    rollouts: Size = Field(default=2, description="0 keeps none")
    """Rollouts of every RL step kept to read in ``samples.jsonl``, from the worst to the best answered question."""


@dataclass(frozen=True, config=_STRICT)
class StateConfig:
    """Where an interval's state lies between its uses (``mifo.state``)."""

    device: Literal["gpu", "host"] = Field(default="gpu", description="host takes 8 bytes a coordinate off the GPU")
    """theta_start and what the mask remembers: beside the weights, or on pinned memory of the host, from where they are
    copied tensor by tensor when an SFT phase begins. With ``param_offload`` they lie on the host either way."""


@dataclass(frozen=True, config=_STRICT)
class CheckpointConfig:
    """What happens to checkpoints (``mifo.checkpoint``); ``trainer.save_freq`` says when one is made."""

    keep_last: Count = Field(default=2, description="the newest checkpoint is always kept")
    """Newest checkpoints that are kept."""
    keep_best: Size = Field(default=1, description="use 0 to keep none")
    """Further checkpoints that are kept, those of the highest validation accuracy."""
    save_final: Switch = True
    """Whether a run ends with a checkpoint of its last step, which evaluate, analyze and export read."""
    on_failed_save: Literal["continue", "stop"] = "continue"
    """What a run does whose checkpoint the disk refuses. The last good one is kept either way."""


@dataclass(frozen=True, config=_STRICT)
class WatchdogConfig:
    """When a wait is reported, and what ends the run with a reason (``mifo.watchdog``)."""

    factor: Positive = 2.0
    """A stage that takes this many times its median so far is reported, with what is awaited."""
    floor_seconds: Positive = 30.0
    """No stage is reported earlier."""
    first_seconds: Positive = 600.0
    """Nor one that has not ended once, while it gets on: it may load a model, compile, or merely be slow."""
    limit_seconds: Positive = 3600.0
    """A stage that takes longer ends the run with a reason."""
    stopped_seconds: Positive = 60.0
    """An actor whose process stays stopped (SIGSTOP, a debugger) for longer ends the run with a reason."""
    max_rollout_difference: Positive = 0.05
    """Mean |difference| of a response token's probability in the rollout server and in the actor above which the run
    ends, before its update: weights that did not arrive, or another dtype or temperature."""
    max_skipped_updates: Count = 3
    """Updates in a row, of the actor or the critic, that may be skipped because their gradient is not finite; one more
    ends the run."""


@dataclass(frozen=True, config=_STRICT)
class BudgetConfig:
    """The compute that a run may spend on training (``mifo.budget``); ``run/compute.py`` says how it counts."""

    flops: Annotated[float | None, Field(gt=0, title="a number above 0")] = Field(
        default=None, description="use null for no limit"
    )
    """The run ends with the step in which its training has spent this much; no limit if None."""


@dataclass_of_parts(frozen=True)
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
    state: StateConfig = field(default_factory=StateConfig)
    prefix: Prefix = field(default_factory=NoPrefix)
    off_policy: OffPolicy = field(default_factory=NotTrained)
    on_policy: OnPolicy = field(default_factory=Verls)
    mixing: Mixing = field(default_factory=NoMixing)
    sampling: Sampling = field(default_factory=Fixed)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every part, in the order of the groups."""
        return tuple(getattr(self, group) for group in _REGISTRIES)

    @property
    def trains_base(self) -> bool:
        """Whether the base weights train beside a LoRA adapter."""
        return any("trainable_base" in part.needs for part in self.parts)

    @property
    def keeps_start(self) -> bool:
        """Whether an interval's start is kept: for a part, for the inspection of RL's update, for the KL of RL."""
        of_sft = self.inspect.mask or any("start" in part.needs for part in self.parts)
        return self.probe.kl_to_start or (of_sft and self.schedule.has_sft_phases)

    @property
    def keeps_before_sft(self) -> bool:
        """Whether the weights before an SFT phase are kept, on the host: to inspect, to measure or to hold it."""
        held = self.before_facts or self.compares_own
        return self.schedule.has_sft_phases and (self.inspect.mask or self.probe.shifts or bool(held))

    @property
    def before_facts(self) -> frozenset[str]:
        """What an SFT update takes of the policy before its phase, by one more forward pass."""
        return (self.constraint.needs | self.sft_facts) & {"kl_to_before", "kl_from_before", BEFORE}

    @property
    def compares_logits(self) -> bool:
        """Whether an SFT update keeps the logits of two passes for each other."""
        return bool(self.before_facts - {BEFORE}) or self.compares_own

    @property
    def keeps_own_rollouts(self) -> bool:
        """Whether correct rollouts of an interval are kept for its SFT phase."""
        needs = self.sft.max_kl is not None or any(OWN_ROLLOUTS in part.needs for part in self.parts)
        return self.schedule.has_sft_phases and needs

    @property
    def compares_own(self) -> bool:
        """Whether these also pass under the weights before the phase, in every update."""
        return OWN_KL in self.constraint.needs

    @property
    def sft_facts(self) -> frozenset[str]:
        """What the token selector and the SFT loss need."""
        return self.token_selector.needs | self.sft_loss.needs

    @property
    def taught(self) -> list[Part]:
        """The parts that compare with the model that wrote the demonstrations."""
        return [part for part in (self.sft_loss, self.token_selector) if TEACHER in part.needs]

    @property
    def token_facts(self) -> list[str]:
        """What an SFT update takes of every token: what the parts need, and the entropy, which is always recorded."""
        return sorted({"entropy"} | facts_of_logits(self.sft_facts))

    @property
    def follows_length(self) -> bool:
        """Whether a part, or SFT's learning rate, depends on how long the run is, in steps or by its budget."""
        is_spread = self.schedule.sft_stage_is_run and not self.sft.has_constant_rate
        return is_spread or any(part.follows_length for part in self.parts)

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
    "on_policy": ON_POLICIES,
    "mixing": MIXINGS,
    "sampling": SAMPLINGS,
}
_SECTIONS: dict[str, type] = {
    "sft": SftConfig,
    "probe": ProbeConfig,
    "inspect": InspectConfig,
    "checkpoint": CheckpointConfig,
    "watchdog": WatchdogConfig,
    "budget": BudgetConfig,
    "state": StateConfig,
}
_KNOWN = [*_REGISTRIES, *_SECTIONS]
_NEUTRAL = ("prefix", "off_policy", "on_policy", "mixing", "sampling", "state")
"""Groups that a run written before them does not have."""


def build_config(node: Mapping[str, Any]) -> MifoConfig:
    """The typed settings of a plain ``mifo`` mapping.

    Raises ValueError, naming the setting, its value, the rule and the cure, on anything unknown, missing or out of
    range.
    """
    errors = config_errors(node)
    if errors:
        raise ValueError(errors[0])
    parts = {key: registry.build(node[key]) for key, registry in _REGISTRIES.items() if key in node}
    return MifoConfig(**parts, **{key: kind(**node.get(key, {})) for key, kind in _SECTIONS.items()})


def config_errors(node: Mapping[str, Any]) -> list[str]:
    """What is wrong with a ``mifo`` mapping: a line for each wrong part, and for each wrong setting of the rest."""
    errors = []
    for key in node:
        if key in RENAMED:
            new = RENAMED[key]
            errors.append(f"mifo.{key} must be called mifo.{new}; choose its part with mifo/{new}=<name>")
        elif key not in (*_KNOWN, "config_dirs"):  # which composing alone reads
            errors.append(f"mifo.{key} must be one of {', '.join(_KNOWN)}{nearest(str(key), _KNOWN)}; remove it")
    for key in _KNOWN:
        if key in node:
            errors += _part_errors(key, node[key]) if key in _REGISTRIES else _section_errors(key, node[key])
        elif key not in _NEUTRAL:
            errors.append(f"mifo.{key} must be set; start from trainer_configs/mifo.yaml, which sets it")
    return errors


def _part_errors(group: str, node: Any) -> list[str]:
    try:
        _REGISTRIES[group].build(node)
    except ValueError as error:
        return [str(error)]
    return []


def _section_errors(key: str, node: Any) -> list[str]:
    """pydantic's errors in the house's form."""
    kind, setting = _SECTIONS[key], f"mifo.{key}"
    known = kind.__pydantic_fields__  # type: ignore[attr-defined]
    if not isinstance(node, Mapping):
        return [f"{setting}={node} must be a group of settings ({', '.join(known)}); set them one by one"]
    try:
        kind(**node)
    except ValidationError as refused:
        by_name = {str(error["loc"][0]): error for error in refused.errors()}
    else:
        return []
    errors = []
    for name, error in by_name.items():
        if name not in known:
            nearby = nearest(name, list(known))
            errors.append(f"{setting}.{name} must be one of {', '.join(known)}{nearby}; remove it")
            continue
        choices, value = list(get_args(known[name].annotation)), node[name]
        is_choice = error["type"] == "literal_error"
        rule = f"one of {', '.join(choices)}{nearest(str(value), choices)}" if is_choice else known[name].title
        cure = known[name].description or f"the default is {str(known[name].default).lower()}"
        errors.append(f"{setting}.{name}={value} must be {rule}; {cure}")
    return errors
