"""gradient <- (1 - M) * gradient, and weights that really hold still (MIFO section 3, step 6).

A zero gradient does not hold a weight still under AdamW: old moments and decoupled weight decay still move it.
``gradient`` is the paper's text and zeroes the gradient alone. ``strict`` also puts the frozen coordinates' weights
and optimizer moments back after every update, so that both are bit-identical after the SFT phase.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mifo_verl.registry import Registry
from mifo_verl.types import Share, exact_share, require


class Freeze:
    """What an SFT phase may not change. The base of the choices below."""


FREEZES: Registry[Freeze] = Registry("mifo/freeze")


@FREEZES.register("none")
@dataclass(frozen=True)
class NoFreeze(Freeze):
    """Nothing is frozen: plain interleaving (ReLIFT)."""


@FREEZES.register("gradient")
@dataclass(frozen=True)
class GradientFreeze(Freeze):
    """Only the gradient of the frozen coordinates is zeroed: the paper's text."""

    share: Share = 0.5
    """k: the top share of all coordinates by importance."""
    history: Share = 0.5
    """alpha: the weight of the importance of earlier intervals; 0 is MIFO-dagger."""
    scope: Literal["global", "per_tensor"] = "global"
    """Whether the share is taken of the whole model or of every tensor by itself."""

    def __post_init__(self) -> None:
        share = exact_share("share", self.share)
        require(share > 0, "share", self.share, "in (0, 1]", "use mifo/freeze=none to freeze nothing")
        history = exact_share("history", self.history)
        require(history < 1, "history", self.history, "in [0, 1)", "1 would never remember any change")
        require(
            self.scope in ("global", "per_tensor"),
            "scope",
            self.scope,
            "global or per_tensor",
            "global is the paper's rule",
        )


@FREEZES.register("strict")
@dataclass(frozen=True)
class StrictFreeze(GradientFreeze):
    """Frozen coordinates and their optimizer moments are bit-identical after the SFT phase."""


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
