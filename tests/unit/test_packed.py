"""A mask of a bit a coordinate is the mask, whatever its length and the chunk."""

import pytest
import torch

from mifo_verl.method import packed
from mifo_verl.method.packed import PackedMasks, pack, unpack


def test_coordinate_8i_plus_b_is_bit_b_of_byte_i():
    mask = torch.tensor([1, 1, 0, 0, 0, 0, 0, 1, 0, 1], dtype=torch.bool)
    assert pack(mask).tolist() == [1 + 2 + 128, 2]
    assert unpack(torch.tensor([131, 2], dtype=torch.uint8), 10).tolist() == mask.tolist()


@pytest.mark.parametrize("num", [0, 1, 7, 8, 9, 64, 1001])
def test_a_mask_comes_back_whole_and_in_chunks(monkeypatch, num):
    monkeypatch.setattr(packed, "CHUNK", 64)
    mask = torch.rand(num, generator=torch.Generator().manual_seed(num)) < 0.5
    (one,) = PackedMasks.of([mask]).packed
    assert one.bits.numel() == -(-num // 8)
    assert torch.equal(one.tensor(), mask)
    assert [chunk.tolist() for chunk in one.chunks()] == [chunk.tolist() for chunk in mask.split(64)]


def test_a_view_into_a_mask_is_packed_as_what_it_shows():
    mask = torch.arange(16) % 3 == 0
    assert torch.equal(unpack(pack(mask[3:]), 13), mask[3:])
