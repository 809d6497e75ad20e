"""Rollouts to read: which are kept, what a tracker's table holds, and the rows that every run is validated on."""

from types import SimpleNamespace

import torch
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter
from transfer_queue import KVBatchMeta
from transformers import AutoTokenizer
from verl.trainer.ppo.utils import create_rl_dataset

from mifo_verl.compose import compose_config
from mifo_verl.data.parquet import write_rows
from mifo_verl.loop.events import RolloutSeen, StepEnded, UpdateMade
from mifo_verl.run.journal import RunRecords, read_lines
from mifo_verl.tools.prepare.addition import rows
from mifo_verl.types import PromptGroup
from mifo_verl.verl import samples
from mifo_verl.verl.build import keep_validation
from mifo_verl.verl.records import accuracy_by_source, tracked
from tests.contract.test_demonstrations import Characters

KEYS = [f"t{uid:010d}_{session}_0" for uid in range(3) for session in range(2)]


def asked_of(monkeypatch, number):
    """The rollouts kept of three questions: 1 of 2 right, none, both."""
    asked = []

    def get(keys, partition_id, select_fields):
        asked.extend(keys)
        ids = [torch.tensor([ord(c) for c in key]) for key in keys]
        return {
            "prompts": torch.nested.nested_tensor(ids),
            "responses": torch.nested.nested_tensor(ids),
            "reward_model": [{"ground_truth": "7"}] * len(keys),
            "extra_fields": [{"reward_extra_info": {"acc": key[10] == "2", "method": "value"}} for key in keys],
        }

    monkeypatch.setattr(samples.tq, "kv_batch_get", get)
    groups = {f"t{uid:010d}": PromptGroup(f"q{uid}", right, 2, 4) for uid, right in enumerate((1, 0, 2))}
    loop = SimpleNamespace(groups=groups, ended=None, state=SimpleNamespace(step=3, interval=2))
    batch = KVBatchMeta(partition_id="train", keys=KEYS, tags=[{}] * len(KEYS))
    return samples.sampled(batch, loop, Characters(), number), asked


def test_the_questions_go_from_the_worst_answered_to_the_best(monkeypatch):
    found, asked = asked_of(monkeypatch, 2)
    assert [(one.prompt_id, one.correct, one.num_correct) for one in found] == [("q1", False, 0), ("q2", True, 2)]
    assert asked == ["t0000000001_0_0", "t0000000002_0_0"] and found[0].text == "t0000000001_0_0"
    assert (found[0].step, found[0].interval, found[0].answer, found[0].method) == (4, 2, "7", "value")
    assert [one.prompt_id for one in asked_of(monkeypatch, 9)[0]] == ["q1", "q0", "q2"]
    assert asked_of(monkeypatch, 0) == ([], [])


def events(step=4):
    seen = RolloutSeen(
        step=step,
        interval=1,
        prompt_id="q1",
        prompt="1+1?",
        text="a|b",
        answer="2",
        correct=True,
        method="value",
        num_correct=1,
        num_rollouts=2,
    )
    example = {"prompt_id": "q2", "prompt": "2+2?", "tokens": ["so", " ", "4", "."], "kept": [0, 1, 1, 0]}
    counts = dict.fromkeys(("entropy", "kept_share", "frozen_share", "loss", "grad_norm"), 0.5)
    counts |= dict.fromkeys(("demonstrations", "prompt_tokens", "response_tokens", "kept_tokens", "flops"), 2)
    update = UpdateMade(
        step=step,
        interval=1,
        update=1,
        buffer_size=2,
        ledger_sha256="ab",
        inspection={"mask": None, "tokens": {"examples": [example]}},
        accuracy_before={"a": 0.25, "mean": 0.25},
        hard_accuracy_after=0.5,
        **counts,
    )
    return seen, update


def test_a_table_has_the_verdicts_and_the_tokens_in_the_loss(tmp_path):
    table = samples.table_rows(events())
    assert table == [
        (4, "rollout", "q1", "1+1?", "a|b", "2", "correct", None),
        (4, "demonstration", "q2", "2+2?", "so« 4».", "", "", 2),
    ]
    logged = {}
    board = SimpleNamespace(writer=SummaryWriter(str(tmp_path)))
    of_wandb = SimpleNamespace(Table=wandb.Table, log=lambda data, step: logged.update(data, step=step))
    samples.log_table({"console": None, "tensorboard": board, "wandb": of_wandb}, table, step=4)
    board.writer.close()
    assert (logged["step"], len(logged["mifo/samples"].data)) == (4, 2)
    assert logged["mifo/samples"].columns == list(samples.COLUMNS)
    accumulator = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    (text,) = accumulator.Tensors("mifo/samples/text_summary")
    assert r"a\|b" in text.tensor_proto.string_val[0].decode()


def test_trackers_get_every_number_of_a_record():
    found = tracked(events()[1])
    assert found["mifo/sft/accuracy_before/mean"] == 0.25 and found["mifo/sft/hard_accuracy_after"] == 0.5
    assert found["mifo/sft/kept_tokens"] == 2 and "mifo/sft/ledger_sha256" not in found
    step = dict.fromkeys(("accuracy", "reward", "entropy", "kl_to_start", "loss", "grad_norm", "response_length"), 0.5)
    step |= dict.fromkeys(("kl_tokens", "rollouts", "prompt_tokens", "response_tokens", "discarded_rollouts"), 1)
    step |= dict.fromkeys(("generated_tokens", "flops", "buffer_size"), 1)
    record = StepEnded(
        step=1,
        interval=1,
        rejected_demonstrations={"wrong": 3},
        prompts=[["a", 0, 8], ["b", 8, 8], ["c", 4, 8], ["d", 8, 8]],
        memory_gb={"host_used": None},
        seconds={"rollout": 2.0},
        **step,
    )
    found = tracked(record)
    assert (found["mifo/rl/prompts_unsolved"], found["mifo/rl/prompts_solved"]) == (1, 2)
    assert found["mifo/rl/rejected_demonstrations/wrong"] == 3 and found["mifo/rl/seconds/rollout"] == 2.0
    numbers = {name for name, value in record.line().items() if isinstance(value, int | float)} - {"step", "update"}
    assert {f"mifo/rl/{name}" for name in numbers} <= found.keys()


def test_every_run_is_validated_on_the_same_rows(tmp_path):
    write_rows(rows({1: 40, 2: 40}, "validation", seed=0), tmp_path / "v.parquet")
    chosen = []
    for seed in (1, 2):
        given = [f"data.val_files={tmp_path}/v.parquet", "data.val_max_samples=5", "data.shuffle=true", f"seed={seed}"]
        config = compose_config(["experiment=quickstart", *given]).node
        tokenizer = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path)
        dataset = create_rl_dataset(config.data.val_files, config.data, tokenizer, None, False, max_samples=5)
        drawn = [row["prompt_id"] for row in dataset.dataframe]
        trainer = SimpleNamespace(config=config, val_dataset=dataset, tokenizer=tokenizer, processor=None)
        keep_validation(trainer)
        chosen.append((drawn, [row["prompt_id"] for row in trainer.val_dataset.dataframe]))
    assert chosen[0][0] != chosen[1][0] and chosen[0][1] == chosen[1][1] and len(chosen[0][1]) == 5


def test_the_mean_is_over_the_data_sources_and_each_weighs_the_same():
    metrics = {"val-core/a/acc/mean@4": 0.5, "val-core/b/c/acc/mean@4": 1.0, "val-aux/d/acc/mean@4": 0.0}
    metrics["val-core/a/acc/best@4/mean"] = 0.75
    assert accuracy_by_source(metrics) == {"a": 0.5, "b/c": 1.0, "mean": 0.75} and accuracy_by_source({}) == {}


def test_samples_are_lines_of_their_own(tmp_path):
    records = RunRecords(tmp_path)
    for step in (1, 2):
        records(events(step)[0])
    records.rewind(1)
    assert [line["step"] for line in read_lines(tmp_path / "samples.jsonl")] == [1]
