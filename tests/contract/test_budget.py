"""What the records say that a step has cost, and when the budget is spent, on the config of a run."""

import pytest
import torch
from omegaconf import OmegaConf
from verl.trainer.ppo.utils import need_critic
from verl.trainer.ppo.v1 import replay_buffer

from mifo_verl.compose import compose_config
from mifo_verl.config import build_config
from mifo_verl.loop.events import UpdateMade, Validated
from mifo_verl.run.budget import Budget, rl_cost
from mifo_verl.run.watchdog import Watchdog
from mifo_verl.settings import WatchdogConfig
from mifo_verl.types import Progress
from mifo_verl.verl.critic import has_critic
from mifo_verl.verl.replay import OrderedReplayBuffer

START = Progress(step=0, interval=1, rl_steps=0)


def of_step(*overrides: str, discarded: int = 0, unasked: int = 0, trains: bool = True) -> tuple[int, int]:
    """(response tokens, FLOPs) of a step with 8 rollouts of 40 prompt and 60 response tokens in all; N = 1000."""
    config = compose_config(["experiment=quickstart", *overrides]).node
    extra = build_config(OmegaConf.to_container(config.mifo)).mixing.extra_trainings
    return rl_cost(config, 1000, extra).of_step(100, 60, 8, discarded, unasked, trains)


def test_a_step_of_the_quick_start_is_rollout_old_log_probs_and_update():
    # 100 tokens x 1000 weights x (2 + 2 + 6)
    assert of_step() == (60, 1_000_000)


def test_a_reference_and_a_critic_are_counted():
    # a reference: 2 more a token; a critic: 2 for its values, 6 for its update
    assert of_step("rl=grpo") == (60, 1_200_000)
    assert of_step("rl=ppo") == (60, 1_800_000)


def test_the_passes_of_a_second_policy_are_counted():
    # 6 more a token where it is tracked; 12 for the step ahead and the pass behind it
    assert of_step("method=bridge") == (60, 1_600_000)
    assert of_step("method=bridge", "mifo.mixing.auxiliary=one_step") == (60, 2_200_000)


def test_an_rl_loss_of_weight_0_is_a_pass_without_gradient_and_a_second_policy_makes_none():
    # 100 tokens x (rollout 2 + old log-probs 2 + the policy's pass 2); a critic beside it still trains: 2 + 6 more
    assert of_step("method=bridge", trains=False) == (60, 600_000)
    assert of_step("rl=ppo", trains=False) == (60, 1_400_000)


def test_a_demonstration_in_the_place_of_a_rollout_is_generated_by_nobody():
    # of 100 tokens 10 are of such a one: trained on as all are, not rolled out
    assert of_step(unasked=10) == (60, 980_000)


def test_a_critic_that_is_switched_on_or_off_by_itself_is_counted_as_it_runs():
    assert of_step("critic.enable=true") == (60, 1_800_000)
    assert of_step("rl=ppo", "critic.enable=false") == (60, 1_000_000)


@pytest.mark.filterwarnings("ignore:Disabled critic")
@pytest.mark.parametrize("enable", ["null", "true", "false"])
@pytest.mark.parametrize("rl", ["dr_grpo", "ppo"])
def test_a_run_has_a_critic_where_verl_says_that_it_needs_one(rl, enable):
    config = compose_config(["experiment=quickstart", f"rl={rl}", f"critic.enable={enable}"]).node
    assert has_critic(config) is need_critic(config)


def test_rollouts_that_were_not_trained_on_count_as_generated():
    # 16 made, 8 trained on: 200 tokens rolled out at 2, 100 at 8
    assert of_step(discarded=8) == (120, 1_200_000)


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
    watchdog, polls = Watchdog(WatchdogConfig(), lambda *_: None), []
    buffer = OrderedReplayBuffer(
        built, True, lambda batch: evicted.extend(batch.keys), lambda: polls.append(watchdog.current().name), watchdog
    )
    batch, _ = buffer.sample(global_steps=1, partition_id="train", batch_size=1)
    watchdog.end()
    assert set(polls) == {"rollout"}
    assert batch.keys == ["t1_0_0", "t1_1_0"] and evicted == ["t0_0_0", "t0_1_0"]
    assert buffer.discarded_rollouts == 2 + 2  # t0 is filtered, t2 is surplus


def test_the_budget_is_spent_by_the_sum_of_all_records_those_before_a_resume_too():
    budget = Budget(100.0, [{"flops": 40}, {"step": 3}])
    assert not budget.is_spent
    for event in (update_made(59), Validated(step=1, accuracy={})):
        budget(event)
    assert not budget.is_spent and budget.share == 0.99
    budget(update_made(1))
    assert budget.is_spent
    assert not Budget(None, [{"flops": 1e30}]).is_spent and Budget(None, [{"flops": 1e30}]).share == 0


def update_made(flops: int) -> UpdateMade:
    counts = dict.fromkeys(("prompt_tokens", "response_tokens", "kept_tokens", "demonstrations", "buffer_size"), 1)
    shares = dict.fromkeys(("entropy", "kept_share", "frozen_share", "loss", "grad_norm"), 0.5)
    return UpdateMade(step=1, interval=1, update=1, ledger_sha256="", flops=flops, **counts, **shares)


def test_the_buffer_names_the_first_prompts_whose_rollouts_are_awaited(monkeypatch):
    monkeypatch.setattr(replay_buffer, "tq", Queue())
    built = replay_buffer.ReplayBuffer("sync", None, None, "drop", {})
    watchdog = Watchdog(WatchdogConfig(), lambda *_: None)
    buffer = OrderedReplayBuffer(built, True, lambda _: None, lambda: None, watchdog)
    watchdog.end()
    buffer.pending_keys, buffer.running_keys = {"train": {"t5", "t1", "t2"}}, {"train": {"t0", "t3", "t4"}}
    assert buffer.waiting_for() == "6 prompts: t0, t1, t2, t3, t4 and 1 more"
    buffer.pending_keys = buffer.running_keys = {"train": set()}
    assert buffer.waiting_for() == ""
