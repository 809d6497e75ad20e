"""What the records say that a step has cost, and when the budget is spent, on the config of a run."""

import json

from mifo_verl.bridge.budget import Spending
from mifo_verl.bridge.compose import compose_config

STEP = {"rollouts": 8, "prompt_tokens": 40, "response_tokens": 60}


def spending(folder, limit=None, *overrides: str) -> Spending:
    return Spending(compose_config(["experiment=quickstart", f"run_dir={folder}", *overrides]).node, 1000, limit)


def test_a_step_of_the_quick_start_is_rollout_old_log_probs_and_update(tmp_path):
    # 100 tokens x 1000 weights x (2 + 2 + 6)
    assert spending(tmp_path).of_rl(STEP, 8) == {"generated_tokens": 60, "flops": 1_000_000}


def test_a_reference_and_a_critic_are_counted(tmp_path):
    # a reference: 2 more a token; a critic: 2 for its values, 6 for its update
    assert spending(tmp_path, None, "rl=grpo").of_rl(STEP, 8)["flops"] == 1_200_000
    assert spending(tmp_path, None, "rl=ppo").of_rl(STEP, 8)["flops"] == 1_800_000


def test_rollouts_that_were_not_trained_on_count_as_generated(tmp_path):
    # 16 made, 8 trained on: 200 tokens rolled out at 2, 100 at 8
    assert spending(tmp_path).of_rl(STEP | {"rollouts": 16}, 8) == {"generated_tokens": 120, "flops": 1_200_000}


def test_the_budget_is_spent_by_the_sum_of_all_records_those_before_a_resume_too(tmp_path):
    line = {"flops": 40}
    fresh = spending(tmp_path, 100.0)
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert not fresh.is_over([line])
    assert not fresh.is_over([line])
    assert fresh.is_over([line])
    (tmp_path / "metrics.jsonl").write_text((json.dumps(line) + "\n") * 3)
    assert spending(tmp_path, 100.0).is_over([line])  # the file has this line already
    assert not spending(tmp_path).is_over([line])
