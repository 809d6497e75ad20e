"""Weights that hold still: method.md part 1 step 6, trap 1."""

import copy
import math

import pytest
import torch

from mifo_verl.method.constraint import (
    CONSTRAINTS,
    GradientMask,
    HeldStill,
    NoConstraint,
    StrictMask,
    mask_gradients_,
)

KINDS = [{"foreach": False}, {"foreach": True}, {"fused": True}]


def same_bits(one: torch.Tensor, two: torch.Tensor) -> bool:
    return torch.equal(one.view(torch.int32), two.view(torch.int32))


def test_mask_gradients_zeroes_the_frozen_coordinates_alone():
    gradients = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[4.0], [5.0]])]
    mask_gradients_(gradients, [torch.tensor([True, False, True]), torch.tensor([[False], [True]])])
    assert gradients[0].tolist() == [0, 2, 0] and gradients[1].tolist() == [[4], [0]]


def test_mask_gradients_removes_infinities_and_nans():
    """A product with (1 - M) would leave NaN."""
    gradient = torch.tensor([math.inf, math.nan, 1.0])
    mask_gradients_([gradient], [torch.tensor([True, True, False])])
    assert gradient.tolist() == [0, 0, 1]


def test_mask_gradients_skips_a_parameter_without_gradient_and_empty_shards():
    empty = torch.zeros(0)
    mask_gradients_([None, empty], [torch.tensor([True]), torch.zeros(0, dtype=torch.bool)])
    assert empty.shape == (0,)


def test_mask_gradients_refuses_another_number_of_masks():
    with pytest.raises(ValueError):
        mask_gradients_([torch.zeros(1)], [])


def test_held_coordinates_come_back_and_the_others_stay_changed():
    tensor = torch.tensor([1.0, 2.0, 3.0])
    held = HeldStill([tensor], [torch.tensor([True, False, True])])
    tensor.add_(10)
    held.put_back_([tensor])
    assert tensor.tolist() == [1, 12, 3]


def test_held_values_are_a_copy_and_can_be_put_back_again_and_again():
    tensor = torch.tensor([1.0, 2.0])
    held = HeldStill([tensor], [torch.tensor([True, True])])
    for _ in range(3):
        tensor.mul_(-7)
        held.put_back_([tensor])
        assert tensor.tolist() == [1, 2]


def test_held_values_come_back_bit_identical_whatever_they_are():
    values = torch.tensor([-0.0, 2.0**-149, 1e-40, 3e38, 0.1])
    tensor = values.clone()
    held = HeldStill([tensor], [torch.ones(5, dtype=torch.bool)])
    tensor.fill_(1.0)
    held.put_back_([tensor])
    assert same_bits(tensor, values)


def test_several_tensors_of_any_shape_are_held_and_empty_ones_too():
    tensors = [torch.arange(6.0).view(2, 3), torch.zeros(0), torch.arange(3.0)]
    masks = [torch.tensor([[1, 0, 0], [0, 0, 1]]).bool(), torch.zeros(0).bool(), torch.zeros(3).bool()]
    held = HeldStill(tensors, masks)
    for tensor in tensors:
        tensor.add_(1)
    held.put_back_(tensors)
    assert tensors[0].tolist() == [[0, 2, 3], [4, 5, 5]] and tensors[2].tolist() == [1, 2, 3]
    assert held.drift(tensors) == 0.0


def test_drift_is_the_largest_change_of_a_frozen_coordinate():
    tensors = [torch.zeros(3), torch.zeros(2)]
    held = HeldStill(tensors, [torch.tensor([True, True, False]), torch.tensor([True, False])])
    tensors[0].add_(torch.tensor([0.25, -0.5, 9.0]))
    tensors[1].add_(torch.tensor([0.125, -9.0]))
    assert held.drift(tensors) == 0.5
    held.put_back_(tensors)
    assert held.drift(tensors) == 0.0


def test_drift_of_nothing_held_is_0():
    assert HeldStill([], []).drift([]) == 0.0
    assert HeldStill([torch.ones(2)], [torch.zeros(2).bool()]).drift([torch.zeros(2)]) == 0.0


def test_putting_back_works_under_autograd_on_a_parameter():
    parameter = torch.nn.Parameter(torch.ones(2))
    held = HeldStill([parameter], [torch.tensor([True, False])])
    with torch.no_grad():
        parameter.add_(1)
    held.put_back_([parameter])
    assert parameter.tolist() == [1, 2] and parameter.requires_grad


# Trap 1: AdamW moves a weight whose gradient is zero


def trained(kind: dict, weight_decay: float = 0.1, steps: int = 3):
    """Parameters and an AdamW with moments from earlier steps, and masks of about half of the coordinates."""
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(4, 5)), torch.nn.Parameter(torch.randn(7))]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=weight_decay, **kind)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    masks = [torch.rand(parameter.shape) < 0.5 for parameter in parameters]
    return parameters, optimizer, masks


def of_one_value_a_coordinate(parameters, optimizer) -> list[torch.Tensor]:
    moments = [optimizer.state[p][name] for p in parameters for name in ("exp_avg", "exp_avg_sq")]
    return [p.detach() for p in parameters] + moments


def sft_steps(parameters, optimizer, masks, held=None, num=5):
    for _ in range(num):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        mask_gradients_([parameter.grad for parameter in parameters], masks)
        optimizer.step()
        if held is not None:
            held.put_back_(of_one_value_a_coordinate(parameters, optimizer))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("weight_decay", "steps"), [(0.1, 3), (0.0, 3), (0.1, 0)], ids=["both", "moments", "decay"])
def test_a_zero_gradient_moves_weights_under_adamw(kind, weight_decay, steps):
    """The control: by the paper's text alone (gradient) frozen coordinates do not hold still."""
    parameters, optimizer, masks = trained(kind, weight_decay, steps)
    before = [parameter.detach().clone() for parameter in parameters]
    sft_steps(parameters, optimizer, masks)
    for parameter, old, mask in zip(parameters, before, masks, strict=True):
        assert (parameter.detach()[mask] != old[mask]).all()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_held_weights_and_both_moments_are_bit_identical_and_the_rest_trains(kind):
    parameters, optimizer, masks = trained(kind)
    tensors = of_one_value_a_coordinate(parameters, optimizer)
    all_masks = masks + [mask for mask in masks for _ in range(2)]
    before = [tensor.clone() for tensor in tensors]
    held = HeldStill(tensors, all_masks)
    sft_steps(parameters, optimizer, masks, held)
    tensors = of_one_value_a_coordinate(parameters, optimizer)
    for tensor, old, mask in zip(tensors, before, all_masks, strict=True):
        assert mask.any() and (~mask).any()
        assert same_bits(tensor[mask], old[mask])
        assert (tensor[~mask] != old[~mask]).all()
    assert held.drift(tensors) == 0.0


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_trainable_coordinates_train_as_if_nothing_were_frozen(kind):
    """AdamW is elementwise: holding some coordinates does not disturb the others."""
    parameters, optimizer, masks = trained(kind)
    free, free_optimizer, _ = trained(kind)
    held = HeldStill(of_one_value_a_coordinate(parameters, optimizer), masks + [m for m in masks for _ in range(2)])
    torch.manual_seed(9)
    sft_steps(parameters, optimizer, masks, held)
    torch.manual_seed(9)
    sft_steps(free, free_optimizer, [torch.zeros_like(mask) for mask in masks])
    for one, other, mask in zip(parameters, free, masks, strict=True):
        torch.testing.assert_close(one.detach()[~mask], other.detach()[~mask], rtol=0, atol=0)


def test_masking_before_the_clip_takes_the_frozen_coordinates_out_of_the_norm():
    gradient = torch.tensor([3.0, 4.0, 1000.0])
    mask_gradients_([gradient], [torch.tensor([False, False, True])])
    assert gradient.norm() == 5.0


# Settings


def test_the_members_are_these():
    assert CONSTRAINTS.names() == ["gradient", "none", "sparsify", "strict"]
    assert not isinstance(NoConstraint(), GradientMask) and isinstance(StrictMask(), GradientMask)


@pytest.mark.parametrize("kind", [GradientMask, StrictMask])
def test_the_defaults_are_the_papers(kind):
    freeze = kind()
    assert (freeze.share, freeze.history, freeze.scope) == (0.5, 0.5, "global")


@pytest.mark.parametrize("name", ["gradient", "strict"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 0}, "share=0 must be in (0, 1]; use mifo/constraint=none to freeze nothing"),
        ({"share": "3/2"}, "share=3/2 must be a share in [0, 1]; write it as 0.125 or '1/8'"),
        ({"history": 1.5}, "history=1.5 must be a share in [0, 1]; write it as 0.125 or '1/8'"),
        ({"history": -0.5}, "history=-0.5 must be a share in [0, 1]; write it as 0.125 or '1/8'"),
        ({"scope": "layer"}, "scope=layer must be one of global, per_tensor; global is the paper's rule"),
    ],
)
def test_a_bad_setting_is_refused(name, settings, message):
    with pytest.raises(ValueError) as error:
        CONSTRAINTS.build({"name": name, **copy.copy(settings)})
    assert str(error.value) == f"mifo.constraint.{message}"


def test_a_history_of_0_and_a_share_of_1_are_allowed():
    freeze = CONSTRAINTS.build({"name": "strict", "share": 1, "history": 0, "scope": "per_tensor"})
    assert freeze == StrictMask(1, 0, "per_tensor")


def test_none_takes_no_setting():
    with pytest.raises(ValueError) as error:
        CONSTRAINTS.build({"name": "none", "share": 0.5})
    assert str(error.value) == (
        "mifo.constraint.share=0.5 must be a setting of none; none takes no setting, "
        "and mifo/constraint=<name> chooses another member"
    )
