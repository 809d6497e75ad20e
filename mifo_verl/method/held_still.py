"""Frozen coordinates that an optimizer's step may not change: weights and moments, bit for bit.

``FrozenStep`` is the step of an elementwise optimizer, made in slices: only a slice's frozen values are kept, while it
is made. ``HeldStill`` is for every other optimizer: it keeps all frozen values for the phase and puts them back.

Values are moved by their bits, as whole numbers of the same size: a bit-wise "and" is exact for every float, and forty
times as fast on a CPU as a boolean index. Shapes: N coordinates of one tensor's shard.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from mifo_verl.method import packed
from mifo_verl.method.packed import PackedMask, PackedMasks

_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_ELEMENTWISE = (Adam, AdamW)
"""A coordinate's step depends on its own weight, gradient and state, and on numbers that all coordinates share."""


class Parameters(Protocol):
    """The part of ``Model`` that a step needs."""

    @property
    def parameters(self) -> Sequence[Tensor]: ...

    def weights(self) -> list[Tensor]: ...

    def gradients(self) -> list[Tensor | None]: ...


@torch.no_grad()
def mask_gradients_(gradients: Sequence[Tensor | None], frozen: Sequence[Tensor]) -> None:
    """Zero the frozen coordinates of each gradient, in place. Called before the clip norm is taken."""
    for gradient, mask in zip(gradients, PackedMasks.of(frozen).packed, strict=True):
        if gradient is not None:
            for part, frozen_N in zip(gradient.view(-1).split(packed.CHUNK), mask.chunks(), strict=True):
                _bits(part).bitwise_and_(_ones(~frozen_N.to(part.device), part))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.view(_WHOLE[tensor.element_size()])


def _ones(mask_N: Tensor, like: Tensor) -> Tensor:
    """-1, all bits, where the mask is true, and 0 elsewhere: whole numbers of the size of ``like``'s."""
    return mask_N.view(torch.int8).neg().to(_WHOLE[like.element_size()])


class HeldStill:
    """The frozen coordinates of some tensors (weights, moments), kept as they are now: 4 bytes a coordinate held."""

    @torch.no_grad()
    def __init__(self, tensors: Sequence[Tensor], frozen: Sequence[Tensor]) -> None:
        self._frozen = frozen
        self._values = [tensor[mask.to(tensor.device)] for tensor, mask in zip(tensors, frozen, strict=True)]

    @torch.no_grad()
    def put_back_(self, tensors: Sequence[Tensor]) -> None:
        """Write the values held into the frozen coordinates of the same tensors, in place."""
        for tensor, mask, values in zip(tensors, self._frozen, self._values, strict=True):
            tensor.masked_scatter_(mask.to(tensor.device), values)

    @torch.no_grad()
    def drift(self, tensors: Sequence[Tensor]) -> float:
        """The largest |change| of a frozen coordinate since it was held; 0.0 where every one is bit-identical."""
        changes = [
            (tensor[mask.to(tensor.device)] - values).abs().max()
            for tensor, mask, values in zip(tensors, self._frozen, self._values, strict=True)
            if values.numel()
        ]
        return float(torch.stack(changes).max()) if changes else 0.0


def is_elementwise(optimizer: Optimizer) -> bool:
    """Whether a step made in slices is the same step: a known optimizer, and no hooks that it would call too often."""
    hooks = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    return type(optimizer) in _ELEMENTWISE and not any(hooks)


@dataclass
class _Slice:
    """Neighbouring coordinates of a parameter as a parameter of their own, on the same memory."""

    group: int
    parameter: Tensor
    """The whole one, as the optimizer knows it."""
    stand_in: torch.nn.Parameter
    frozen_N: Tensor
    first: int
    is_last: bool


class FrozenStep:
    """``optimizer.step`` under a mask: to the bit a whole step after which all that is frozen is put back.

    Between ``install`` and ``remove`` it stands in the place of the optimizer's own.
    """

    def __init__(self, model: Parameters, optimizer: Optimizer, frozen: Sequence[PackedMask]) -> None:
        self._model = model
        self._optimizer = optimizer
        self._frozen = frozen
        self._step: Callable[[], object] = optimizer.step
        self._own: dict[str, Tensor] = {}
        self._made: dict[Tensor, dict[str, Tensor]] = {}
        """States that the optimizer begins with this step."""

    def install(self) -> None:
        own = vars(self._optimizer)
        self._own = {"step": own["step"]} if "step" in own else {}  # a learning-rate schedule has put one there
        self._step = self._optimizer.step
        own["step"] = self

    def remove(self) -> None:
        vars(self._optimizer).pop("step", None)
        vars(self._optimizer).update(self._own)

    @torch.no_grad()
    def __call__(self) -> None:
        groups = self._optimizer.param_groups
        try:
            for batch in _batches(self._slices()):
                self._optimizer.param_groups = [
                    _group_of(group, [one for one in batch if one.group == place])
                    for place, group in enumerate(groups)
                    if any(one.group == place for one in batch)
                ]
                self._step_of(batch)
        finally:
            self._optimizer.param_groups = groups

    def _slices(self) -> Iterator[_Slice]:
        """Every parameter that has a gradient, in pieces of ``CHUNK``."""
        groups = {one: place for place, group in enumerate(self._optimizer.param_groups) for one in group["params"]}
        tensors = zip(self._model.parameters, self._model.weights(), self._model.gradients(), self._frozen, strict=True)
        for parameter, weight_N, gradient_N, frozen in tensors:
            if gradient_N is None or parameter not in groups:
                continue
            first = 0
            for part_N, part_of_gradient_N, frozen_N in zip(
                weight_N.split(packed.CHUNK), gradient_N.split(packed.CHUNK), frozen.chunks(), strict=True
            ):
                stand_in = torch.nn.Parameter(part_N)
                stand_in.grad = part_of_gradient_N
                is_last = first + part_N.numel() == weight_N.numel()
                yield _Slice(groups[parameter], parameter, stand_in, frozen_N.to(part_N.device), first, is_last)
                first += part_N.numel()

    def _step_of(self, batch: Sequence[_Slice]) -> None:
        held = []
        for one in batch:
            views = self._views(one)
            self._optimizer.state[one.stand_in] = views
            changing = [one.stand_in.data, *(value for value in views.values() if _is_of_coordinates(value, one))]
            held += [_Held(tensor, one.frozen_N) for tensor in changing]
        self._step()
        for each in held:
            each.put_back_()
        for one in batch:
            self._take_over(one, self._optimizer.state.pop(one.stand_in))

    def _views(self, one: _Slice) -> dict[str, Tensor]:
        """The state of a slice: its part of what has a value a coordinate, and of the rest a copy until the last."""
        if one.parameter in self._made:
            return {}
        state: Mapping[str, Tensor] = self._optimizer.state.get(one.parameter, {})
        views = {}
        if not state:
            self._made[one.parameter] = {}
        for name, value in state.items():
            if isinstance(value, Tensor) and value.ndim and value.shape == one.parameter.shape:
                views[name] = _part(value, one)
            else:
                views[name] = value if one.is_last or not isinstance(value, Tensor) else value.clone()
        return views

    def _take_over(self, one: _Slice, state: dict[str, Tensor]) -> None:
        """What the optimizer has begun in a slice, or counts by parameter, becomes the whole parameter's."""
        made = self._made.get(one.parameter)
        for name, value in state.items():
            if not _is_of_coordinates(value, one):
                if one.is_last:
                    self._optimizer.state[one.parameter][name] = value
            elif made is not None:
                _part(made.setdefault(name, torch.zeros_like(one.parameter)), one).copy_(value)
        if one.is_last and made is not None:
            self._optimizer.state[one.parameter].update(self._made.pop(one.parameter))


class _Held:
    """The frozen bits of one tensor, for the time of one step."""

    def __init__(self, tensor: Tensor, frozen_N: Tensor) -> None:
        self._bits = _bits(tensor)
        self._mask = _ones(frozen_N, tensor)
        self._frozen = self._bits & self._mask

    def put_back_(self) -> None:
        self._bits.bitwise_and_(self._mask.bitwise_not_()).bitwise_or_(self._frozen)


def _group_of(group: Mapping[str, object], slices: Sequence[_Slice]) -> dict[str, object]:
    """A group of the slices alone, whose step takes the kernels that the whole parameters' would take."""
    is_plain = all(type(one.parameter) in (Tensor, torch.nn.Parameter) for one in slices)
    foreach = group.get("foreach") if is_plain or group.get("fused") or group.get("foreach") else False
    return {**group, "params": [one.stand_in for one in slices], "foreach": foreach}


def _batches(slices: Iterable[_Slice]) -> Iterator[list[_Slice]]:
    """Slices in order, of ``CHUNK`` coordinates together at most."""
    batch: list[_Slice] = []
    for one in slices:
        if batch and sum(each.stand_in.numel() for each in batch) + one.stand_in.numel() > packed.CHUNK:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def _is_of_coordinates(value: Tensor, one: _Slice) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape == one.stand_in.shape


def _part(whole: Tensor, one: _Slice) -> Tensor:
    local: Tensor = whole.to_local() if hasattr(whole, "to_local") else whole
    return local.view(-1)[one.first : one.first + one.stand_in.numel()]


@torch.no_grad()
def fingerprint(tensors: Sequence[Tensor], frozen: Sequence[PackedMask]) -> Tensor:
    """int64 of each tensor: a weighted sum of its frozen bits, which tells whether one of them has changed."""
    sums = []
    for tensor, mask in zip(tensors, frozen, strict=True):
        own = torch.zeros((), dtype=torch.int64, device=tensor.device)
        for number, (part, frozen_N) in enumerate(zip(tensor.split(packed.CHUNK), mask.chunks(), strict=True)):
            held = _bits(part) & _ones(frozen_N.to(part.device), part)
            own += (held * torch.arange(1, 2 * held.numel(), 2, device=part.device)).sum() * (2 * number + 1)
        sums.append(own)
    return torch.stack(sums)
