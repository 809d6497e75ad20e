"""The weights of an actor, written into a model of the same architecture."""

import torch
from torch import Tensor, nn


class WeightLoader:
    """Writes buckets of named weights, converting to the model's dtype. Tied weights may come once or twice."""

    def __init__(self, model: nn.Module) -> None:
        self._targets: dict[str, Tensor] = dict(model.state_dict())
        self._written: set[int] = set()

    def write(self, tensors: dict[str, Tensor], last: bool) -> None:
        """Write one bucket. Raises ValueError on a name or a shape that the model does not have and, after the
        ``last`` bucket, on weights that did not come; the next bucket then begins anew."""
        try:
            self._copy(tensors)
            missing = [name for name, target in self._targets.items() if target.data_ptr() not in self._written]
            if last and missing:
                raise ValueError(f"the actor did not send {len(missing)} weights of the rollout model: {missing[:5]}")
        except ValueError:
            self._written.clear()
            raise
        if last:
            self._written.clear()

    @torch.no_grad()
    def _copy(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            target = self._targets.get(name)
            if target is None or target.shape != tensor.shape:
                has = "no such weight" if target is None else f"shape {tuple(target.shape)}"
                raise ValueError(f"the actor sent {name} {tuple(tensor.shape)}, and the rollout model has {has}")
            target.copy_(tensor)
            self._written.add(target.data_ptr())
