"""BRIDGE on numbers: equations (8), (11) and Algorithm 2 against steps worked out by hand, and what they refuse."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from mifo_verl.method.bilevel import Bilevel
from mifo_verl.method.mixing import MIXINGS, Weights
from mifo_verl.types import Progress, RunFacts

FITTING = RunFacts(lora_rank=16, trains_now=True, has_sft_phases=False)


def at(step: int) -> Progress:
    return Progress(step=step, interval=1, rl_steps=step)


def sft_gradient(theta: float, w: float) -> tuple[float, float]:
    """Of L_SFT = (theta + w - 2)^2 / 2."""
    return theta + w - 2, theta + w - 2


def rl_gradient(theta: float, w: float) -> tuple[float, float]:
    """Of L_RL = (theta + 2 w - 1)^2 / 2."""
    return theta + 2 * w - 1, 2 * (theta + 2 * w - 1)


@dataclass
class Numbers:
    """theta, w and theta-hat as three numbers, moved by plain steps: a = 0.1, b = 0.05."""

    theta: float = 0.0
    w: float = 0.0
    hat: float = 0.0
    of_hat: float = 0.0
    base: float = 0.0
    adapter: list[Tensor] = field(default_factory=list)
    weights: Weights = field(default_factory=lambda: Weights(0.5, 0.5))

    def both_losses(self) -> None:
        (s_theta, s_w), (r_theta, r_w) = sft_gradient(self.theta, self.w), rl_gradient(self.theta, self.w)
        self.base = self.weights.sft * s_theta + self.weights.rl * r_theta
        self.adapter = [torch.tensor([self.weights.sft * s_w + self.weights.rl * r_w], dtype=torch.float64)]

    def adapter_gradients(self) -> list[Tensor]:
        return self.adapter

    def rl_at_second_policy(self, is_own_anchor: bool) -> list[Tensor]:
        self.of_hat, of_w = rl_gradient(self.hat, self.w)
        return [torch.tensor([of_w], dtype=torch.float64)]

    def rl_one_step_ahead(self, is_own_anchor: bool) -> list[Tensor]:
        ahead = self.theta - 0.1 * rl_gradient(self.theta, self.w)[0]
        return [torch.tensor([rl_gradient(ahead, self.w)[1]], dtype=torch.float64)]

    def move(self) -> tuple[float, float, float]:
        self.theta -= 0.1 * self.base
        self.hat -= 0.1 * self.of_hat
        self.w -= 0.05 * float(self.adapter[0])
        return self.theta, self.hat, self.w


@pytest.mark.parametrize(
    ("share", "steps"),
    [
        (0.5, [(0.15, 0.1, 0.05), (0.2775, 0.18, 0.0925), (0.385875, 0.2435, 0.128375)]),
        (1.0, [(0.1, 0.1, 0.0), (0.19, 0.19, 0.0)]),
        (0.0, [(0.2, 0.0, 0.1), (0.37, 0.0, 0.185)]),
    ],
)
def test_theta_theta_hat_and_w_move_as_worked_out_by_hand(share, steps):
    bilevel, numbers = Bilevel(lambda_end=share), Numbers()
    for step, expected in enumerate(steps):
        numbers.weights = bilevel(at(step))
        bilevel.gradients(numbers, numbers.weights.rl)
        assert numbers.move() == pytest.approx(expected, abs=1e-12)


def test_one_step_ahead_moves_w_as_worked_out_by_hand():
    bilevel, numbers = Bilevel(auxiliary="one_step"), Numbers()
    found = []
    for _ in range(2):
        bilevel.gradients(numbers, 0.5)
        found.append(numbers.move())
    assert found[0] == pytest.approx((0.15, 0.0, 0.055), abs=1e-12)
    assert found[1] == pytest.approx((0.27675, 0.0, 0.103575), abs=1e-12)


def test_lambda_goes_in_a_straight_line_from_its_start_to_its_end():
    bilevel = Bilevel(lambda_start=0.2, lambda_end=0.8, lambda_steps=4)
    assert [bilevel(at(step)).rl for step in (0, 1, 2, 4, 9)] == pytest.approx([0.2, 0.35, 0.5, 0.8, 0.8])
    assert Bilevel()(at(7)) == Weights(rl=0.5, sft=0.5)
    assert Bilevel(lambda_start=0.1, lambda_end=1)(at(0)) == Weights(rl=1.0, sft=0.0)


def test_a_second_policy_is_needed_where_it_is_tracked_only():
    assert Bilevel().needs == {"trainable_base", "second_policy"} and Bilevel().extra_trainings == 1
    ahead = Bilevel(auxiliary="one_step")
    assert ahead.needs == {"trainable_base"} and ahead.extra_trainings == 2


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"lora_rank": 0}, "actor_rollout_ref.model.lora_rank"),
        ({"epochs": 2}, "actor_rollout_ref.actor.ppo_epochs"),
        ({"has_critic": True}, "mifo.mixing.name"),
        ({"weights_dtype": "bf16"}, "actor_rollout_ref.actor.fsdp_config.model_dtype"),
        ({"has_sft_phases": True}, "mifo.mixing.name"),
        ({"trains_now": False}, "mifo.mixing.name"),
    ],
)
def test_what_does_not_fit_is_said_by_its_setting(facts, said):
    assert list(Bilevel().problems(FITTING)) == []
    changed = RunFacts(**({"lora_rank": 16, "trains_now": True, "has_sft_phases": False} | facts))
    assert [problem.setting for problem in Bilevel().problems(changed)] == [said]


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"lambda_end": 1.5}, "mifo.mixing.lambda_end=1.5 must be in [0, 1]"),
        ({"lambda_steps": -1}, "mifo.mixing.lambda_steps=-1 must be a whole number of at least 0"),
        (
            {"auxiliary": "track"},
            "mifo.mixing.auxiliary=track must be one of tracked, one_step (did you mean tracked?)",
        ),
        ({"anchor": "old"}, "mifo.mixing.anchor=old must be one of behaviour, own"),
        ({"adapter_lr": -1.0}, "mifo.mixing.adapter_lr=-1.0 must be a number of at least 0, or null"),
        ({"offload": 1}, "mifo.mixing.offload=1 must be true or false"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(node, said):
    with pytest.raises(ValueError) as error:
        MIXINGS.build({"name": "bilevel"} | node)
    assert str(error.value).startswith(said)


def test_what_it_holds_on_the_device_and_on_the_host():
    kept = {cost.name: cost for cost in Bilevel().costs(FITTING)}
    assert [(cost.num_bytes, cost.phases) for cost in kept.values()] == [(12, ("rollout", "rl", "sft")), (4, ("rl",))]
    offloaded = next(iter(Bilevel(offload=True).costs(FITTING)))
    assert (offloaded.num_bytes, offloaded.phases, offloaded.host_bytes) == (12, ("rl",), 12)
