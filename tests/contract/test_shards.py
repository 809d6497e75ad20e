"""What a rank's file gives back to an optimizer."""

import torch

from mifo_verl.verl.shards import restore_


def restored(saved_step: float, **settings) -> torch.Tensor:
    parameter = torch.nn.Parameter(torch.zeros(2, device="meta"))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    optimizer.param_groups[0].update(settings)
    restore_(optimizer, parameter, {"step": torch.tensor([saved_step])})
    return optimizer.state[parameter]["step"]


def test_a_step_count_comes_back_where_the_optimizer_s_kernel_reads_it():
    assert restored(3.0, fused=True).device.type == restored(3.0, capturable=True).device.type == "meta"
    step = restored(3.0)
    assert (step.device.type, step.shape, step.item()) == ("cpu", (), 3.0)


def test_moments_come_back_into_states_that_do_not_exist_yet():
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    restore_(optimizer, parameter, {"exp_avg": torch.arange(4.0), "step": torch.tensor([7.0])})
    assert optimizer.state[parameter]["exp_avg"].tolist() == [[0, 1], [2, 3]]
