"""What the records say that a step has cost, and when the budget is spent, on the config of a run."""

import json

import pytest
import torch
from verl.trainer.ppo.utils import need_critic
from verl.trainer.ppo.v1 import replay_buffer

from mifo_verl.compose import compose_config
from mifo_verl.run.budget import Spending
from mifo_verl.verl.critic import has_critic
from mifo_verl.verl.replay import OrderedReplayBuffer

STEP = {"discarded_rollouts": 0, "prompt_tokens": 40, "response_tokens": 60}


def spending(folder, limit=None, *overrides: str) -> Spending:
    return Spending(compose_config(["experiment=quickstart", f"run_dir={folder}", *overrides]).node, 1000, limit)


def test_a_step_of_the_quick_start_is_rollout_old_log_probs_and_update(tmp_path):
    # 100 tokens x 1000 weights x (2 + 2 + 6)
    assert spending(tmp_path).of_rl(STEP, 8) == {"generated_tokens": 60, "flops": 1_000_000}


def test_a_reference_and_a_critic_are_counted(tmp_path):
    # a reference: 2 more a token; a critic: 2 for its values, 6 for its update
    assert spending(tmp_path, None, "rl=grpo").of_rl(STEP, 8)["flops"] == 1_200_000
    assert spending(tmp_path, None, "rl=ppo").of_rl(STEP, 8)["flops"] == 1_800_000


def test_a_critic_that_is_switched_on_or_off_by_itself_is_counted_as_it_runs(tmp_path):
    assert spending(tmp_path, None, "critic.enable=true").of_rl(STEP, 8)["flops"] == 1_800_000
    assert spending(tmp_path, None, "rl=ppo", "critic.enable=false").of_rl(STEP, 8)["flops"] == 1_000_000


@pytest.mark.filterwarnings("ignore:Disabled critic")
@pytest.mark.parametrize("enable", ["null", "true", "false"])
@pytest.mark.parametrize("rl", ["dr_grpo", "ppo"])
def test_a_run_has_a_critic_where_verl_says_that_it_needs_one(rl, enable):
    config = compose_config(["experiment=quickstart", f"rl={rl}", f"critic.enable={enable}"]).node
    assert has_critic(config) is need_critic(config)


def test_rollouts_that_were_not_trained_on_count_as_generated(tmp_path):
    # 16 made, 8 trained on: 200 tokens rolled out at 2, 100 at 8
    assert spending(tmp_path).of_rl(STEP | {"discarded_rollouts": 8}, 8) == {
        "generated_tokens": 120,
        "flops": 1_200_000,
    }


class Queue:
    """TransferQueue with three finished prompts of two rollouts each, the rewards of the first the same."""

    def __init__(self) -> None:
        prompt = {"is_prompt": True, "status": "finished", "global_steps": 1}
        self.rewards = {"t0_0_0": 1.0, "t0_1_0": 1.0} | {f"t{n}_{s}_0": float(s) for n in (1, 2) for s in (0, 1)}
        self.tags = {f"t{n}": prompt for n in range(3)} | {key: {} for key in self.rewards}

    def kv_list(self):
        return {"train": dict(self.tags)}

    def kv_batch_get(self, keys, **_):
        return {"rm_scores": [torch.tensor([self.rewards[key]]) for key in keys]}

    def kv_clear(self, partition_id, keys):
        for key in keys:
            self.tags.pop(key, None)


def test_rollouts_that_dapo_filters_or_refills_too_many_of_are_counted_as_discarded(monkeypatch):
    monkeypatch.setattr(replay_buffer, "tq", Queue())
    built = replay_buffer.ReplayBuffer(
        "sync", None, None, "drop", {}, refill_fn=lambda _: None, train_batch_size=1, gen_batch_size=1,
        filter_groups_metric=replay_buffer.FILTER_GROUPS_REWARD_METRIC,
    )  # fmt: skip
    evicted = []
    buffer = OrderedReplayBuffer(built, settle=True, on_evict=lambda batch: evicted.extend(batch.keys))
    batch, _ = buffer.sample(global_steps=1, partition_id="train", batch_size=1)
    assert batch.keys == ["t1_0_0", "t1_1_0"] and evicted == ["t0_0_0", "t0_1_0"]
    assert buffer.discarded_rollouts == 2 + 2  # t0 is filtered, t2 is surplus


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
