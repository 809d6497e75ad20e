"""What holds RL's knowledge while SFT trains? What every constraint is, and the one that holds nothing.

A constraint is settings; ``attach`` gives the object that is at work on one rank's shards. Shapes: N coordinates of one
tensor's shard.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.optim import Optimizer

from mifo_verl.method.coordinates import ShardRange
from mifo_verl.method.importance import SECOND_MOMENT, Importance, second_moments
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry
from mifo_verl.method.top_share import Score, Selection, Shards
from mifo_verl.types import Phase, Problem, RunFacts


class Model(Protocol):
    """This rank's part of the trainable parameters: flat local views, one a parameter, always in the same order."""

    slices: list[ShardRange]
    adapter: list[int]
    """The numbers of the parameters of a LoRA adapter."""

    @property
    def shards(self) -> Shards: ...

    @property
    def parameters(self) -> Sequence[Tensor]:
        """The same ones as an optimizer knows them."""
        ...

    def weights(self) -> list[Tensor]: ...

    def gradients(self) -> list[Tensor | None]: ...

    def optimizer_state(self, optimizer: Optimizer) -> Iterator[tuple[int, str, Tensor]]:
        """(parameter's number, name, flat view) of every state that has one value a coordinate."""
        ...

    def forget_gradients(self, of_adapter: bool) -> None:
        """The adapter has no gradients any more, or all other parameters: an optimizer passes them over."""
        ...

    def fold_adapter(self) -> None:
        """W <- W + (alpha / r) B A in float32, then B <- 0. Collective."""
        ...


def given_to(importance: Importance, model: Model, optimizer: Optimizer | None) -> list[tuple[Tensor, ...]]:
    """What an importance needs of each tensor beside its weights: RL's second moments, flat, or nothing."""
    if SECOND_MOMENT not in importance.needs:
        return [()] * len(model.slices)
    states = () if optimizer is None else model.optimizer_state(optimizer)
    return [(moment_N,) for moment_N in second_moments(states, model.weights())]


@dataclass(frozen=True)
class MaskReport:
    """The mask of one SFT phase, over all ranks."""

    frozen_share: float
    positive_share: float
    """Share of the coordinates whose importance is above 0."""
    threshold: float | None
    """The smallest importance that is frozen, or the largest of a bottom share; None if nothing is."""
    num_frozen: int
    num_coordinates: int
    change_of_held: float | None = None
    """Median |RL change| of the coordinates that the phase before held, over that of the others: about 1 if RL moves
    both alike. None without a mask before, or if the others have not moved."""


Observer = Callable[[Sequence[Tensor], Sequence[Tensor]], None]
"""Is shown (masks, importance) of this rank's tensors when they are selected, and keeps neither."""


class ActiveConstraint:
    """A constraint at work on one rank's shards. All ranks call in the same order. This base holds nothing."""

    def begin(self) -> None:
        """An interval begins: its RL phase comes first."""

    def select(
        self,
        start: Sequence[Tensor] | None,
        interval: int,
        observe: Observer | None,
        optimizer: Optimizer | None = None,
    ) -> MaskReport | None:
        """The RL phase has ended, ``start`` is theta_start if the part needs it, ``optimizer`` RL's: what is held."""
        return None

    def enter(self, optimizer: Optimizer) -> None:
        """SFT updates by this optimizer follow, at the begin of the phase or after a resume inside it."""

    def before_update(self, phase: Phase) -> None:
        """The gradients are whole, and the clip norm is not taken yet."""

    def after_update(self, phase: Phase, optimizer: Optimizer) -> None:
        """The optimizer has made its step."""

    def release(self, optimizer: Optimizer) -> float | None:
        """The SFT phase has ended. The largest drift of what was held; None if nothing was."""
        return None

    @property
    def last_mask(self) -> Iterable[Tensor] | None:
        """The mask of the phase before, as far as what is remembered has it; made when asked for."""
        return None

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to keep."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's state, on the host or on the device of the weights, as ``mifo.state.device`` says;
        what it has no key for is empty.
        """


class Constraint(Part):
    """What an SFT phase may not change; a part that acts in RL's updates too says other ``problems``."""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if not facts.has_sft_phases:
            rule = "holds nothing, because mifo.schedule has no SFT phases"
            yield Problem(self.setting("name"), self.name, rule, "use mifo/constraint=none", is_error=False)

    def attach(self, model: Model, importance: Importance) -> ActiveConstraint:
        """The constraint at work on a model's shards."""
        return ActiveConstraint()

    def penalty(self, facts: Mapping[str, Tensor], response_mask_BT: Tensor) -> Tensor:
        """loss_B that is added to the SFT loss, of ``log_prob`` (BT, live) and what it ``needs`` of the policy before.

        Never asked unless it needs that.
        """
        raise NotImplementedError

    @property
    def own_weight(self) -> float:
        """What multiplies the mean of ``own_loss`` in an SFT update."""
        return 0.0

    def own_loss(self, facts: Mapping[str, Tensor], response_mask_BT: Tensor) -> Tensor:
        """loss_B of own correct rollouts, of ``log_prob`` (BT, live) and the facts of these that it needs.

        Never asked unless it needs ``own_rollouts``.
        """
        raise NotImplementedError

    def choose(self, importance: Sequence[Score], shards: Shards | None = None) -> Selection | None:
        """The mask of these importances, one flat tensor a parameter; None if the constraint has no mask."""
        return None


CONSTRAINTS: Registry[Constraint] = Registry("mifo/constraint", Constraint)


@CONSTRAINTS.register("none")
@dataclass(frozen=True)
class NoConstraint(Constraint):
    """Nothing is frozen: plain interleaving (ReLIFT)."""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        return ()

    def describe(self) -> str:
        return "nothing is frozen"
