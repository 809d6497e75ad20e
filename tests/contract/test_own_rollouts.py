"""Own rollouts of an interval, from the transfer queue to the records of the SFT phase that takes them."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from mifo_verl.loop.own_rollouts import OwnRollout
from mifo_verl.loop.state import LoopState
from mifo_verl.run.journal import read_lines
from mifo_verl.types import SftExample
from mifo_verl.verl import replay
from mifo_verl.verl.records import sft_metrics
from mifo_verl.verl.rl_loss import PREFIX
from mifo_verl.verl.sft_step import ROWS
from mifo_verl.verl.staging import RL_WEIGHT, SFT_WEIGHT, Taken
from mifo_verl.verl.worker import MifoWorker
from tests.contract.test_trainer import fill

HELD = ["method=interleave", "mifo/constraint=kl_rollouts", "mifo.constraint.strength=2.5", "mifo.sft.batch_size=1"]
HELD += ["mifo.schedule.size=1", "buffer_size=1"]


def nested(rows: list[list[int]]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


class Queue:
    """TransferQueue with three trajectories of one prompt: right, wrong, and right with a tool's tokens in it."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], list[str]]] = []
        self.correct = {"t0000000000_0_0": 1, "t0000000000_1_0": 0, "t0000000000_2_0": 1}

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, Any]:
        self.asked.append((keys, select_fields))
        places = [int(key.split("_")[1]) for key in keys]
        return {
            "prompts": nested([[5, 6]] * len(keys)),
            "responses": nested([[7, place] for place in places]),
            "response_mask": nested([[1, int(place != 2)] for place in places]),
            "extra_fields": [{"reward_extra_info": {"acc": self.correct[key]}, PREFIX: 0} for key in keys],
        }


def test_the_tokens_of_what_is_kept_are_read_and_of_nothing_else(make_trainer, monkeypatch):
    queue = Queue()
    monkeypatch.setattr(replay, "tq", SimpleNamespace(kv_batch_get=queue.kv_batch_get, kv_put=lambda **_: None))
    batch = KVBatchMeta(partition_id="train", keys=list(queue.correct), tags=[{}] * 3)
    plain, trainer = make_trainer("method=interleave"), make_trainer(*HELD, "actor_rollout_ref.rollout.n=3")
    for one in (plain, trainer):
        one.loop.begin_step()
        one.loop.draw([("q", {})])
        one.replay_buffer.on_evict(batch)
    (kept,) = trainer.loop.state.own_rollouts  # the tool's is right, and not the policy's own
    assert kept.example == SftExample("q", (5, 6), (7, 0), "", "rollout") and plain.loop.state.own_rollouts == []
    counted = (list(queue.correct), ["prompts", "extra_fields"])
    chosen = ["t0000000000_0_0", "t0000000000_2_0"]
    assert queue.asked[:2] == [counted, counted]
    assert [(sorted(keys), fields) for keys, fields in queue.asked[2:]] == [
        (chosen, ["prompts", "responses", "response_mask"])
    ]


def keep(trainer: Any, *tokens: int) -> None:
    trainer.loop.state.rl_steps = 1
    trainer.loop.state.own_rollouts = [OwnRollout(n, SftExample("q", (1,), (n, n), "")) for n in tokens]
    ranks = trainer.actor_rollout_wg
    ranks.staged = []
    ranks.answer_stage_sft = ranks.staged.append
    ranks.answer_take_staged = lambda: [[Taken(0.25, {ROWS: [(0, 2, 0.0)]})]]
    ranks.answer_log_probs = lambda data: tu.get_tensordict(
        {}, {"metrics": {ROWS: [[(row, [-0.5, -1.5]) for row in data["row"].tolist() if row >= 0]]}}
    )


def responses(batches: list[Any]) -> list[list[int]]:
    return [row.tolist() for batch in batches for row in batch["responses"].unbind()]


def phase(trainer: Any) -> None:
    """An SFT phase, at the end of a step whose rollouts are over."""
    trainer.sft.begin({})
    trainer.sft.run(trainer.stopping.is_set, {})


def test_every_update_takes_its_turn_at_them_at_the_parts_weight_and_is_recorded(make_trainer):
    trainer = make_trainer(*HELD)
    keep(trainer, 3, 4)
    fill(trainer, "q1", "q2", "q3")
    phase(trainer)
    ranks = trainer.actor_rollout_wg
    assert responses(ranks.staged) == [[3, 3], [4, 4], [3, 3]]
    assert [tu.get(batch, SFT_WEIGHT) for batch in ranks.staged] == [2.5] * 3
    assert all(batch["teacher_log_prob"].values().tolist() == [-0.5, -1.5] for batch in ranks.staged)
    order = [call for call in ranks.calls if call in ("log_probs", "stage_sft", "update_sft", "take_staged")]
    assert order == ["log_probs", *["stage_sft", "update_sft", "take_staged"] * 3]
    for update in trainer.loop.ended.updates:
        assert update.line()["own"] == {"rollouts": 1, "tokens": 2, "loss": 0.25}
        # three tokens of a demonstration, 6 operations each, and three of a rollout with a pass before: 8 each
        assert update.flops == 1000 * (3 * 6 + 3 * 8)


def test_an_interval_without_correct_rollouts_trains_without_and_says_so(make_trainer, tmp_path):
    trainer = make_trainer(*HELD)
    keep(trainer)
    fill(trainer, "q1")
    phase(trainer)
    assert trainer.actor_rollout_wg.staged == [] and "log_probs" not in trainer.actor_rollout_wg.calls
    assert "own" not in trainer.loop.ended.updates[0].line()
    (said,) = [line["text"] for line in read_lines(tmp_path / "events.jsonl") if line["kind"] == "own_rollouts"]
    assert said.startswith("interval 1: no correct rollout of its own is there")


@pytest.mark.parametrize("strength", [0, 2.5])
def test_a_strength_of_0_keeps_stages_and_measures_nothing(make_trainer, strength):
    trainer = make_trainer(*HELD, f"mifo.constraint.strength={strength}")
    keep(trainer, 3)
    fill(trainer, "q1")
    phase(trainer)
    asked = {"log_probs", "stage_sft", "take_staged"} & set(trainer.actor_rollout_wg.calls)
    assert bool(asked) == bool(strength) == trainer.mifo.keeps_own_rollouts


def test_a_phase_that_is_stopped_goes_on_with_the_log_probs_of_its_begin(make_trainer, tmp_path):
    trainer = make_trainer(*HELD)
    keep(trainer, 3, 4)
    fill(trainer, "q1", "q2", "q3")
    trainer.actor_rollout_wg.on_call = lambda name: name == "update_sft" and trainer.stopping.set()
    trainer.sft.begin({})
    trainer.sft.run(trainer.stopping.is_set, {})
    trainer.loop.state.save(tmp_path)
    saved = LoopState.load(tmp_path)
    assert saved == trainer.loop.state and len(saved.sft.updates) == 1
    resumed = make_trainer(*HELD)
    keep(resumed)
    resumed.loop.state.sft = saved.sft
    resumed.sft.run(lambda: False, {})
    ranks = resumed.actor_rollout_wg
    assert responses(ranks.staged) == [[4, 4], [3, 3]] and "log_probs" not in ranks.calls
    assert all(batch["teacher_log_prob"].values().tolist() == [-0.5, -1.5] for batch in ranks.staged)


BUDGET = ["method=interleave", "mifo.sft.max_kl=0.05", "mifo.sft.batch_size=1", "buffer_size=1"]


def moving(trainer: Any, *log_probs: float) -> None:
    """The policy's log p of every own token: before the phase, and after each update."""
    keep(trainer, 3, 4)
    left = list(log_probs)

    def answer(data: Any) -> Any:
        now = left.pop(0)
        rows = [(row, [now, now]) for row in data["row"].tolist() if row >= 0]
        return tu.get_tensordict({}, {"metrics": {ROWS: [rows]}})

    trainer.actor_rollout_wg.answer_log_probs = answer


def kl_of(change: float) -> float:
    """r - 1 - log r of a log-prob that has changed by this much."""
    return math.exp(change) - 1 - change


def test_the_update_that_passes_max_kl_is_the_phases_last(make_trainer, tmp_path):
    trainer = make_trainer(*BUDGET)
    moving(trainer, -1.0, -1.2, -1.4)  # KL 0.0187 and 0.0703 behind the first and the second update
    fill(trainer, "q1", "q2", "q3", "q4")
    order = []
    trainer.actor_rollout_wg.on_call = order.append
    phase(trainer)
    updates = trainer.loop.ended.updates
    assert [update.own_kl for update in updates] == pytest.approx([kl_of(-0.2), kl_of(-0.4)], rel=1e-5)
    assert "updates_left" not in updates[0].line() and updates[1].updates_left == 2
    assert trainer.actor_rollout_wg.staged == []  # a budget alone is no loss
    assert [call for call in order if call in ("log_probs", "update_sft")] == [
        "log_probs",
        *["update_sft", "log_probs"] * 2,
    ]
    # 18 operations a weight for the three tokens of a demonstration, 2 for each of the six of two rollouts
    assert {update.flops for update in updates} == {1000 * (18 + 12)}
    (said,) = [line["text"] for line in read_lines(tmp_path / "events.jsonl") if line["kind"] == "max_kl"]
    assert said == (
        "interval 1: KL 0.0703 to the policy before the SFT phase after update 2, above mifo.sft.max_kl=0.05: "
        "updates not made 2, demonstrations back in the buffer 2"
    )


def test_what_a_phase_that_ended_early_has_not_used_is_the_oldest_of_the_buffer(make_trainer):
    trainer = make_trainer(*BUDGET)
    moving(trainer, -1.0, -1.2, -1.4)
    fill(trainer, "q1", "q2", "q3", "q4")
    trainer.sft.begin({})
    planned = [entry.example.prompt_id for (entry,) in trainer.loop.batches()]
    trainer.sft.run(lambda: False, {})
    loop = trainer.loop
    assert [line.prompt_id for line in loop.ended.ledger] == planned[:2]
    left = [entry.example.prompt_id for entry in loop.state.buffer]
    assert left == [name for name in ("q1", "q2", "q3", "q4") if name in planned[2:]]  # in the order of the buffer
    assert sft_metrics(loop.ended)["mifo/sft/demonstrations"] == 2
    fill(trainer, "q5")
    assert [entry.example.prompt_id for entry in loop.oldest()] == [*left, "q5"]


@pytest.mark.parametrize(("max_kl", "updates"), [("null", 4), (0.2, 4), (0.01, 1)])
def test_a_phase_within_its_budget_makes_every_update(make_trainer, max_kl, updates):
    trainer = make_trainer(*BUDGET, f"mifo.sft.max_kl={max_kl}")
    moving(trainer, -1.0, -1.2, -1.2, -1.2, -1.2)
    fill(trainer, "q1", "q2", "q3", "q4")
    phase(trainer)
    made = trainer.loop.ended.updates
    assert len(made) == updates and len(trainer.loop.state.buffer) == 4 - updates
    assert ("log_probs" in trainer.actor_rollout_wg.calls) == ("own_kl" in made[0].line()) == (max_kl != "null")


def test_a_phase_that_was_stopped_over_its_budget_makes_no_update_more(make_trainer, tmp_path):
    trainer = make_trainer(*BUDGET)
    moving(trainer, -1.0, -1.9)
    fill(trainer, "q1", "q2")
    trainer.sft.begin({})
    stops = iter([False, True])
    trainer.actor_rollout_wg.on_call = lambda name: None
    trainer.sft.run(lambda: next(stops), {})
    # over its budget it has ended, whoever asked for a stop
    assert trainer.loop.state.sft is None and len(trainer.loop.ended.updates) == 1
    phase_as_saved = replace(trainer.loop.ended, updates=trainer.loop.ended.updates[:1])
    resumed = make_trainer(*BUDGET)
    keep(resumed)
    resumed.loop.state.sft = phase_as_saved
    resumed.sft.run(lambda: False, {})
    assert "update_sft" not in resumed.actor_rollout_wg.calls and len(resumed.loop.state.buffer) == 1


def test_a_worker_stages_each_batch_with_its_own_loss():
    staged: list[Any] = []
    engine = SimpleNamespace(stage_sft=lambda data, loss: staged.append(loss))
    worker = SimpleNamespace(_engine=engine, _own_loss="own", _sft_loss="sft")
    for facts in ({"mifo_compared": ""}, {"mifo_compared": "kl_from_before"}, {RL_WEIGHT: 1.0}):
        MifoWorker.stage_sft(worker, tu.get_tensordict({}, facts))
    assert staged == ["own", "own", "sft"]
