"""What the trainer does after verl's loop has ended."""

import inspect

import pytest
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from mifo_verl.bridge.trainer import MifoTrainer


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
