"""What the trainer does around verl's loop: stages, the SFT phase, records, the budget, validation, the end."""

import json
import math
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu

from mifo_verl.loop.state import LoopState
from mifo_verl.run.journal import read_lines
from mifo_verl.run.liveness import Lost
from mifo_verl.run.watchdog import CannotGoOn
from mifo_verl.types import BufferEntry, SftExample
from mifo_verl.verl import replay
from mifo_verl.verl.engine import MifoEngine
from mifo_verl.verl.sampling import SAMPLING
from mifo_verl.verl.saving import Stopped
from mifo_verl.verl.sft_step import SFT_LR
from mifo_verl.verl.skipped_updates import MAX_SKIPPED
from mifo_verl.verl.worker import MifoWorker
from tests.contract.conftest import no_rollouts


def stage_of(trainer: Any) -> str:
    stage = trainer.watchdog.current()
    return stage.name if stage else ""


def fill(trainer: Any, *ids: str) -> None:
    for name in ids:
        trainer.loop.state.buffer.put(BufferEntry(None, SftExample(name, (1,), (2, 3), "ab")))


def step(trainer: Any, **metrics: float) -> dict[str, Any]:
    """One step of verl's loop; its metrics."""
    trainer.global_steps += 1
    trainer.timing_raw = {}
    found: dict[str, Any] = {}
    trainer.on_step_begin()
    batch = trainer.step(found, trainer.timing_raw)
    trainer.on_step_end()
    trainer._compute_metrics(batch, found | metrics, trainer.timing_raw, global_steps=trainer.global_steps, epoch=0)
    return found


SFT_ALONE = ["method=sft_only", "mifo.sft.batch_size=2", "mifo.sft.optimizer=shared"]


# ---------------------------------------------------------------------- stages


@pytest.mark.parametrize(
    ("method", "arguments", "stage"),
    [
        ("on_init_end", (), "first weight sync"),
        ("_compute_ref_log_prob", (None, {}), "reference log-probs"),
        ("_compute_values", (None, {}), "values"),
        ("_compute_old_log_prob", (None, {}), "log-probs"),
        ("_update_critic", (None, {}), "critic update"),
        ("_update_actor", (KVBatchMeta(partition_id="train", keys=[], tags=[]), {}), "RL update"),
        ("on_step_end", (), "weight sync"),
        ("_validate", (), "validation"),
    ],
)
def test_a_call_that_waits_for_workers_has_a_stage_of_its_own(make_trainer, monkeypatch, method, arguments, stage):
    seen: list[str] = []

    def noted(self: Any, *_: Any, **__: Any) -> dict[str, float]:
        seen.append(stage_of(self))
        return {}

    monkeypatch.setattr(PPOTrainer if method == "_validate" else PPOTrainerSync, method, noted)
    trainer = make_trainer("mifo.probe.kl_to_start=false")
    seen.clear()
    getattr(trainer, method)(*arguments[:1], **dict(zip(["metrics"], arguments[1:], strict=False)))  # as verl calls it
    assert seen == [stage]
    assert stage_of(trainer).startswith("start-up: ")


def test_in_an_sft_phase_the_mask_the_updates_and_the_sync_are_stages(make_trainer):
    trainer, seen = make_trainer(*SFT_ALONE), {}
    trainer.actor_rollout_wg.on_call = lambda name: seen.setdefault(name, stage_of(trainer))
    fill(trainer, "q1")
    step(trainer)
    stages = {"begin_sft": "mask selection", "update_sft": "SFT phase", "end_sft": "SFT phase"}
    assert {name: seen[name] for name in stages} == stages


def test_the_rewards_of_demonstrations_on_the_controller_are_a_stage(make_trainer, monkeypatch):
    trainer, seen = make_trainer(), []
    monkeypatch.setattr(replay.tq, "kv_batch_get", lambda **_: seen.append(stage_of(trainer)) or EMPTY)
    evict(trainer, KVBatchMeta(partition_id="train", keys=[], tags=[]))
    assert seen == ["hard prompts"]


EMPTY = {"prompts": type("Prompts", (), {"unbind": lambda self: []})(), "extra_fields": []}


def evict(trainer: Any, batch: KVBatchMeta) -> None:
    """What verl's replay buffer does with groups that a filter drops."""
    trainer.replay_buffer.on_evict(batch)


@pytest.mark.parametrize(
    ("method", "steps"), [(["method=mifo"], 20), (["method=sft_then_rl", "mifo.schedule.sft_steps=5"], 15)]
)
def test_the_learning_rates_that_verl_schedules_are_spread_over_rl_steps_alone(
    make_trainer, monkeypatch, method, steps
):
    def roles(self: Any) -> None:
        self.role_worker_mapping = {}

    monkeypatch.setattr(PPOTrainer, "_init_resource_pool_mgr", roles)
    trainer = make_trainer(*method)
    trainer._init_resource_pool_mgr()
    config = trainer.config
    assert (
        config.actor_rollout_ref.actor.optim.total_training_steps == config.critic.optim.total_training_steps == steps
    )


# ---------------------------------------------------------------------- an SFT phase


def test_a_phase_writes_its_updates_and_its_ledger_and_begins_the_next_interval(make_trainer, tmp_path):
    trainer = make_trainer(*SFT_ALONE)
    fill(trainer, "q1", "q2", "q3")
    step(trainer)
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["phase"], line["update"], line["demonstrations"]) for line in lines] == [
        (1, "sft", 1, 2),
        (1, "sft", 2, 1),
    ]
    # (1 prompt + 2 response tokens) x 6 x 1000 weights a demonstration
    assert [line["flops"] for line in lines] == [36_000, 18_000]
    assert "frozen_drift" not in lines[0] and lines[1]["frozen_drift"] is None
    uses = read_lines(tmp_path / "ledger.jsonl")
    assert sorted(use["prompt_id"] for use in uses) == ["q1", "q2", "q3"] and {use["kept_tokens"] for use in uses} == {
        1
    }
    state, calls = trainer.loop.state, trainer.actor_rollout_wg.calls
    assert (state.step, state.interval, len(state.buffer), state.sft) == (1, 2, 0, None)
    assert calls.index("end_sft") < calls.index("begin_interval")


@pytest.mark.parametrize(
    ("optimizer", "rl_norm", "warnings"), [("shared", 0.25, 1), ("shared", 0.5, 0), ("separate", 0.25, 0)]
)
def test_gradients_of_sft_more_than_three_times_rls_are_said_where_both_fill_the_same_moments(
    make_trainer, tmp_path, optimizer, rl_norm, warnings
):
    trainer = make_trainer(*SFT_ALONE[:-1], f"mifo.sft.optimizer={optimizer}")
    fill(trainer, "q1", "q2", "q3")
    trainer.loop.rl_ended(rl_norm)
    metrics = step(trainer)
    assert metrics["mifo/sft/grad_norm_ratio"] == read_lines(tmp_path / "metrics.jsonl")[-1]["grad_norm_ratio"]
    assert metrics["mifo/sft/grad_norm_ratio"] == 1.0 / rl_norm and metrics["mifo/sft/rl_step_factor"] == 1.0
    said = [line["text"] for line in read_lines(tmp_path / "events.jsonl") if line["kind"] == "gradients"]
    assert len(said) == warnings and all("4.0 times RL's" in text for text in said)


def test_a_skipped_update_counts_neither_in_the_step_factor_nor_in_the_mean_norm(make_trainer):
    trainer, norms = make_trainer(*SFT_ALONE), [math.nan, 3.0]
    ranks = trainer.actor_rollout_wg
    made = ranks.answer_update_sft

    def update(data: Any) -> Any:
        output = made(data)
        tu.assign_non_tensor(output, metrics=tu.get(output, "metrics") | {"grad_norm": norms.pop()})
        return output

    ranks.answer_update_sft, ranks.answer_rl_step_factor = update, lambda num_updates: [1.0 + num_updates]
    fill(trainer, "q1", "q2", "q3")
    trainer.loop.rl_ended(1.5)
    metrics = step(trainer)
    assert (metrics["mifo/sft/rl_step_factor"], metrics["mifo/sft/grad_norm_ratio"]) == (2.0, 2.0)


def test_a_stop_inside_a_phase_ends_it_between_two_updates_and_the_next_process_makes_the_rest(make_trainer, tmp_path):
    trainer = make_trainer(*SFT_ALONE, "mifo.sft.batch_size=1")
    fill(trainer, "q1", "q2", "q3")
    trainer.actor_rollout_wg.on_call = lambda name: name == "update_sft" and trainer.stopping.set()
    with pytest.raises(Stopped):
        step(trainer)
    phase = trainer.loop.state.sft
    assert len(phase.updates) == 1 and read_lines(tmp_path / "metrics.jsonl") == []
    trainer.stopping.clear()
    trainer.actor_rollout_wg.on_call, trainer.global_steps = (lambda name: None), 0
    step(trainer)
    assert [line["update"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert trainer.actor_rollout_wg.calls.count("update_sft") == 3 and "enter_sft" in trainer.actor_rollout_wg.calls


@pytest.mark.parametrize(
    ("method", "rates"),
    [
        (SFT_ALONE, [1, 0.975]),  # two updates of the first of 20 steps
        (
            ["method=sft_then_rl", "mifo.schedule.sft_steps=2", "mifo.sft.batch_size=2"],
            [1, 0.75],
        ),  # of the first of 2 steps
    ],
)
def test_sfts_learning_rate_is_spread_over_its_stage_and_the_batch_carries_it(make_trainer, tmp_path, method, rates):
    trainer = make_trainer(*method, "mifo.sft.lr=8.0e-4", "mifo.sft.lr_scheduler_type=linear")
    answer, carried = trainer.actor_rollout_wg.answer_update_sft, []

    def update(data: Any) -> Any:
        carried.append(tu.get(data, SFT_LR))
        return answer(data)

    trainer.actor_rollout_wg.answer_update_sft = update
    fill(trainer, "q1", "q2", "q3")
    step(trainer)
    assert [rate / 8e-4 for rate in carried] == pytest.approx(rates)
    assert [line["lr"] for line in read_lines(tmp_path / "metrics.jsonl")] == carried


def test_a_worker_trains_with_the_batchs_learning_rate():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(2))], lr=1.0)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(3))], "lr": 2.0})
    seen: list[float] = []

    def train(data: Any) -> None:
        seen.extend(group["lr"] for group in optimizer.param_groups)

    worker = SimpleNamespace(
        _engine=SimpleNamespace(set_lr=partial(MifoEngine.set_lr, SimpleNamespace(optimizer=optimizer))),
        _loss=lambda loss: nullcontext(),
        _sft_loss=None,
        actor=SimpleNamespace(train_batch=train),
    )
    MifoWorker.update_sft(worker, tu.get_tensordict({}, {SFT_LR: 3e-4}))
    assert seen == [3e-4, 3e-4]


def test_an_update_that_comes_back_without_a_row_is_an_error(make_trainer):
    trainer = make_trainer(*SFT_ALONE)
    fill(trainer, "q1", "q2")
    answer = trainer.actor_rollout_wg.answer_update_sft

    def lose_a_row(data: Any) -> Any:
        data["row"][0] = -1
        return answer(data)

    trainer.actor_rollout_wg.answer_update_sft = lose_a_row
    with pytest.raises(RuntimeError, match="an SFT update of 2 demonstrations came back with rows"):
        step(trainer)


# ---------------------------------------------------------------------- the budget, skipped updates


def test_the_step_that_spends_the_budget_is_the_last(make_trainer):
    trainer = make_trainer(*SFT_ALONE, "mifo.budget.flops=18001")
    fill(trainer, "q1")
    assert trainer.loop.progress.share == 0
    step(trainer)
    assert trainer.total_training_steps == 20
    assert trainer.loop.progress.share == trainer.budget.share > 1 / 2  # of the budget, and not 1 of 20 steps
    fill(trainer, "q1")
    step(trainer)
    assert trainer.total_training_steps == 2


@pytest.mark.parametrize(("spent", "last"), [(99, 20), (100, 0)])
def test_a_run_that_goes_on_with_its_budget_spent_makes_no_further_step(
    make_trainer, monkeypatch, tmp_path, spent, last
):
    monkeypatch.setattr("mifo_verl.run.journal.RunRecords.rewind", lambda *_: None)
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 0, "flops": {spent}}}\n')
    assert make_trainer("mifo.budget.flops=100").total_training_steps == last


def test_too_many_skipped_updates_in_a_row_end_the_run_after_their_step_is_recorded(make_trainer, tmp_path):
    trainer = make_trainer(*SFT_ALONE, "mifo.watchdog.max_skipped_updates=3")
    fill(trainer, "q1")
    step(trainer, **{f"critic/{MAX_SKIPPED}": 3})
    fill(trainer, "q1")
    with pytest.raises(CannotGoOn, match="the gradients of 4 updates in a row were not finite"):
        step(trainer, **{f"critic/{MAX_SKIPPED}": 4.0})
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 2]


@pytest.mark.parametrize(("given", "found", "refused"), [(0, 0.05, False), (0, 0.06, True), (1, 0.06, False)])
def test_a_rollout_server_with_other_probabilities_ends_the_run_before_its_update(
    make_trainer, monkeypatch, given, found, refused
):
    difference = {"training/rollout_probs_diff_mean": found}
    monkeypatch.setattr(
        PPOTrainerSync, "_compute_old_log_prob", lambda self, batch, metrics: metrics.update(difference) or batch
    )
    trainer, batch, metrics = make_trainer(), no_rollouts(), {}
    trainer.rollout_probe.has_start = False
    trainer.loop.members = {"a": given} if given else {}  # given tokens were drawn by nobody
    if refused:
        with pytest.raises(CannotGoOn, match=r"by 0.06 on average \(mifo.watchdog.max_rollout_difference=0.05\)"):
            trainer._compute_old_log_prob(batch, metrics)
    else:
        assert trainer._compute_old_log_prob(batch, metrics) is batch


# ---------------------------------------------------------------------- the start and the end


def test_the_kl_coefficient_that_verl_adapts_is_part_of_the_state(make_trainer):
    trainer = make_trainer("algorithm.use_kl_in_reward=true")
    trainer.kl_ctrl_in_reward.value = 0.0123
    trainer.on_step_begin()
    assert trainer.loop.state.kl_in_reward == 0.0123
    assert make_trainer().loop.state.kl_in_reward is None


def sampled(trainer: Any, monkeypatch: Any, entropies: list[float]) -> list[tuple[float, Any]]:
    """RL steps whose rollouts have these entropies: the temperature that verl computes at, and the rollouts' column."""
    seen = []
    rows = {"raw_prompt": [[{"role": "user", "content": "1+1"}]], "prompt": [[]], "prompt_id": ["a"]}
    fetched = lambda self: tu.get_tensordict({name: list(values) for name, values in rows.items()})  # noqa: E731
    monkeypatch.setattr(PPOTrainer, "_fetch_one_gen_batch", fetched)

    def rl_step(self: Any, metrics: dict[str, Any], timing_raw: Any) -> KVBatchMeta:
        batch = self._fetch_one_gen_batch()
        column = list(batch[SAMPLING]) if SAMPLING in batch.keys() else None
        seen.append((self.config.actor_rollout_ref.rollout.temperature, column))
        metrics["mifo/rl/entropy"] = entropies[len(seen) - 1]
        return no_rollouts()

    monkeypatch.setattr(PPOTrainerSync, "step", rl_step)
    for _ in entropies:
        step(trainer)
    return seen


def test_rollouts_are_sampled_at_the_stages_length_and_at_the_temperature_that_their_entropy_has_moved(
    make_trainer, monkeypatch, tmp_path
):
    by_entropy = ["method=rl_only", "mifo/sampling=by_entropy", "mifo.sampling.gain=0.1"]
    trainer = make_trainer(*by_entropy, "mifo.sampling.lengths=[16,48]")
    first, second, third = sampled(trainer, monkeypatch, [0.15, 3.0, 0.3])
    assert first == (1.0, [{"max_tokens": 16}])
    hotter = math.exp(0.1 * 0.5)  # half of the target
    assert second == (pytest.approx(hotter), [{"temperature": second[0], "max_tokens": 16}])
    assert third[0] == pytest.approx(hotter * math.exp(-0.1))  # the step down is the gain at most
    trainer.loop.state.save(tmp_path)
    goes_on = LoopState.load(tmp_path)
    assert goes_on.temperature == trainer.loop.state.temperature == third[0]  # at the target it stays, to the bit
    resumed = make_trainer(*by_entropy)
    resumed.loop.state.temperature = goes_on.temperature
    assert sampled(resumed, monkeypatch, [0.3]) == [(third[0], [{"temperature": third[0]}])]


def test_by_default_neither_the_columns_of_a_batch_nor_the_runs_temperature_are_touched(make_trainer, monkeypatch):
    trainer = make_trainer("method=rl_only", "actor_rollout_ref.rollout.temperature=0.7")
    assert sampled(trainer, monkeypatch, [0.1, 2.0]) == [(0.7, None)] * 2
    assert trainer.loop.state.temperature is None


def test_a_validation_is_made_once_for_the_same_weights(make_trainer, monkeypatch):
    made = []
    monkeypatch.setattr(PPOTrainer, "_validate", lambda self: made.append(1) or {"val-core/a/acc/mean@1": 0.5})
    monkeypatch.setattr(PPOTrainerSync, "_update_actor", lambda self, batch, metrics: batch)
    trainer = make_trainer()
    for _ in range(2):
        trainer._validate()
    assert made == [1]
    trainer._update_actor(KVBatchMeta(partition_id="train", keys=[], tags=[]), {})
    trainer._validate()
    assert made == [1, 1]


@pytest.mark.parametrize("validates_start", [False, True])
def test_the_end_is_validated_digested_and_written_while_it_is_watched(
    make_trainer, monkeypatch, tmp_path, validates_start
):
    def fit(self: Any, _: Any) -> None:
        if validates_start:
            self._validate()
        self._init_dump_executor()
        self.loop.state.step, self._validation = 10, None
        self.global_steps = 11  # verl's count after the tenth step
        self._shutdown_dump_executor()

    def validate(self: Any) -> dict[str, float]:
        if self.global_steps:
            self._dump_executor.submit(
                int
            ).result()  # it can write its answers though verl's loop has closed the writer
        return {"val-core/a/acc/mean@1": self.global_steps / 100}

    monkeypatch.setattr(PPOTrainer, "_validate", validate)
    monkeypatch.setattr(PPOTrainerSync, "fit", fit)
    trainer, seen = make_trainer(), []
    trainer.actor_rollout_wg.on_call = lambda name: seen.append((name, stage_of(trainer)))
    trainer.fit(None)
    assert ("weights_sha256", "the end") in seen
    start, end = {"a": 0.0, "mean": 0.0}, {"a": 0.11, "mean": 0.11}
    lines = [{"step": 0, "accuracy": start}] * validates_start + [{"step": 10, "accuracy": end}]
    assert read_lines(tmp_path / "validation.jsonl") == lines
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["accuracy_start"], summary["accuracy_end"]) == (start if validates_start else {}, end)
    assert summary["num_weights"] == 1000


def fit_ends(monkeypatch: Any, error: Exception) -> None:
    def fit(self: Any, _: Any) -> None:
        raise error

    monkeypatch.setattr(PPOTrainerSync, "fit", fit)


def lose_an_actor(trainer: Any, monkeypatch: Any) -> None:
    def require_alive() -> None:
        raise CannotGoOn(str(Lost("rollout server 0 has died")))

    monkeypatch.setattr(trainer.watchdog, "require_alive", require_alive)


def test_an_error_that_comes_of_a_lost_actor_is_told_as_its_loss(make_trainer, monkeypatch):
    fit_ends(monkeypatch, ValueError("Received an empty list as keys."))
    with pytest.raises(ValueError, match="empty list"):
        make_trainer().fit(None)
    trainer = make_trainer()
    lose_an_actor(trainer, monkeypatch)
    with pytest.raises(CannotGoOn, match="rollout server 0 has died"):
        trainer.fit(None)


def test_a_run_that_was_asked_to_stop_has_lost_nobody(make_trainer, monkeypatch):
    fit_ends(monkeypatch, Stopped())
    trainer = make_trainer()
    lose_an_actor(trainer, monkeypatch)
    with pytest.raises(Stopped):
        trainer.fit(None)


def test_rollout_answers_are_dumped_only_of_a_step_that_made_some(make_trainer, monkeypatch):
    dumped = []
    monkeypatch.setattr(PPOTrainer, "_log_rollout_data", lambda self, *_: dumped.append(1))
    trainer = make_trainer()
    trainer._log_rollout_data(no_rollouts(), {}, "folder")
    assert dumped == []
    trainer._log_rollout_data(KVBatchMeta(partition_id="train", keys=["t0_0_0"], tags=[{}]), {}, "folder")
    assert dumped == [1]
