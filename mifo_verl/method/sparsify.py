"""Online gradient sparsification: gradient <- m * gradient, m ~ Bernoulli(1 - rate) anew in every update, not rescaled.

The paper's analysis of how much of an update RL and SFT can lose (MIFO section 2, rate 0.5), not a part of MIFO. Under
AdamW a coordinate whose gradient is dropped still moves by its moments and by weight decay, as in the paper.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mifo_verl.method.coordinates import BITS, ShardRange, random_bits

_CHUNK = 1 << 24
"""Coordinates drawn at a time: 8 bytes each, a few times over."""


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
