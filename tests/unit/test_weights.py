"""Weights written into a model: whole, or refused."""

import pytest
import torch
from torch import nn

from mifo_verl.cpu.weights import WeightLoader


@pytest.fixture
def model() -> nn.Module:
    """Two layers that share one weight, and a bias."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    return model


def test_weights_are_converted_and_a_tied_one_need_not_come_twice(model: nn.Module) -> None:
    loader = WeightLoader(model)
    loader.write({"0.weight": torch.full((2, 2), 3.0, dtype=torch.bfloat16)}, last=False)
    loader.write({"1.bias": torch.ones(2)}, last=True)
    assert model[1].weight.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert model[1].weight.dtype == torch.float32
    loader.write({name: torch.zeros(tensor.shape) for name, tensor in model.state_dict().items()}, last=True)
    assert not model[0].weight.any()


@pytest.mark.parametrize("shape", [(3,), (2, 2, 1)])
def test_a_wrong_shape_is_refused(model: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"sent 1\.bias .*model has shape \(2,\)"):
        WeightLoader(model).write({"1.bias": torch.zeros(shape)}, last=False)


def test_an_unknown_name_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"sent 2\.bias .*no such weight"):
        WeightLoader(model).write({"2.bias": torch.zeros(2)}, last=False)


def test_a_weight_that_does_not_come_is_missed_every_time(model: nn.Module) -> None:
    loader = WeightLoader(model)
    with pytest.raises(ValueError, match="no such weight"):
        loader.write({"1.bias": torch.zeros(2), "2.bias": torch.zeros(2)}, last=True)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"did not send 1 weights.*1\.bias"):
            loader.write({"0.weight": torch.zeros(2, 2)}, last=True)
