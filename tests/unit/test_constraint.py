"""Weights that hold still: method.md part 1 step 6, trap 1."""

import copy
import math

import pytest
import torch

from mifo_verl.method import packed
from mifo_verl.method.constraint import CONSTRAINTS, NoConstraint
from mifo_verl.method.coordinates import ShardRange
from mifo_verl.method.held_still import FrozenStep, HeldStill, mask_gradients_
from mifo_verl.method.importance import AbsChange
from mifo_verl.method.mask import GradientMask, StrictMask, step_factor
from mifo_verl.method.packed import PackedMasks
from mifo_verl.method.top_share import OneShard
from mifo_verl.types import Phase

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


def test_the_drift_is_that_of_the_tensor_that_moved_furthest():
    masks = [torch.tensor([True, False]), torch.tensor([True]), torch.tensor([False])]
    held = HeldStill([torch.zeros(2), torch.zeros(1), torch.zeros(1)], masks)
    assert held.drift([torch.tensor([0.25, 9.0]), torch.tensor([-2.0]), torch.tensor([9.0])]) == 2.0


@pytest.mark.parametrize(
    ("steps", "more", "factor"),
    [
        # ((1 - b1^t) / (1 - b1^(t+s))) / sqrt((1 - b2^t) / (1 - b2^(t+s))), worked out by hand
        (20, 20, 1.25466),  # (0.878423 / 0.985219) / sqrt(0.0198111 / 0.0392298)
        (2, 2, 0.78095),  # (0.19 / 0.3439) / sqrt(0.001999 / 0.003994): the first moment's correction is the larger
        (100_000, 10, 1.0),
        (20, 0, 1.0),
        (0, 5, 1.0),  # moments of 0 make no step
    ],
)
def test_the_step_of_a_held_weight_runs_ahead_by_the_bias_corrections_of_updates_it_has_not_taken(steps, more, factor):
    assert step_factor(steps, more, (0.9, 0.999)) == pytest.approx(factor, abs=2e-5)


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


class Whole:
    """Parameters that are whole in this process."""

    def __init__(self, parameters) -> None:
        self.parameters = parameters

    def weights(self) -> list[torch.Tensor]:
        return [parameter.detach().view(-1) for parameter in self.parameters]

    def gradients(self) -> list[torch.Tensor | None]:
        return [None if parameter.grad is None else parameter.grad.view(-1) for parameter in self.parameters]


def frozen_updates(kind: dict, steps: int, in_slices: bool) -> list[torch.Tensor]:
    """Weights and states behind four updates of two groups under a mask; once a gradient is missing, once no step comes."""
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(num, generator=generator)) for num in (1007, 64, 99, 5)]
    groups = [{"params": parameters[:2], "weight_decay": 0.1}, {"params": parameters[2:], "lr": 3e-3}]
    model, optimizer = Whole(parameters), torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.0, **kind)

    def make_gradients() -> None:
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)

    for _ in range(steps):
        make_gradients()
        optimizer.step()
    masks = PackedMasks.of([torch.rand(p.shape, generator=generator) < 0.5 for p in parameters])
    moments = [name for name, value in sorted(optimizer.state[parameters[0]].items()) if value.ndim]
    tensors = [*model.weights(), *(optimizer.state[p][name] for name in moments for p in parameters)]
    step, held = FrozenStep(model, optimizer, masks.packed), HeldStill(tensors, list(masks) * (1 + len(moments)))
    for number in range(4):
        make_gradients()
        mask_gradients_(model.gradients(), masks)
        if in_slices:
            step.install()
        if number == 2:
            parameters[1].grad = None
        if number != 1:  # an update whose norm is not finite is skipped
            optimizer.step()
        step.remove() if in_slices else held.put_back_(tensors)
    states = [torch.as_tensor(value) for p in parameters for _, value in sorted(optimizer.state[p].items())]
    return [*model.weights(), *states]


@pytest.mark.parametrize("kind", [*KINDS, {"amsgrad": True}], ids=str)
@pytest.mark.parametrize("steps", [0, 2])
def test_a_step_in_slices_is_to_the_bit_a_step_and_putting_back(monkeypatch, kind, steps):
    monkeypatch.setattr(packed, "CHUNK", 256)
    whole, sliced = (frozen_updates(kind, steps, in_slices) for in_slices in (False, True))
    assert len(whole) == len(sliced) == 4 + 4 * (4 if kind.get("amsgrad") else 3)
    assert all(same_bits(one, other) for one, other in zip(whole, sliced, strict=True))


def test_what_other_hands_change_of_a_frozen_coordinate_is_an_error():
    model, active, optimizer = at_work("strict", share=0.5)
    active.select(START, interval=1, observe=None)
    active.enter(optimizer)
    model.weights()[0][1] += 1e-3  # coordinates 1 and 3 are frozen
    with pytest.raises(RuntimeError, match="must leave frozen weights and moments as they are"):
        active.release(optimizer)
    model, active, optimizer = at_work("strict", share=0.5)
    active.select(START, interval=2, observe=None)
    active.enter(optimizer)
    model.weights()[0][0] += 1e-3
    assert active.release(optimizer) == 0.0


@pytest.mark.parametrize("moment", ["exp_avg", "exp_avg_sq"])
def test_what_other_hands_change_of_a_frozen_moment_is_an_error_too(moment):
    model, active, optimizer = at_work("strict", share=0.5)
    update(model, active, optimizer, Phase.RL)
    active.select(START, interval=1, observe=None)
    active.enter(optimizer)
    place = int(active.frozen[0].nonzero()[0])
    optimizer.state[model.parameter][moment].view(-1)[place] += 1e-3
    with pytest.raises(RuntimeError, match="must leave frozen weights and moments as they are"):
        active.release(optimizer)


def test_masking_before_the_clip_takes_the_frozen_coordinates_out_of_the_norm():
    gradient = torch.tensor([3.0, 4.0, 1000.0])
    mask_gradients_([gradient], [torch.tensor([False, False, True])])
    assert gradient.norm() == 5.0


# The constraint at work: theta_start = (0, 0, 0, 0), and RL has moved the coordinates by 1, 4, 2 and 3


class OneTensor:
    """A model of one tensor, whole in this process."""

    def __init__(self, values: list[float]) -> None:
        self.parameter = torch.nn.Parameter(torch.tensor(values))
        self.slices = [ShardRange("w", 0)]
        self.shards = OneShard()

    @property
    def parameters(self) -> list[torch.Tensor]:
        return [self.parameter]

    def weights(self) -> list[torch.Tensor]:
        return [self.parameter.detach()]

    def gradients(self) -> list[torch.Tensor | None]:
        return [self.parameter.grad]

    def optimizer_state(self, optimizer: torch.optim.Optimizer):
        state = optimizer.state.get(self.parameter, {})
        return ((0, name, state[name]) for name in ("exp_avg", "exp_avg_sq") if name in state)


def at_work(name: str, values=(1.0, 4.0, 2.0, 3.0), **settings):
    model = OneTensor(list(values))
    constraint = CONSTRAINTS.build({"name": name, **settings})
    return model, constraint.attach(model, AbsChange()), torch.optim.AdamW([model.parameter], lr=0.1, weight_decay=0.1)


def update(model, active, optimizer, phase: Phase) -> None:
    model.parameter.grad = torch.ones(4)
    active.before_update(phase)
    optimizer.step()
    active.after_update(phase, optimizer)


START = [torch.zeros(4)]


def test_the_mask_is_that_of_the_largest_changes_and_its_history_that_of_the_mask():
    _model, active, _ = at_work("strict", share=0.5, history=0.5)
    report = active.select(START, interval=1, observe=None)
    assert active.frozen[0].tolist() == [False, True, False, True]
    assert active.history[0].tolist() == [0, 2, 0, 1.5]  # (1 - alpha) * change, where it is frozen
    assert (report.num_frozen, report.num_coordinates, report.threshold) == (2, 4, 1.5)
    assert (report.frozen_share, report.positive_share) == (0.5, 1.0)


def test_the_next_mask_remembers_the_last():
    model, active, optimizer = at_work("strict", share=0.25, history=0.5)
    active.select(START, interval=1, observe=None)
    active.release(optimizer)
    # coordinate 1 was frozen with importance 2; RL then moves coordinate 0 by 1.5: 0.5 * 2 > 0.5 * 1.5
    active.select([model.weights()[0] - torch.tensor([1.5, 0, 0, 0])], interval=2, observe=None)
    assert active.frozen[0].tolist() == [False, True, False, False]
    forgets = at_work("strict", share=0.25, history=0)[1]
    forgets.select(START, interval=1, observe=None)
    assert forgets.history is None


def test_strict_holds_weights_and_moments_in_sft_and_nothing_in_rl():
    model, active, optimizer = at_work("strict", share=0.5)
    update(model, active, optimizer, Phase.RL)
    active.select(START, interval=1, observe=None)
    active.enter(optimizer)
    before = [tensor.clone() for tensor in (*model.weights(), *optimizer.state[model.parameter].values())]
    frozen = active.frozen[0]
    update(model, active, optimizer, Phase.SFT)
    weight, _, exp_avg, exp_avg_sq = (*model.weights(), *optimizer.state[model.parameter].values())
    for now, then in zip((weight, exp_avg, exp_avg_sq), (before[0], *before[2:]), strict=True):
        assert same_bits(now[frozen], then[frozen])
    assert (weight != before[0])[~frozen].all()
    assert active.release(optimizer) == 0.0 and active.frozen is None
    update(model, active, optimizer, Phase.RL)
    assert (model.weights()[0] != before[0]).all()


def test_an_rl_update_between_leaving_and_entering_an_sft_phase_is_free():
    model, active, optimizer = at_work("strict", share=0.5)
    active.select(START, interval=1, observe=None)
    active.enter(optimizer)
    before = model.weights()[0].clone()
    update(model, active, optimizer, Phase.RL)
    assert (model.weights()[0] != before).all() and (model.parameter.grad != 0).all()


def test_gradient_lets_momentum_and_weight_decay_move_what_is_frozen_and_measures_no_drift():
    model, active, optimizer = at_work("gradient", share=0.5)
    update(model, active, optimizer, Phase.RL)
    active.select(START, interval=1, observe=None)
    active.enter(optimizer)
    frozen, before = active.frozen[0], model.weights()[0].clone()
    update(model, active, optimizer, Phase.SFT)
    assert model.parameter.grad[frozen].tolist() == [0, 0]
    assert (model.weights()[0] != before)[frozen].all() and active.release(optimizer) is None


def test_none_holds_nothing_and_has_no_state():
    model, active, optimizer = at_work("none")
    assert active.select(None, interval=1, observe=None) is None
    active.enter(optimizer)
    before = model.weights()[0].clone()
    update(model, active, optimizer, Phase.SFT)
    assert (model.weights()[0] != before).all()
    assert active.release(optimizer) is None and active.state() == {}


def test_a_state_that_is_loaded_goes_on_with_the_same_mask_and_history():
    _model, active, optimizer = at_work("strict", share=0.5)
    active.select(START, interval=1, observe=None)
    other = at_work("strict", share=0.5)[1]
    other.load(active.state())
    assert other.frozen[0].tolist() == active.frozen[0].tolist()
    assert other.history[0].tolist() == active.history[0].tolist()
    active.release(optimizer)
    other.load(active.state())
    assert other.frozen is None and other.history is not None
    other.load({})
    assert other.history is None


def test_an_observer_sees_mask_and_importance_before_the_rest_is_forgotten():
    seen = []

    def observe(frozen, importance):
        seen.extend((frozen[0].tolist(), importance[0].tolist()))

    at_work("strict", share=0.25, history=0)[1].select(START, interval=1, observe=observe)
    assert seen == [[False, True, False, False], [1, 4, 2, 3]]


def test_what_cannot_be_frozen_is_said():
    _model, active, optimizer = at_work("strict", share=1)
    with pytest.raises(RuntimeError, match="nothing is selected"):
        active.enter(optimizer)
    with pytest.raises(RuntimeError, match="the interval has no start"):
        active.select(None, interval=1, observe=None)
    with pytest.raises(ValueError) as everything:
        active.select(START, interval=1, observe=None)
    assert str(everything.value) == (
        "mifo.constraint.share=1 must leave something to train, and it froze all 4 coordinates; lower it"
    )
    with pytest.raises(FloatingPointError, match="the importance of 1 coordinates is not finite"):
        at_work("strict", values=(1.0, math.nan, 2.0, 3.0))[1].select(START, interval=1, observe=None)


# Settings


def test_the_members_are_these():
    assert CONSTRAINTS.names() == [
        "ewc",
        "gradient",
        "kl_anchor",
        "kl_rollouts",
        "lora",
        "none",
        "replay",
        "sparsify",
        "strict",
    ]
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
