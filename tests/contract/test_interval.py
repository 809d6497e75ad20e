"""Where the state of an interval lies (mifo.state.device): the numbers are the same, and nothing is kept twice."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mifo_verl.method.constraint import CONSTRAINTS
from mifo_verl.method.importance import AbsChange
from mifo_verl.verl.interval import IntervalState
from tests.unit.test_constraint import OneTensor


def optimizer_of(model):
    return torch.optim.SGD([model.parameter], lr=0.1)


def interval_of(model, on_host: bool) -> IntervalState:
    active = CONSTRAINTS.build({"name": "strict", "share": 0.5}).attach(model, AbsChange())
    return IntervalState(model, active, keeps_start=True, keeps_before_sft=True, inspects=True, on_host=on_host)


def test_two_intervals_and_a_resume_with_the_state_on_the_host_are_bit_identical():
    ends = []
    for on_host in (False, True):
        torch.manual_seed(0)
        model = OneTensor([0.0] * 1000)
        interval, reports = interval_of(model, on_host), []
        for number in (1, 2, 3):
            interval.begin()
            model.weights()[0].add_(torch.randn(1000))
            reports.append(interval.begin_sft(number, optimizer_of(model)))
            model.weights()[0].add_(torch.randn(1000))
            reports.append(interval.inspect_sft())
            state = {name: tensor.clone() for name, tensor in interval.state().items()}
            interval = interval_of(model, on_host)
            interval.load(state)
        ends.append((reports, state))
    assert ends[0][0] == ends[1][0] and ends[0][1].keys() == ends[1][1].keys()
    assert all(torch.equal(one, ends[1][1][name]) for name, one in ends[0][1].items())
    assert ends[0][0][2].change_of_held is not None  # it needs the mask before, which is the history's


def test_the_state_lies_on_the_host_from_its_begin_and_after_a_resume():
    """The weights lie on a GPU that is not there: a fake tensor has a device and no values."""
    with FakeTensorMode():
        model = OneTensor([0.0] * 4)
        model.parameter = torch.nn.Parameter(torch.empty(4, device="cuda"))
        state = {name: torch.empty(4) for name in ("start.0", "history.0")} | {"frozen.0": torch.empty(4, dtype=bool)}
        for on_host, device in ((True, "cpu"), (False, "cuda")):
            interval = interval_of(model, on_host)
            interval.begin()
            assert interval.start[0].device.type == device
            interval.load(state)
            assert interval.start[0].device.type == interval.constraint.history[0].device.type == device
            assert interval.constraint.frozen.packed[0].bits.device.type == "cuda"  # every SFT update reads it


def test_no_second_copy_of_a_mask_that_the_history_has_is_kept_or_saved():
    model = OneTensor([0.0] * 4)
    for history, kept in ((0.5, False), (0, True)):
        active = CONSTRAINTS.build({"name": "strict", "share": 0.5, "history": history}).attach(model, AbsChange())
        interval = IntervalState(model, active, keeps_start=True, keeps_before_sft=True, inspects=True)
        interval.begin()
        model.weights()[0].add_(torch.arange(4.0))
        interval.begin_sft(1, optimizer_of(model))
        assert ("inspection.last.0" in interval.state()) is kept
