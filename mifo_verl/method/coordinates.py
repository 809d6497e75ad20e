"""A random number for every coordinate of a model, which depends on no sharding, device or order.

Shapes: N coordinates of one tensor's shard, a contiguous range of the whole flattened tensor.
"""

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

BITS = 24
"""Of every number; float32 holds them exactly."""


@dataclass(frozen=True)
class ShardRange:
    """Which coordinates a shard holds: ``[first, first + N)`` of the flattened parameter ``name``."""

    name: str
    first: int


def random_bits(key: str, where: ShardRange, num: int, device: torch.device) -> Tensor:
    """bits_N: uniform integers in [0, 2^24) of ``num`` coordinates; another key or name gives unrelated ones."""
    stream = zlib.crc32(f"{key}/{where.name}".encode())
    index_N = torch.arange(where.first, where.first + num, device=device)
    return _mix(index_N + (stream << 31)) & ((1 << BITS) - 1)


def _mix(bits_N: Tensor) -> Tensor:
    """A 64-bit avalanche hash (SplitMix64's finaliser) of int64 counters, in wrapping integer arithmetic."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        # >> is arithmetic in torch: the mask makes it the logical shift that the hash is defined with
        bits_N = (bits_N ^ ((bits_N >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return bits_N ^ ((bits_N >> 31) & ((1 << 33) - 1))
