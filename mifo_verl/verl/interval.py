"""What a rank keeps of an interval: theta_start, the importance history, and the mask while an SFT phase runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mifo_verl.method.constraint import GradientMask, HeldStill, StrictMask, mask_gradients_
from mifo_verl.method.importance import Importance, accumulate_, forget_unselected_
from mifo_verl.method.top_share import select_top_share, select_top_share_per_tensor
from mifo_verl.probes.mask import MaskInspection
from mifo_verl.run.faults import reach
from mifo_verl.verl.shards import ShardedModel


@dataclass(frozen=True)
class MaskReport:
    """The mask of one SFT phase, over all ranks."""

    frozen_share: float
    positive_share: float
    """Share of the coordinates whose importance is above 0."""
    threshold: float | None
    """The smallest importance that is frozen; None where nothing is."""
    num_frozen: int
    num_coordinates: int


class IntervalState:
    """One a rank, beside its shards: 4 bytes a coordinate for theta_start, 4 for the history where it is kept."""

    def __init__(self, model: ShardedModel) -> None:
        self.model = model
        self.start: list[Tensor] | None = None
        self.history: list[Tensor] | None = None
        self.updates = 0
        """Updates so far that have lost gradients to ``mifo.sparsify``: what each drops follows from its number."""
        self.inspects = False
        """Whether an SFT phase counts its mask and both updates by layer; theta_start then moves to its own start."""
        self._inspection: MaskInspection | None = None
        self._last_mask: list[Tensor] | None = None
        self.frozen: list[Tensor] | None = None
        self._held: HeldStill | None = None
        self._held_keys: list[tuple[int, str]] = []

    @torch.no_grad()
    def begin(self) -> None:
        """theta_start = theta (MIFO section 3, step 1); again at the start of an SFT phase that is measured itself."""
        if self.start is None:
            self.start = [weight.clone() for weight in self.model.weights()]
        for start, weight in zip(self.start, self.model.weights(), strict=True):
            start.copy_(weight)

    @torch.no_grad()
    def select(self, freeze: GradientMask, scorer: Importance, interval: int) -> MaskReport:
        """Steps 3 to 5: update magnitude, importance, mask, and what is remembered. Collective over the ranks."""
        if self.start is None:
            raise RuntimeError("the interval has no start; begin() comes before select()")
        reach("threshold")
        previous = self._previous_mask()
        importance = self._importance(scorer, float(Fraction(str(freeze.history))), interval)
        self._require_finite(importance)
        rule = select_top_share if freeze.scope == "global" else select_top_share_per_tensor
        selection = rule(importance, freeze.share, self.model.shards)
        self._inspect_mask(selection.frozen, importance, previous)
        for values, frozen in zip(importance, selection.frozen, strict=True):
            forget_unselected_(values, frozen)
        if selection.num_frozen == selection.num_coordinates:
            raise ValueError(
                f"mifo.constraint.share={freeze.share} must leave something to train, and it froze all "
                f"{selection.num_coordinates} coordinates; lower it"
            )
        self.history = importance if Fraction(str(freeze.history)) > 0 else None
        self.frozen = selection.frozen
        return MaskReport(
            frozen_share=selection.num_frozen / selection.num_coordinates,
            positive_share=selection.num_positive / selection.num_coordinates,
            threshold=selection.threshold if selection.num_frozen else None,
            num_frozen=selection.num_frozen,
            num_coordinates=selection.num_coordinates,
        )

    def _importance(self, scorer: Importance, alpha: float, interval: int) -> list[Tensor]:
        assert self.start is not None
        history = self.history or [torch.zeros_like(start, dtype=torch.float32) for start in self.start]
        ends = self.model.weights()
        for old, start, end, where in zip(history, self.start, ends, self.model.slices, strict=True):
            accumulate_(old, scorer(start, end.to(start.device), where, interval), alpha)
        return history

    def _require_finite(self, importance: list[Tensor]) -> None:
        """Raise on every rank where a coordinate of any rank is NaN or infinite. Collective."""
        broken = torch.stack([(~values.isfinite()).sum() for values in importance]).sum()
        count = int(self.model.shards.sum(broken.reshape(1)))
        if count:
            raise FloatingPointError(
                f"the importance of {count} coordinates is not finite, so weights are NaN or infinite; resume from "
                "a checkpoint before, with a lower learning rate"
            )

    def _previous_mask(self) -> list[Tensor] | None:
        """Where the history is not 0, which is the last mask; without a history, the copy kept of it."""
        if not self.inspects:
            return None
        return [old != 0 for old in self.history] if self.history is not None else self._last_mask

    def _inspect_mask(self, frozen: list[Tensor], importance: list[Tensor], previous: list[Tensor] | None) -> None:
        if not self.inspects:
            return
        self.inspect_rl()
        assert self._inspection is not None
        for number, (mask, score) in enumerate(zip(frozen, importance, strict=True)):
            self._inspection.mask(number, mask, score, None if previous is None else previous[number])
        self._last_mask = [mask.cpu() for mask in frozen]

    @torch.no_grad()
    def inspect_rl(self) -> None:
        """Count the RL phase's update; theta_start becomes the weights that the SFT phase starts from."""
        if self.start is None:
            raise RuntimeError("the interval has no start; begin() comes before inspect_rl()")
        self._inspection = MaskInspection([where.name for where in self.model.slices])
        self._inspection.rl(self.start, self.model.weights())
        self.begin()

    @torch.no_grad()
    def inspect_sft(self) -> dict[str, Any] | None:
        """The counts of this interval, the SFT phase's update in them; None where nothing is inspected. Collective."""
        if self._inspection is None or self.start is None:
            return None
        weights = self.model.weights()
        self._inspection.sft(self.start, weights)
        table = self._inspection.table(self.model.shards, weights[0].device)
        self._inspection = None
        return table

    def inspection_state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of the inspection: inside an SFT phase its counts, with 2 bytes a coordinate; between
        phases the last mask, with 1 byte, where no history tells it.
        """
        if self._inspection is not None:
            return self._inspection.state()
        last = self._last_mask if self.history is None else None
        return {f"last.{number}": mask for number, mask in enumerate(last or [])}

    def restore_inspection(self, state: Mapping[str, Tensor]) -> None:
        """Take up what a checkpoint kept of the inspection, after all else of it."""
        names = [where.name for where in self.model.slices]
        self._inspection = None
        if "counts" in state:
            self._inspection = MaskInspection(names)
            self._inspection.restore_(state)
            self._last_mask = self.frozen and [mask.cpu() for mask in self.frozen]
        else:
            self._last_mask = [state[f"last.{number}"] for number in range(len(names))] if state else None

    def hold(self, freeze: GradientMask, optimizer: Optimizer) -> None:
        """Begin to hold the mask's coordinates; in strict mode their weights and moments too."""
        if self.frozen is None:
            raise RuntimeError("nothing is selected; select() comes before hold()")
        if isinstance(freeze, StrictMask):
            # an optimizer state that does not exist yet starts at 0, and a zero gradient leaves it there
            coordinates = self._coordinates(optimizer)
            self._held_keys = list(coordinates)
            self._held = HeldStill(list(coordinates.values()), [self.frozen[number] for number, _ in coordinates])

    def _coordinates(self, optimizer: Optimizer) -> dict[tuple[int, str], Tensor]:
        """Flat views of everything that has one value a coordinate: the weights and the optimizer's moments."""
        weights = {(number, "weight"): weight for number, weight in enumerate(self.model.weights())}
        return weights | {(number, name): state for number, name, state in self.model.optimizer_state(optimizer)}

    def _held_now(self, optimizer: Optimizer) -> list[Tensor]:
        coordinates = self._coordinates(optimizer)
        return [coordinates[key] for key in self._held_keys]

    def before_update(self) -> None:
        """Zero the frozen coordinates of the gradient, before the clip norm is taken."""
        if self.frozen is not None:
            mask_gradients_(self.model.gradients(), self.frozen)

    def after_update(self, optimizer: Optimizer) -> None:
        """Put the held coordinates back."""
        if self._held is not None:
            self._held.put_back_(self._held_now(optimizer))

    def release(self, optimizer: Optimizer) -> float | None:
        """Everything is trainable again. Returns the largest drift of what was held, None where nothing was."""
        drift = None if self._held is None else self._held.drift(self._held_now(optimizer))
        self.frozen = self._held = None
        return drift
