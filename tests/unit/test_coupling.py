"""The coupling table and the cost of the probes, worked out by hand."""

from typing import Any

import pytest

from mifo_verl.probes.cost import HARD_SHARE, MOST, CostPlan, expected, measured, rollout_units
from mifo_verl.probes.coupling import DIFFERENCES, coupling
from mifo_verl.settings import ProbeConfig


def rl(interval: int, **fields: Any) -> dict[str, Any]:
    return {"phase": "rl", "interval": interval} | fields


def sft(interval: int, **fields: Any) -> dict[str, Any]:
    return {"phase": "sft", "interval": interval} | fields


LINES = [
    rl(1),
    rl(1, cross_entropy_before=1.0, cross_entropy_after=1.5),
    sft(1),
    sft(
        1,
        cross_entropy_before=1.5,
        cross_entropy_after=0.75,
        accuracy_before={"a": 0.0, "mean": 0.5},
        accuracy_after={"a": 0.0, "mean": 0.25},
        solved_accuracy_before=1.0,
        solved_accuracy_after=0.5,
        hard_accuracy_before=0.0,
        hard_accuracy_after=0.25,
        kl_to_before=0.5,
        policy_entropy_before=2.0,
        policy_entropy_after=1.0,
        reward_margin_before=None,
        reward_margin_after=0.25,
    ),
    rl(2, cross_entropy_before=0.75, cross_entropy_after=1.0),
    sft(
        2,
        accuracy_before=None,
        accuracy_after=None,
        solved_accuracy_before=0.5,
        solved_accuracy_after=0.75,
        hard_accuracy_before=0.5,
        hard_accuracy_after=0.25,
        kl_to_before=0.25,
    ),
    rl(3),
]


def test_each_column_has_the_sign_of_its_name_and_the_price_its_ratio():
    first, second = coupling(LINES)["intervals"]
    assert first == {
        "interval": 1,
        "rl_raised_cross_entropy": 0.5,
        "sft_raised_cross_entropy": -0.75,
        "sft_lost_accuracy": 0.25,
        "sft_lost_solved": 0.5,
        "sft_gained_hard": 0.25,
        "sft_raised_entropy": -1.0,
        "sft_raised_margin": None,
        "kl_to_before": 0.5,
        "lost_solved_per_gained_hard": 2.0,
    }
    assert second["sft_lost_solved"] == -0.25 and second["sft_gained_hard"] == -0.25
    assert second["lost_solved_per_gained_hard"] is None and second["sft_lost_accuracy"] is None


def test_the_total_is_the_sum_over_intervals_and_the_price_that_of_the_sums():
    total = coupling(LINES)["total"]
    assert total["rl_raised_cross_entropy"] == 0.75 and total["kl_to_before"] == 0.75
    assert (total["sft_lost_solved"], total["sft_gained_hard"]) == (0.25, 0.0)
    assert total["lost_solved_per_gained_hard"] is None
    assert coupling(LINES[:4])["total"]["lost_solved_per_gained_hard"] == 2.0


def test_the_price_of_all_leaves_out_intervals_that_lack_one_side():
    half = sft(2, solved_accuracy_before=1.0, solved_accuracy_after=0.0)
    total = coupling([*LINES[:4], half])["total"]
    assert total["sft_lost_solved"] == 1.5 and total["lost_solved_per_gained_hard"] == 2.0


def test_rounding_is_no_change_and_a_run_without_probes_has_an_empty_table():
    (row,) = coupling([sft(1, accuracy_before={"mean": 0.3}, accuracy_after={"mean": 0.1 + 0.2})])["intervals"]
    assert row["sft_lost_accuracy"] == 0.0
    empty = coupling([rl(1), sft(1, accuracy_before=None, accuracy_after=None)])
    assert empty["intervals"] == [] and set(empty["total"].values()) == {None}
    assert set(empty["total"]) > set(DIFFERENCES)


PLAN = CostPlan(
    rl_steps=20,
    sft_phases=5,
    rollouts=100,
    rollout_units=10,
    sft_sequences=50,
    every=1,
    asked=30,
    demonstrations=10,
    shift_rollouts=10,
    kl_rollouts=10,
)


def test_the_share_is_that_of_flops_by_the_rule():
    run = 20 * 100 * 10 + 5 * 50 * 6  # 21,500
    # before and after: 30 sampled, 10 demonstrations; 10 rollouts under both policies; 2 FLOPs/N each
    border = 5 * (2 * 2 * 30 + 2 * 2 * 10 + 2 * 2 * 10)  # 1,000
    assert expected(PLAN) == (pytest.approx(border / run), pytest.approx(20 * 10 * 2 / run))


def test_at_the_papers_sizes_the_probes_take_less_than_they_may():
    probe = ProbeConfig()
    paper = CostPlan(
        rl_steps=64 / (128 * HARD_SHARE),  # until 64 prompts are hard
        sft_phases=1,
        rollouts=128 * 8,
        rollout_units=10,
        sft_sequences=64,
        every=probe.every,
        asked=probe.prompts + probe.solved + probe.hard,
        demonstrations=probe.demonstrations,
        shift_rollouts=probe.rollouts,
        kl_rollouts=probe.kl_rollouts,
    )
    border, kl = expected(paper)
    steps = 64 / (128 * 6.4 / 45.8)  # 3.578
    run = steps * 1024 * 10 + 64 * 6
    assert border == pytest.approx(4 * (64 + 32 + 32 + 64 + 32) / run)
    assert kl == pytest.approx(steps * 64 * 2 / run)
    assert border + kl < MOST


def test_every_second_interval_costs_half():
    assert expected(CostPlan(**vars(PLAN) | {"every": 2}))[0] == expected(PLAN)[0] / 2


def test_a_rollout_is_sampled_scored_and_trained_on():
    assert rollout_units(1, False, False) == 2 + 2 + 6
    assert rollout_units(2, True, True) == 2 + 2 + 12 + 2 + (2 + 12)


def test_what_was_measured_is_shared_out_by_seconds_and_by_tokens():
    lines = [
        rl(1, seconds={"rollout": 5.0, "kl_to_start": 1.0}, rollouts=8, response_length=10.0, kl_tokens=20),
        rl(1, seconds={"probe": 2.0}, rollouts=0, response_length=None, kl_tokens=None),
        sft(1, seconds={"sft": 1.0}, response_tokens=10),
        sft(
            1,
            seconds={"sft": 1.0, "probe": 3.0},
            response_tokens=10,
            probe={"generated_tokens": 5, "forward_tokens": 7},
        ),
    ]
    found = measured(lines, total_seconds=60.0)
    assert found["seconds"] == 6.0 and found["share_of_seconds"] == 0.1
    assert found["share_of_compute"] == (40 + 2 * (5 + 7)) / (80 * 10 + 20 * 6)
    assert measured([], 0.0) == {"seconds": 0.0, "share_of_seconds": None, "share_of_compute": None}
