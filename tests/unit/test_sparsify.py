"""Online gradient sparsification: m ~ Bernoulli(1 - rate) of every coordinate, anew in every update."""

import zlib

import pytest
import torch

from mifo_verl.method import sparsify
from mifo_verl.method.constraint import CONSTRAINTS
from mifo_verl.method.coordinates import ShardRange, random_bits
from mifo_verl.method.sparsify import Sparsify, drop_gradients_
from mifo_verl.types import Phase
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


class OneTensor:
    """A model of one tensor of a million coordinates, whose gradient is 1 everywhere."""

    def __init__(self) -> None:
        self.slices = [W]
        self.gradient = torch.ones(1_000_000)

    def gradients(self) -> list[torch.Tensor]:
        return [self.gradient]


def shares_dropped(phases: list[Phase], **settings) -> list[float]:
    model = OneTensor()
    active = CONSTRAINTS.build({"name": "sparsify", **settings}).attach(model, None)
    found = []
    for phase in phases:
        model.gradient.fill_(1.0)
        active.before_update(phase)
        found.append(round(1 - float(model.gradient.double().mean()), 2))
    return found


def test_gradients_are_dropped_in_the_phase_asked_for():
    phases = [Phase.RL, Phase.SFT]
    assert shares_dropped(phases, rate=0.5) == [0.5, 0.5]
    assert shares_dropped(phases, rate=0.5, phase="rl") == [0.5, 0]
    assert shares_dropped(phases, rate=0.5, phase="sft") == [0, 0.5]
    assert shares_dropped(phases, rate=0) == [0, 0]


def test_a_resume_goes_on_with_the_number_of_the_next_update():
    def masks(active, model, num: int) -> list[torch.Tensor]:
        found = []
        for _ in range(num):
            model.gradient.fill_(1.0)
            active.before_update(Phase.RL)
            found.append(model.gradient.bool())
        return found

    model = OneTensor()
    uncut, first, second = (Sparsify(seed=3).attach(model, None) for _ in range(3))
    whole = masks(uncut, model, 4)
    begun = masks(first, model, 2)
    second.load(first.state())
    assert all(map(torch.equal, whole, begun + masks(second, model, 2)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 1}, "rate=1 must be a number in [0, 1); 1 would drop every gradient; 0 drops none"),
        ({"phase": "RL"}, "phase=RL must be one of both, rl, sft (did you mean rl?); choose one of them"),
        ({"seed": "a"}, "seed=a must be a whole number of at least 0; the run's seed is the default"),
    ],
)
def test_a_bad_setting_is_refused(settings, message):
    with pytest.raises(ValueError) as error:
        CONSTRAINTS.build({"name": "sparsify", **settings})
    assert str(error.value) == f"mifo.constraint.{message}"
