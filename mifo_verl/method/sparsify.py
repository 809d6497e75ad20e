"""Online gradient sparsification: gradient <- m * gradient, m ~ Bernoulli(1 - rate) anew in every update, not rescaled.

The paper's analysis of how much of an update RL and SFT can lose (MIFO section 2, rate 0.5), not a part of MIFO. Under
AdamW a coordinate whose gradient is dropped still moves by its moments and by weight decay, as in the paper.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mifo_verl.errors import require, require_choice, require_whole
from mifo_verl.method.constraint import CONSTRAINTS, ActiveConstraint, Constraint, Model
from mifo_verl.method.coordinates import BITS, ShardRange, random_bits
from mifo_verl.method.importance import Importance
from mifo_verl.types import Phase, Problem, RunFacts

_CHUNK = 1 << 24
"""Coordinates drawn at a time: 8 bytes each, a few times over."""


@CONSTRAINTS.register("sparsify")
@dataclass(frozen=True)
class Sparsify(Constraint):
    """A random share of every gradient is dropped, in RL, in SFT or in both; nothing is frozen."""

    rate: float = 0.5
    """The share of the gradient's coordinates that is dropped, drawn anew in every update; 0 draws nothing."""
    phase: Literal["both", "rl", "sft"] = "both"
    """Whose updates lose it."""
    seed: int = 0
    """What is drawn."""

    def __post_init__(self) -> None:
        number = isinstance(self.rate, int | float) and not isinstance(self.rate, bool)
        rule, cure = "a number in [0, 1)", "1 would drop every gradient; 0 drops none"
        require(number and 0 <= self.rate < 1, "rate", self.rate, rule, cure)
        require_choice("phase", self.phase, ("both", "rl", "sft"))
        require_whole("seed", self.seed, "the run's seed is the default")

    def attach(self, model: Model, importance: Importance) -> "ActiveSparsify":
        return ActiveSparsify(self, model)

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        return super().problems(facts) if self.phase == "sft" else ()

    def describe(self) -> str:
        updates = "every update" if self.phase == "both" else f"every {self.phase.upper()} update"
        return f"{self.rate} of the gradient is dropped at random in {updates}"


class ActiveSparsify(ActiveConstraint):
    """Counts the updates that have lost gradients: what each drops follows from its number."""

    def __init__(self, rule: Sparsify, model: Model) -> None:
        self._rule = rule
        self._model = model
        self.updates = 0

    def before_update(self, phase: Phase) -> None:
        if self._rule.rate > 0 and self._rule.phase in ("both", phase.value):
            self.updates += 1
            drop_gradients_(self._model.gradients(), self._model.slices, self._rule.rate, self._rule.seed, self.updates)

    def state(self) -> dict[str, Tensor]:
        return {"updates": torch.tensor([self.updates])}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.updates = int(state["updates"]) if "updates" in state else 0


@torch.no_grad()
def drop_gradients_(
    gradients: Sequence[Tensor | None], slices: Sequence[ShardRange], rate: float, seed: int, update: int
) -> None:
    """Zero a random share ``rate`` of the coordinates of each flat gradient, in place, before the clip norm is taken.

    Which ones follows from the seed, the number of the update and the coordinate: the same for any sharding. Every
    coordinate is dropped with probability rate, to the nearest 2^-24, independently of the others.
    """
    dropped_below = round(rate * (1 << BITS))
    for gradient_N, where in zip(gradients, slices, strict=True):
        for first in range(0, 0 if gradient_N is None else gradient_N.numel(), _CHUNK):
            assert gradient_N is not None
            part = gradient_N[first : first + _CHUNK]
            place = ShardRange(where.name, where.first + first)
            bits = random_bits(f"sparsify/{seed}/{update}", place, part.numel(), part.device)
            part.masked_fill_(bits < dropped_below, 0.0)
