"""Online gradient sparsification: m ~ Bernoulli(1 - rate) of every coordinate, anew in every update."""

import zlib

import pytest
import torch

from mifo_verl.method import sparsify
from mifo_verl.method.coordinates import ShardRange, random_bits
from mifo_verl.method.sparsify import drop_gradients_
from tests.unit.test_importance import splitmix64

W = ShardRange("layers.0.w", 0)


def kept(num: int, rate: float, where: ShardRange = W, seed: int = 0, update: int = 1) -> torch.Tensor:
    gradient = torch.ones(num)
    drop_gradients_([gradient], [where], rate, seed, update)
    return gradient.bool()


def test_a_coordinate_is_dropped_where_its_number_is_below_the_rate():
    stream = zlib.crc32(b"sparsify/7/3/layers.0.w") << 31
    numbers = [(splitmix64(stream + 5_000_000_000 + place) & 0xFFFFFF) / 2**24 for place in range(200)]
    where = ShardRange("layers.0.w", 5_000_000_000)
    assert kept(200, 0.3, where, seed=7, update=3).tolist() == [number >= 0.3 for number in numbers]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_dropped_is_the_rate_within_its_standard_error(rate):
    dropped = 1 - float(kept(1_000_000, rate).double().mean())
    assert dropped == pytest.approx(rate, abs=4 * (rate * (1 - rate) / 1_000_000) ** 0.5)


def test_over_all_numbers_the_rate_is_exact_to_the_24th_bit():
    """P(bits < round(rate * 2^24)) for uniform bits, with the rates that are no multiples of 2^-24."""
    for rate in (0.1, 0.3, 1 / 3):
        assert abs(round(rate * 2**24) / 2**24 - rate) <= 2**-25


@pytest.mark.parametrize("num_shards", [1, 2, 3, 7])
def test_the_mask_does_not_depend_on_the_sharding_nor_on_the_chunks(num_shards, monkeypatch):
    monkeypatch.setattr(sparsify, "_CHUNK", 64)
    pieces, first = [], 0
    for piece in torch.arange(1000).tensor_split(num_shards):
        pieces.append(kept(len(piece), 0.5, ShardRange("layers.0.w", first)))
        first += len(piece)
    monkeypatch.setattr(sparsify, "_CHUNK", 1 << 24)
    assert torch.equal(torch.cat(pieces), kept(1000, 0.5))


@pytest.mark.parametrize("other", [{"seed": 1}, {"update": 2}, {"where": ShardRange("layers.1.w", 0)}])
def test_another_seed_update_or_parameter_drops_independently(other):
    one, two = kept(100_000, 0.5), kept(100_000, 0.5, **other)
    assert float((one & two).double().mean()) == pytest.approx(0.25, abs=0.01)


def test_what_is_kept_is_not_rescaled_and_a_missing_gradient_stays_missing():
    gradient = torch.randn(1000)
    before = gradient.clone()
    drop_gradients_([gradient, None], [W, W], 0.5, 0, 1)
    stays = kept(1000, 0.5)
    assert torch.equal(gradient[stays], before[stays]) and not gradient[~stays].any()


def test_it_is_unrelated_to_the_random_mask_of_the_same_seed():
    importance = random_bits("0/1", W, 100_000, torch.device("cpu")) < 2**23
    assert float((importance & ~kept(100_000, 0.5)).double().mean()) == pytest.approx(0.25, abs=0.01)
