"""gradient <- (1 - M) * gradient, and weights that really hold still (MIFO section 3, step 6).

A zero gradient does not hold a weight still under AdamW: old moments and decoupled weight decay still move it.
``gradient`` is the paper's text and zeroes the gradient alone. ``strict`` also puts the frozen coordinates' weights
and optimizer moments back after every update, so that both are bit-identical after the SFT phase.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mifo_verl.errors import exact_share, require
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry
from mifo_verl.types import Cost, Problem, RunFacts, Share


class Constraint(Part):
    """What an SFT phase may not change."""


CONSTRAINTS: Registry[Constraint] = Registry("mifo/constraint", Constraint)


@CONSTRAINTS.register("none")
@dataclass(frozen=True)
class NoConstraint(Constraint):
    """Nothing is frozen: plain interleaving (ReLIFT)."""

    def describe(self) -> str:
        return "nothing is frozen"


@CONSTRAINTS.register("gradient")
@dataclass(frozen=True)
class GradientMask(Constraint):
    """Only the gradient of the frozen coordinates is zeroed: the paper's text."""

    share: Share = 0.5
    """k: the top share of all coordinates by importance."""
    history: Share = 0.5
    """alpha: the weight of the importance of earlier intervals; 0 is MIFO-dagger."""
    scope: Literal["global", "per_tensor"] = "global"
    """Whether the share is taken of the whole model or of every tensor by itself."""

    def __post_init__(self) -> None:
        share = exact_share("share", self.share)
        require(share > 0, "share", self.share, "in (0, 1]", "use mifo/constraint=none to freeze nothing")
        history = exact_share("history", self.history)
        require(history < 1, "history", self.history, "in [0, 1)", "1 would never remember any change")
        require(
            self.scope in ("global", "per_tensor"),
            "scope",
            self.scope,
            "global or per_tensor",
            "global is the paper's rule",
        )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"start", "history"}) if exact_share("history", self.history) else frozenset({"start"})

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if facts.weights_dtype not in ("fp32", "float32"):
            setting = "actor_rollout_ref.actor.fsdp_config.model_dtype"
            rule = "fp32, because importance is taken from float32 master weights (bf16 hides most RL updates)"
            yield Problem(setting, facts.weights_dtype, rule, f"use {setting}=fp32, or mifo/constraint=none")

    def costs(self, facts: RunFacts) -> Iterable[Cost]:
        if facts.has_sft_phases:
            remembers = "history" in self.needs
            phases = ("rollout", "rl", "sft") if remembers else ("sft",)
            yield Cost("importance", 4, phases, "4N/W", saved_bytes=4 * remembers)
            yield Cost("mask", 1, ("sft",), "N/W")

    def describe(self) -> str:
        return f"the gradient of the top {self.share} of the coordinates by importance is zeroed"


@CONSTRAINTS.register("strict")
@dataclass(frozen=True)
class StrictMask(GradientMask):
    """Frozen coordinates and their optimizer moments are bit-identical after the SFT phase."""

    def costs(self, facts: RunFacts) -> Iterable[Cost]:
        yield from super().costs(facts)
        if facts.has_sft_phases:
            values = 1 if facts.sft_optimizer == "fresh" else 3  # the weight, and an older optimizer's two moments
            share = float(exact_share("share", self.share))
            yield Cost("held values", 4 * values * share, ("sft",), f"{4 * values}k*N/W")

    def describe(self) -> str:
        return f"the top {self.share} of the coordinates by importance are frozen"


@torch.no_grad()
def mask_gradients_(gradients: Sequence[Tensor | None], frozen: Sequence[Tensor]) -> None:
    """Zero the frozen coordinates of each gradient, in place. Called before the clip norm is taken."""
    for gradient, mask in zip(gradients, frozen, strict=True):
        if gradient is not None:
            gradient.masked_fill_(mask.to(gradient.device), 0.0)


class HeldStill:
    """The frozen coordinates of some tensors (weights, moments), kept as they are now: 4 bytes a coordinate held."""

    @torch.no_grad()
    def __init__(self, tensors: Sequence[Tensor], frozen: Sequence[Tensor]) -> None:
        self._frozen = [mask.to(tensor.device) for tensor, mask in zip(tensors, frozen, strict=True)]
        self._values = [tensor[mask] for tensor, mask in zip(tensors, self._frozen, strict=True)]

    @torch.no_grad()
    def put_back_(self, tensors: Sequence[Tensor]) -> None:
        """Write the values held into the frozen coordinates of the same tensors, in place."""
        for tensor, mask, values in zip(tensors, self._frozen, self._values, strict=True):
            tensor.masked_scatter_(mask, values)

    @torch.no_grad()
    def drift(self, tensors: Sequence[Tensor]) -> float:
        """The largest |change| of a frozen coordinate since it was held; 0.0 where every one is bit-identical."""
        changes = [
            (tensor[mask] - values).abs().max()
            for tensor, mask, values in zip(tensors, self._frozen, self._values, strict=True)
            if values.numel()
        ]
        return float(torch.stack(changes).max()) if changes else 0.0
