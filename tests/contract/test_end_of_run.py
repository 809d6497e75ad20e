"""What the trainer does after verl's loop has ended."""

import inspect
import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from mifo_verl.run.journal import RunRecords, read_lines
from mifo_verl.verl.trainer import MifoTrainer


def test_the_validation_at_the_end_can_write_its_answers_after_the_loop_has_closed_the_writer(monkeypatch):
    assert "self._shutdown_dump_executor()" in inspect.getsource(PPOTrainer.fit)
    written = []
    trainer = object.__new__(MifoTrainer)
    trainer._validation = trainer._accuracy_start = None
    trainer._init_dump_executor()
    trainer._shutdown_dump_executor()
    monkeypatch.setattr(MifoTrainer, "_validate", lambda self: self._dump_executor.submit(written.append, 1).result())
    trainer._validate_at_end()
    assert written == [1]
    with pytest.raises(RuntimeError, match="after shutdown"):
        trainer._validate()


@pytest.mark.parametrize("validates_start", [False, True])
def test_a_run_without_a_validation_before_its_first_step_has_no_start(monkeypatch, tmp_path, validates_start):
    monkeypatch.setattr(PPOTrainer, "_validate", lambda self: {"val-core/a/acc/mean@1": self.global_steps / 100})
    trainer = object.__new__(MifoTrainer)
    trainer.watchdog = SimpleNamespace(begins=lambda _: None, stage=lambda *_: nullcontext())
    trainer.records, trainer._seconds_before, trainer._accuracy_start = RunRecords(tmp_path), 0.0, {}
    trainer.spending = SimpleNamespace(rl=SimpleNamespace(num_weights=7))
    trainer.actor_rollout_wg = SimpleNamespace(weights_sha256=lambda: ["ab"])
    if validates_start:
        trainer.global_steps = 0
        trainer._validate()
    trainer.global_steps, trainer._validation = 11, None  # verl's count after the tenth step
    trainer._write_end()
    start, end = {"a": 0.0, "mean": 0.0}, {"a": 0.11, "mean": 0.11}
    lines = [{"step": 0, "accuracy": start}] * validates_start + [{"step": 10, "accuracy": end}]
    assert read_lines(tmp_path / "validation.jsonl") == lines
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["accuracy_start"], summary["accuracy_end"]) == (start if validates_start else {}, end)
