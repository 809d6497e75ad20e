"""What a rank keeps of an interval survives a checkpoint: theta_start, history, mask, separate optimizer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.integration.engine_ranks import examples, full, make_engine, run_on_ranks, update

SEPARATE = {"mifo.sft.optimizer": "separate", "mifo.sft.lr": 1e-3}


def _state(engine: Any) -> list[list[torch.Tensor]]:
    states = [state for _, _, state in engine.interval.model.optimizer_state(engine._sft_optimizer)]
    return [full(engine.interval.start), full(engine.interval.constraint.history), full(states)]


def _save_and_load(folder: str) -> dict[str, Any]:
    engine = make_engine(SEPARATE)
    engine.interval.begin()
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
    steps = {float(state["step"]) for state in other._sft_optimizer.state.values()}
    return {"saved": saved, "loaded": loaded, "error": error, "steps": steps}


def test_start_history_and_separate_optimizer_come_back_bit_identical_on_two_ranks(tmp_path):
    (run,) = run_on_ranks(_save_and_load, 2, [(str(tmp_path),)])
    for saved, loaded in zip(run["saved"], run["loaded"], strict=True):
        assert len(saved) == len(loaded) > 0
        assert all(torch.equal(one, two) for one, two in zip(saved, loaded, strict=True))
    assert any(float(history.abs().max()) > 0 for history in run["saved"][1])
    assert run["steps"] == {1.0}
    assert "the checkpoint is of another number of ranks than 2" in run["error"]


def _start_across_resumes(folder: str) -> list[bool]:
    """Whether theta_start is there: where nothing needs it, after a resume that needs it, and one interval later."""
    off: dict[str, Any] = {"mifo.constraint": {"name": "none"}, "mifo.inspect.mask": False, "mifo.probe.rollouts": 0}
    measured, unmeasured = off | {"mifo.probe.kl_to_start": True}, off | {"mifo.probe.kl_to_start": False}
    engine = make_engine(measured)
    engine.interval.begin()
    engine.save_interval(Path(folder))
    found = []
    for settings in (unmeasured, measured):
        engine = make_engine(settings)
        engine.load_interval(Path(folder))
        found.append(engine.interval.start is not None)
        engine.save_interval(Path(folder))
    engine.interval.begin()
    return [*found, engine.interval.start is not None]


def test_a_start_that_nothing_needs_is_not_carried_into_a_later_interval(tmp_path):
    assert run_on_ranks(_start_across_resumes, 1, [(str(tmp_path),)]) == [[False, False, True]]


def _everything(engine: Any) -> list[torch.Tensor]:
    """Weights and the RL optimizer's moments."""
    moments = [state for _, _, state in engine.interval.model.optimizer_state(engine.optimizer)]
    return full([*engine.interval.model.weights(), *moments])


def _inspected_to_the_end(engine: Any) -> tuple[Any, float | None, list[torch.Tensor]]:
    """The rest of an SFT phase and the next interval: what was counted of both, drift and weights of the first."""
    engine.enter_sft()
    update(engine, examples(3))
    tables, drift = [engine.interval.inspect_sft()], engine.end_sft()
    held = full(engine.interval.model.weights())
    engine.interval.begin()
    update(engine, examples(4))
    engine.begin_sft(interval=2)
    tables.append(engine.interval.inspect_sft())
    engine.end_sft()
    return tables, drift, held


def _stop_inside_an_sft_phase(folder: str, optimizer: str, history: str) -> dict[str, Any]:
    settings = {"mifo.sft.optimizer": optimizer, "mifo.sft.lr": 1e-3, "mifo.constraint.history": history}
    settings["actor_rollout_ref.actor.optim.weight_decay"] = 0.1
    engine = make_engine(settings)
    engine.interval.begin()
    update(engine, examples(4))
    at_start = full(engine.interval.model.weights())
    engine.begin_sft(interval=1)
    mask = full(engine.interval.constraint.frozen)
    update(engine, examples(2))
    engine.leave_sft()
    engine.save_checkpoint(f"{folder}/actor")
    engine.save_interval(Path(folder))
    tables, drift, _ = _inspected_to_the_end(engine)

    other = make_engine(settings)
    other.load_checkpoint(f"{folder}/actor", del_local_after_load=False)
    other.load_interval(Path(folder))
    resumed_tables, resumed_drift, held = _inspected_to_the_end(other)
    return {
        "tables": (tables, resumed_tables),
        "uncut": _everything(engine),
        "resumed": _everything(other),
        "drifts": (drift, resumed_drift),
        "moved": [(end != start)[frozen].any() for start, end, frozen in zip(at_start, held, mask, strict=True)],
        "trained": [(end != start)[~frozen].any() for start, end, frozen in zip(at_start, held, mask, strict=True)],
        "lrs": [group["lr"] for group in other.optimizer.param_groups],
    }


def test_a_stop_inside_an_sft_phase_changes_no_bit_and_frozen_coordinates_stay(tmp_path):
    optimizers = ("shared", "separate", "fresh")
    runs = run_on_ranks(
        _stop_inside_an_sft_phase, 2, [(str(tmp_path / name), name, str(i / 4)) for i, name in enumerate(optimizers)]
    )
    for run in runs:
        assert run["tables"][0] == run["tables"][1]
        first, second = (table["by_layer"] for table in run["tables"][1])
        assert sum(first["both_moved"]) > 0 and sum(second["previous"]) == sum(first["frozen"]) > 0
        assert len(run["uncut"]) == len(run["resumed"])
        assert all(torch.equal(one, two) for one, two in zip(run["uncut"], run["resumed"], strict=True))
        assert run["drifts"] == (0.0, 0.0)
        assert not any(run["moved"]) and any(run["trained"])
        assert run["lrs"] == [1e-4]  # the RL phase's, not the SFT phase's


def _stop_inside_an_anchored_phase(folder: str, constraint: dict[str, Any]) -> tuple[list[torch.Tensor], ...]:
    """Weights and moments behind an SFT phase of PEAR under a constraint: uncut, and gone on from its middle."""
    taught = [replace(one, teacher_log_probs=(-4.0,) * len(one.response_ids)) for one in examples(4)]
    loss = {"name": "pear", "block": 4}
    settings = SEPARATE | {"mifo.constraint": constraint, "mifo.sft_loss": loss, "mifo.inspect.mask": False}
    engine = make_engine(settings)
    engine.interval.begin()
    update(engine, taught)
    engine.begin_sft(interval=1)
    update(engine, taught[:2])
    engine.leave_sft()
    engine.save_checkpoint(f"{folder}/actor")
    engine.save_interval(Path(folder))
    other = make_engine(settings)
    other.load_checkpoint(f"{folder}/actor", del_local_after_load=False)
    other.load_interval(Path(folder))
    for one in (engine, other):
        one.enter_sft()
        update(one, taught[2:])
        one.end_sft()
    return _everything(engine), _everything(other)


def test_the_anchors_of_a_stopped_sft_phase_are_those_of_its_begin(tmp_path):
    anchors = {"ewc": {"strength": 1000.0}, "kl_anchor": {"strength": 100.0}}
    cases = [(str(tmp_path / name), {"name": name, **settings}) for name, settings in anchors.items()]
    runs = run_on_ranks(_stop_inside_an_anchored_phase, 2, cases)
    for uncut, resumed in runs:
        assert all(torch.equal(one, two) for one, two in zip(uncut, resumed, strict=True))
    assert not torch.equal(runs[0][0][0], runs[1][0][0])


def _save_where_one_rank_cannot(folder: str) -> dict[str, Any]:
    engine = make_engine({})
    engine.interval.begin()
    if dist.get_rank() == 0:
        (Path(folder) / "actor" / "optim_world_size_2_rank_1.pt").mkdir(parents=True)  # a folder is no file to write
    dist.barrier()
    said = ""
    try:
        engine.save_checkpoint(f"{folder}/actor")
    except OSError as error:
        said = str(error)
    before = full(engine.interval.model.weights())
    update(engine, examples(2))
    again = Path(folder) / "again"
    engine.save_checkpoint(str(again))
    every = [None] * 2
    dist.all_gather_object(every, said)
    changed = any(not torch.equal(a, b) for a, b in zip(before, full(engine.interval.model.weights()), strict=True))
    return {"said": every, "changed": changed, "files": sorted(path.name for path in again.glob("model*"))}


def test_where_one_rank_cannot_write_every_rank_says_so_and_training_goes_on(tmp_path):
    (run,) = run_on_ranks(_save_where_one_rank_cannot, 2, [(str(tmp_path),)])
    assert run["said"][0] == run["said"][1] and run["said"][0].startswith("rank 1: ")
    assert run["changed"]
    assert run["files"] == ["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"]
