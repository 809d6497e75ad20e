"""The interval state survives a checkpoint: buffer with provenance, theta_start, history, separate optimizer."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from mifo_verl.bridge.checkpoint import load_controller, save_controller
from mifo_verl.types import BufferEntry, PromptGroup, SftExample
from tests.integration.engine_ranks import examples, full, make_engine, run_on_ranks, update

SEPARATE = {"mifo.sft.optimizer": "separate", "mifo.sft.lr": 1e-3}


def test_the_buffer_comes_back_with_its_provenance_and_order(tmp_path):
    hard = BufferEntry(PromptGroup("q2", 1, 8, 5), SftExample("q2", (1, 2), (3,), "a" * 64))
    unrolled = BufferEntry(None, SftExample("q1", (4,), (5, 6), "b" * 64))
    save_controller(tmp_path, {"interval": 3, "rl_steps": 2, "drawn": 48}, [hard, unrolled], {"mean": 0.25})
    counts = {"interval": 3, "rl_steps": 2, "drawn": 48}
    assert load_controller(tmp_path) == (counts, [hard, unrolled], {"mean": 0.25})


def test_another_format_is_refused_by_name(tmp_path):
    (tmp_path / "controller.json").write_text('{"format": 0}')
    with pytest.raises(ValueError, match="has format 0, and this version reads format 1"):
        load_controller(tmp_path)


def _state(engine: Any) -> list[list[torch.Tensor]]:
    states = [state for _, _, state in engine.interval.model.optimizer_state(engine._separate)]
    return [full(engine.interval.start), full(engine.interval.history), full(states)]


def _save_and_load(folder: str) -> dict[str, Any]:
    engine = make_engine(SEPARATE)
    engine.begin_interval()
    update(engine, examples(4))
    engine.begin_sft(interval=1)
    update(engine, examples(4))
    engine.end_sft()
    engine.save_interval(Path(folder))
    saved = _state(engine)
    other = make_engine(SEPARATE)
    other.load_interval(Path(folder))
    loaded = _state(other)
    error = ""
    if dist.get_world_size() == 2:
        (Path(folder) / f"rank_{dist.get_rank()}_of_2.safetensors").unlink()
        try:
            other.load_interval(Path(folder))
        except ValueError as refusal:
            error = str(refusal)
    steps = {float(state["step"]) for state in other._separate.state.values()}
    return {"saved": saved, "loaded": loaded, "error": error, "steps": steps}


def test_start_history_and_separate_optimizer_come_back_bit_identical_on_two_ranks(tmp_path):
    (run,) = run_on_ranks(_save_and_load, 2, [(str(tmp_path),)])
    for saved, loaded in zip(run["saved"], run["loaded"], strict=True):
        assert len(saved) == len(loaded) > 0
        assert all(torch.equal(one, two) for one, two in zip(saved, loaded, strict=True))
    assert any(float(history.abs().max()) > 0 for history in run["saved"][1])
    assert run["steps"] == {1.0}
    assert "the checkpoint is of another number of ranks than 2" in run["error"]
