"""Masks of a bit a coordinate: what an SFT phase keeps of M, unpacked chunk by chunk where it is used.

Coordinate 8i + b is bit b of byte i. Eight coordinates are moved at a time, as the bytes of one 64-bit word; words are
little-endian, as they are on every machine that torch supports. Shapes: N coordinates of one tensor's shard.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

CHUNK = 1 << (22 if torch.cuda.is_available() else 18)
"""Coordinates that are worked on at a time, a multiple of 8: few enough to stay in the cache of a CPU, where they were
measured, and on a GPU enough to hide the launch of a kernel, by arithmetic alone.
"""


def signed(word: int) -> int:
    """The int64 of the same 64 bits."""
    return word - (1 << 64) if word >> 63 else word


_GATHER = 0x0102040810204080  # times a word of eight 0s and 1s, its highest byte has them as bits
_COPIES, _OWN_BIT = 0x0101010101010101, signed(0x8040201008040201)
_TO_HIGHEST_BIT = 0x00406070787C7E7F  # byte b: 2^7 - 2^b


def pack(mask_N: Tensor) -> Tensor:
    """ceil(N / 8) bytes (uint8) of a flat mask of bool, or of 0s and 1s in one byte each."""
    whole = mask_N.new_zeros(-(-mask_N.numel() // 8) * 8) if mask_N.numel() % 8 or mask_N.storage_offset() % 8 else None
    bytes_N = mask_N if whole is None else torch.cat([mask_N, whole[mask_N.numel() :]])
    return (bytes_N.view(torch.int64) * _GATHER).bitwise_right_shift_(56).to(torch.uint8)


def unpack(bits: Tensor, num: int) -> Tensor:
    """The first ``num`` coordinates (bool) of packed bytes."""
    words = bits.to(torch.int64).mul_(_COPIES).bitwise_and_(_OWN_BIT).add_(_TO_HIGHEST_BIT)
    return words.bitwise_right_shift_(7).bitwise_and_(_COPIES).view(torch.bool)[:num]


class PackedMask:
    """One tensor's mask, flat: ``bits`` (uint8) of ``num`` coordinates."""

    def __init__(self, bits: Tensor, num: int) -> None:
        self.bits = bits
        self.num = num

    def to(self, device: torch.device | str) -> "PackedMask":
        return PackedMask(self.bits.to(device), self.num)

    def chunk(self, first: int, num: int) -> Tensor:
        """Coordinates [first, first + num) as bool; ``first`` is a multiple of 8."""
        return unpack(self.bits[first // 8 : -(-(first + num) // 8)], num)

    def chunks(self) -> Iterator[Tensor]:
        """The mask in chunks of ``CHUNK``, as ``tensor.split(CHUNK)`` cuts a tensor of its size."""
        for first in range(0, max(self.num, 1), CHUNK):
            yield self.chunk(first, min(CHUNK, self.num - first))

    def tensor(self) -> Tensor:
        """All of it as bool."""
        return unpack(self.bits, self.num)


class PackedMasks(Sequence[Tensor]):
    """Masks of some tensors; each is made as bool (N) when it is asked for."""

    def __init__(self, packed: Sequence[PackedMask]) -> None:
        self.packed = list(packed)

    @classmethod
    def of(cls, masks: Iterable[Tensor]) -> "PackedMasks":
        """Masks of any shape, flattened; those that are packed already are the same."""
        if isinstance(masks, cls):
            return masks
        return cls([PackedMask(pack(mask_N.reshape(-1)), mask_N.numel()) for mask_N in masks])

    def to(self, device: torch.device | str) -> "PackedMasks":
        return PackedMasks([one.to(device) for one in self.packed])

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, number: int) -> Tensor:  # type: ignore[override]  # nobody asks for slices
        return self.packed[number].tensor()
