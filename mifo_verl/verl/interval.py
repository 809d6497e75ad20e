"""What a rank keeps of an interval beside its shards: theta_start, the constraint's state, and what is inspected."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mifo_verl.method.constraint import ActiveConstraint, MaskReport
from mifo_verl.method.packed import PackedMasks
from mifo_verl.method.top_share import median
from mifo_verl.probes.mask import MaskInspection
from mifo_verl.verl.shards import ShardedModel

_INSPECTION, _LAST_MASK = "inspection.", "last."


class IntervalState:
    """4 bytes a coordinate for theta_start, and 4 for theta before an SFT phase, which is on the host.

    ``on_host``: theta_start and what the constraint remembers lie on (pinned) memory of the host too, and are copied to
    the device tensor by tensor where they are used. The numbers are the same.
    """

    def __init__(
        self,
        model: ShardedModel,
        constraint: ActiveConstraint,
        *,
        keeps_start: bool,
        keeps_before_sft: bool,
        inspects: bool,
        on_host: bool = False,
    ) -> None:
        self.model = model
        self.constraint = constraint
        self.start: list[Tensor] | None = None
        """theta_start: the weights at the start of the interval, until the next one begins."""
        self.before_sft: list[Tensor] | None = None
        """The weights at the start of the interval's SFT phase, which probes and the inspection compare with."""
        self._keeps_start = keeps_start
        self._keeps_before_sft = keeps_before_sft
        self._inspects = inspects
        self._on_host = on_host
        self._inspection: MaskInspection | None = None
        self._last_mask: PackedMasks | None = None

    @torch.no_grad()
    def begin(self) -> None:
        """theta_start = theta (MIFO section 3, step 1), if something needs it."""
        weights = self.model.weights()
        if not self._keeps_start:
            self.start = None
        elif self.start is None:
            self.start = [self._kept(weight) for weight in weights]
        else:
            for start_N, weight_N in zip(self.start, weights, strict=True):
                start_N.copy_(weight_N)
        self.before_sft = None
        self.constraint.begin()

    def _kept(self, tensor: Tensor) -> Tensor:
        """A copy where the state lies."""
        if not self._on_host:
            return tensor.clone()
        return torch.empty_like(tensor, device="cpu", pin_memory=torch.cuda.is_available()).copy_(tensor)

    @torch.no_grad()
    def begin_sft(self, interval: int, optimizer: Optimizer) -> MaskReport | None:
        """The RL phase of this optimizer has ended: count its update, and let the constraint decide. Collective."""
        self._inspection = None
        if self._inspects and self.constraint.last_mask is not None:
            self._last_mask = PackedMasks.of(self.constraint.last_mask)
        if self._inspects and self.start is not None:
            self._inspection = MaskInspection([where.name for where in self.model.slices])
            self._inspection.rl(self.start, self.model.weights())
        change_of_held = self._change_of_held()
        observe = None if self._inspection is None else self._inspect_mask
        report = self.constraint.select(self.start, interval, observe, optimizer)
        if self._last_mask is not None:  # no copy of what the constraint remembers
            has_it = self.constraint.last_mask is not None
            self._last_mask = None if has_it else self._last_mask.to("cpu")
        if self._keeps_before_sft:
            self.before_sft = [weight.to("cpu", copy=True) for weight in self.model.weights()]
        return None if report is None else replace(report, change_of_held=change_of_held)

    def _change_of_held(self) -> float | None:
        """What ``MaskReport`` has of it. Collective."""
        if self.start is None or self._last_mask is None:
            return None
        held, others = (
            median(_Changes(self.start, self.model.weights(), self._last_mask, is_held), self.model.shards)
            for is_held in (True, False)
        )
        return held / others if held is not None and others else None

    def _inspect_mask(self, frozen: Sequence[Tensor], importance: Sequence[Tensor]) -> None:
        assert self._inspection is not None
        for number, (frozen_N, score_N) in enumerate(zip(frozen, importance, strict=True)):
            last_N = None if self._last_mask is None else self._last_mask[number]
            self._inspection.mask(number, frozen_N, score_N, last_N)
        self._last_mask = PackedMasks.of(frozen)

    @torch.no_grad()
    def inspect_sft(self) -> dict[str, Any] | None:
        """The counts of this interval, the SFT phase's update in them; None if nothing is inspected. Collective."""
        if self._inspection is None or self.before_sft is None:
            return None
        weights = self.model.weights()
        self._inspection.sft(self.before_sft, weights)
        table = self._inspection.table(self.model.shards, weights[0].device)
        self._inspection = None
        return table

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: theta_start, the constraint's state, the last mask, and inside an SFT phase the
        weights before it and the counts so far, with 2 bytes a coordinate.
        """
        inspection = {} if self._inspection is None else self._inspection.state()
        inspection |= _numbered(_LAST_MASK, self._last_mask)
        own = _numbered("start.", self.start) | _numbered("before_sft.", self.before_sft)
        return own | self.constraint.state() | {f"{_INSPECTION}{name}": tensor for name, tensor in inspection.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's state, whose tensors are on the host."""
        device, num = self.model.weights()[0].device, len(self.model.slices)
        ours = {name: tensor for name, tensor in state.items() if not name.startswith(_ON_HOST)}
        kept = {name: self._kept(tensor) if self._on_host else tensor.to(device) for name, tensor in ours.items()}
        self.start = _unnumbered("start.", kept, num) if self._keeps_start else None
        self.before_sft = _unnumbered("before_sft.", state, num)
        self.constraint.load(kept)
        counted = {name.removeprefix(_INSPECTION): value for name, value in state.items() if _INSPECTION in name}
        last = _unnumbered(_LAST_MASK, counted, num)
        self._last_mask = None if last is None else PackedMasks.of(last)
        self._inspection = None
        if "counts" in counted:
            self._inspection = MaskInspection([where.name for where in self.model.slices])
            self._inspection.restore_(counted)


class _Changes(Sequence[Tensor]):
    """|end - start| of the coordinates of every tensor that are held, or of the others; made when asked for."""

    def __init__(self, start: Sequence[Tensor], end: Sequence[Tensor], held: Sequence[Tensor], is_held: bool) -> None:
        self._tensors = list(zip(start, end, held, strict=True))
        self._is_held = is_held

    def __len__(self) -> int:
        return len(self._tensors)

    def __getitem__(self, number: Any) -> Any:
        start_N, end_N, held_N = self._tensors[number]
        return (end_N - start_N.to(end_N.device)).abs_()[held_N.to(end_N.device) == self._is_held]


_ON_HOST = (_INSPECTION, "before_sft.", "optimizer.", "second")


def _numbered(prefix: str, tensors: Sequence[Tensor] | None) -> dict[str, Tensor]:
    return {f"{prefix}{number}": tensor for number, tensor in enumerate(tensors or [])}


def _unnumbered(prefix: str, state: Mapping[str, Tensor], num: int) -> list[Tensor] | None:
    return [state[f"{prefix}{number}"] for number in range(num)] if f"{prefix}0" in state else None
