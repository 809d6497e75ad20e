"""MifoConfig: the one typed tree of our settings, built from the Hydra node ``mifo``.

Everything else in a run's config is verl's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import ValidationError

from mifo_verl.errors import RENAMED, nearest
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
from mifo_verl.settings import (
    BudgetConfig,
    CheckpointConfig,
    InspectConfig,
    ProbeConfig,
    SftConfig,
    StateConfig,
    WatchdogConfig,
)


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
