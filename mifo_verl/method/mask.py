"""MIFO's mask: gradient <- (1 - M) * gradient, and weights that really hold still (MIFO section 3, steps 3 to 6).

A zero gradient does not hold a weight still under AdamW: old moments and decoupled weight decay still move it.
``gradient`` is the paper's text and zeroes the gradient alone. ``strict`` also puts the frozen coordinates' weights and
optimizer moments back after every update, so that both are bit-identical after the SFT phase. Shapes: N coordinates of
one tensor's shard.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from mifo_verl.errors import exact_share, require, require_choice
from mifo_verl.method import packed
from mifo_verl.method.bottom_share import select_bottom_share
from mifo_verl.method.constraint import CONSTRAINTS, ActiveConstraint, Constraint, MaskReport, Model, Observer, given_to
from mifo_verl.method.coordinates import ShardRange
from mifo_verl.method.held_still import FrozenStep, HeldStill, fingerprint, is_elementwise, mask_gradients_
from mifo_verl.method.importance import Importance, accumulate_, forget_unselected_
from mifo_verl.method.packed import PackedMasks
from mifo_verl.method.top_share import (
    InvalidScores,
    Score,
    Selection,
    Shards,
    Streamed,
    select_top_share,
    select_top_share_per_tensor,
)
from mifo_verl.types import Cost, Phase, Problem, RunFacts, Share


@CONSTRAINTS.register("gradient")
@dataclass(frozen=True)
class GradientMask(Constraint):
    """Only the gradient of the frozen coordinates is zeroed: the paper's text."""

    share: Share = 0.5
    """k: the share of all coordinates that is frozen, the top one by importance."""
    history: Share = 0.5
    """alpha: the weight of the importance of earlier intervals; 0 is MIFO-dagger."""
    scope: Literal["global", "per_tensor"] = "global"
    """Whether the share is taken of the whole model or of every tensor by itself."""
    side: Literal["top", "bottom"] = "top"
    """``bottom`` is a control: what RL has changed least, unchanged coordinates first."""

    def __post_init__(self) -> None:
        share = exact_share("share", self.share)
        require(share > 0, "share", self.share, "in (0, 1]", "use mifo/constraint=none to freeze nothing")
        history = exact_share("history", self.history)
        require(history < 1, "history", self.history, "in [0, 1)", "1 would never remember any change")
        require_choice("scope", self.scope, ("global", "per_tensor"), "global is the paper's rule")
        require_choice("side", self.side, ("top", "bottom"), "top is the paper's rule")
        rule = "top with a history, which remembers the importance of what was frozen"
        require(self.side == "top" or not history, "side", self.side, rule, "set mifo.constraint.history=0")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"start", "history"}) if exact_share("history", self.history) else frozenset({"start"})

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        if facts.weights_dtype not in ("fp32", "float32"):
            setting = "actor_rollout_ref.actor.fsdp_config.model_dtype"
            rule = "fp32, because importance is taken from float32 master weights (bf16 hides most RL updates)"
            yield Problem(setting, facts.weights_dtype, rule, f"use {setting}=fp32, or mifo/constraint=none")

    def attach(self, model: Model, importance: Importance) -> "ActiveMask":
        return ActiveMask(self, importance, model, holds_values=False)

    def choose(self, importance: Sequence[Score], shards: Shards | None = None) -> Selection:
        rule = select_top_share if self.scope == "global" else select_top_share_per_tensor
        if self.side == "bottom":
            return select_bottom_share(rule, importance, self.share, shards)
        return rule(importance, self.share, shards)

    def costs(self, facts: RunFacts) -> Iterable[Cost]:
        if facts.has_sft_phases:
            remembers = "history" in self.needs
            phases = ("rollout", "rl", "sft") if remembers else ("sft",)
            yield Cost("importance", 4, phases, "4T/W", saved_bytes=4 * remembers, is_state=True)
            yield Cost("mask", 0.125, ("sft",), "T/8W")

    def describe(self) -> str:
        return f"the gradient of the {self.side} {self.share} of the coordinates by importance is zeroed"


@CONSTRAINTS.register("strict")
@dataclass(frozen=True)
class StrictMask(GradientMask):
    """Frozen coordinates and their optimizer moments are bit-identical after the SFT phase."""

    def attach(self, model: Model, importance: Importance) -> "ActiveMask":
        return ActiveMask(self, importance, model, holds_values=True)

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        if any(bits in facts.optimizer.lower() for bits in ("8bit", "4bit", "fp8")):
            setting = "actor_rollout_ref.actor.optim.optimizer"
            rule = "an optimizer with moments of at least 16 bits, because those of frozen coordinates are put back"
            yield Problem(setting, facts.optimizer, rule, "use AdamW, or mifo/constraint=gradient")

    def costs(self, facts: RunFacts) -> Iterable[Cost]:
        yield from super().costs(facts)
        if facts.has_sft_phases and facts.optimizer not in ("AdamW", "Adam"):  # whose steps are made in slices
            values = 1 if facts.sft_optimizer == "fresh" else 3  # the weight, and an older optimizer's two moments
            share = float(exact_share("share", self.share))
            yield Cost("held values", 4 * values * share, ("sft",), f"{4 * values}k*T/W")

    def describe(self) -> str:
        return f"the {self.side} {self.share} of the coordinates by importance are frozen"


def step_factor(steps: int, more: int, betas: tuple[float, float]) -> float:
    """How many times too long AdamW's step of a held coordinate is, after a phase of ``more`` updates that held it.

    AdamW counts updates by tensor. The moments of a held coordinate have taken in ``steps`` of ``steps + more``, and
    are divided by the corrections of moments that have taken in all: 1.25 for 20 more after 20, 1 in the long run.
    """
    if steps == 0:
        return 1.0
    first, second = ((1 - beta**steps) / (1 - beta ** (steps + more)) for beta in betas)
    return first / second**0.5


class ActiveMask(ActiveConstraint):
    """The top share of the coordinates by importance, frozen in the SFT phase; the history of their importance."""

    def __init__(self, rule: GradientMask, importance: Importance, model: Model, holds_values: bool) -> None:
        self._rule = rule
        self._importance = importance
        self._model = model
        self._holds_values = holds_values
        self.history: list[Tensor] | None = None
        """C of the last interval; None if alpha is 0."""
        self.frozen: PackedMasks | None = None
        """M while an SFT phase runs; True where a coordinate is frozen."""
        self._step: FrozenStep | None = None
        """Of an optimizer whose step can be made in slices; of any other one there is ``_held``."""
        self._held: HeldStill | None = None
        self._held_keys: list[tuple[int, str]] = []
        self._fingerprint: Tensor | None = None

    @torch.no_grad()
    def select(
        self,
        start: Sequence[Tensor] | None,
        interval: int,
        observe: Observer | None,
        optimizer: Optimizer | None = None,
    ) -> MaskReport:
        """Steps 3 to 5: update magnitude, importance, mask, and what is remembered. Collective.

        Raises, on every rank, FloatingPointError if a weight of any rank is not finite, ValueError if nothing is left
        to train.
        """
        if start is None:
            raise RuntimeError("the interval has no start; begin() comes before select()")
        history = self._accumulated(start, interval, given_to(self._importance, self._model, optimizer))
        selection = self._chosen(history)
        frozen = PackedMasks.of(selection.frozen)
        if observe is not None:
            observe(frozen, history)
        for score_N, mask in zip(history, frozen.packed, strict=True):
            for part_N, frozen_N in zip(score_N.split(packed.CHUNK), mask.to(score_N.device).chunks(), strict=True):
                forget_unselected_(part_N, frozen_N)
        if selection.num_frozen == selection.num_coordinates:
            raise ValueError(
                f"mifo.constraint.share={self._rule.share} must leave something to train, and it froze all "
                f"{selection.num_coordinates} coordinates; lower it"
            )
        self.history = history if "history" in self._rule.needs else None
        self.frozen = frozen
        return MaskReport(
            frozen_share=selection.num_frozen / selection.num_coordinates,
            positive_share=selection.num_positive / selection.num_coordinates,
            threshold=selection.threshold if selection.num_frozen else None,
            num_frozen=selection.num_frozen,
            num_coordinates=selection.num_coordinates,
        )

    def enter(self, optimizer: Optimizer) -> None:
        if self.frozen is None:
            raise RuntimeError("nothing is selected; select() comes before enter()")
        if not self._holds_values:
            return
        # an optimizer state that does not exist yet starts at 0, and a zero gradient leaves it there
        coordinates = self._coordinates(optimizer)
        self._held_keys = list(coordinates)
        if is_elementwise(optimizer):
            self._step = FrozenStep(self._model, optimizer, self.frozen.packed)
            self._fingerprint = fingerprint(list(coordinates.values()), self._held_masks().packed)
        else:
            self._held = HeldStill(list(coordinates.values()), self._held_masks())

    def before_update(self, phase: Phase) -> None:
        if phase is Phase.SFT and self.frozen is not None:
            mask_gradients_(self._model.gradients(), self.frozen)
            if self._step is not None:
                self._step.install()

    def after_update(self, phase: Phase, optimizer: Optimizer) -> None:
        if phase is Phase.SFT and self._step is not None:
            self._step.remove()
        if phase is Phase.SFT and self._held is not None:
            self._held.put_back_(self._held_now(optimizer))

    def release(self, optimizer: Optimizer) -> float | None:
        """The largest drift of what was held. Raises RuntimeError if no value was kept to measure it by."""
        drift = None
        if self._held is not None:
            drift = self._held.drift(self._held_now(optimizer))
        elif self._fingerprint is not None:
            now = fingerprint(self._held_now(optimizer), self._held_masks().packed)
            if not torch.equal(now, self._fingerprint):
                raise RuntimeError(
                    "mifo.constraint=strict must leave frozen weights and moments as they are, and something else than "
                    "the optimizer's step has changed them in this SFT phase; resume from the checkpoint before it"
                )
            drift = 0.0
        self.frozen = self._held = self._step = self._fingerprint = None
        return drift

    @property
    def last_mask(self) -> Iterable[Tensor] | None:
        return None if self.history is None else (score_N > 0 for score_N in self.history)  # a 0 is never selected

    def state(self) -> dict[str, Tensor]:
        frozen = None if self.frozen is None else self.frozen.to("cpu")
        parts = {"history": self.history, "frozen": frozen}
        return {f"{part}.{number}": tensor for part, held in parts.items() for number, tensor in enumerate(held or [])}

    def load(self, state: Mapping[str, Tensor]) -> None:
        numbers = range(len(self._model.slices))
        held = {part: [state[f"{part}.{number}"] for number in numbers if f"{part}.0" in state] for part in _PARTS}
        self.history = held["history"] or None
        masks = PackedMasks.of(mask_N.to("cpu") for mask_N in held["frozen"])
        self.frozen = masks.to(self._model.weights()[0].device) if len(masks) else None

    def _accumulated(self, start: Sequence[Tensor], interval: int, given: list[tuple[Tensor, ...]]) -> list[Tensor]:
        """C~ of every tensor, where the start lies, computed where the weights are."""
        alpha = float(exact_share("history", self._rule.history))
        history = self.history or [
            torch.zeros_like(start_N, dtype=torch.float32, pin_memory=start_N.is_pinned()) for start_N in start
        ]
        ends = self._model.weights()
        tensors = zip(history, start, ends, given, self._model.slices, strict=True)
        for old_N, start_N, end_N, more, where in tensors:
            parts = zip(*(tensor.split(packed.CHUNK) for tensor in (old_N, start_N, end_N, *more)), strict=True)
            for number, (old, begin, end, *beside) in enumerate(parts):
                place = ShardRange(where.name, where.first + number * packed.CHUNK)
                here = old.to(end.device)
                accumulate_(here, self._importance(begin.to(end.device), end, place, interval, *beside), alpha)
                if here is not old:
                    old.copy_(here)
        return history

    def _chosen(self, scores: Sequence[Tensor]) -> Selection:
        device = self._model.weights()[0].device
        is_here = scores[0].device == device
        try:
            return self._rule.choose(scores if is_here else Streamed(scores, device), self._model.shards)
        except InvalidScores:  # on every rank
            self._require_finite(scores)
            raise

    def _require_finite(self, scores: Sequence[Tensor]) -> None:
        broken = torch.stack([(~score_N.isfinite()).sum() for score_N in scores]).sum()
        count = int(self._model.shards.sum(broken.reshape(1).to(self._model.weights()[0].device)))
        if count:
            raise FloatingPointError(
                f"the importance of {count} coordinates is not finite, so weights are NaN or infinite; resume from "
                "a checkpoint before, with a lower learning rate"
            )

    def _coordinates(self, optimizer: Optimizer) -> dict[tuple[int, str], Tensor]:
        """Flat views of everything that has one value a coordinate: the weights and the optimizer's moments."""
        weights = {(number, "weight"): weight for number, weight in enumerate(self._model.weights())}
        return weights | {(number, name): state for number, name, state in self._model.optimizer_state(optimizer)}

    def _held_masks(self) -> PackedMasks:
        """The masks of what is held, in its order."""
        assert self.frozen is not None
        return PackedMasks([self.frozen.packed[number] for number, _ in self._held_keys])

    def _held_now(self, optimizer: Optimizer) -> list[Tensor]:
        coordinates = self._coordinates(optimizer)
        return [coordinates[key] for key in self._held_keys]


_PARTS = ("history", "frozen")
