"""What becomes of a save: on a disk that refuses it, on a stop, if a rank's file is not seen, and before a resume."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from ray.exceptions import RayTaskError

from mifo_verl.compose import compose_config
from mifo_verl.data.parquet import write_rows
from mifo_verl.loop.state import LoopState, SftProgress
from mifo_verl.run import launch as launching
from mifo_verl.run.checkpoints import LATEST, CheckpointStore
from mifo_verl.run.journal import CONFIG, EVENTS, ORIGIN, VALIDATION, RunRecords, read_lines
from mifo_verl.settings import CheckpointConfig
from mifo_verl.tools.prepare.addition import rows
from mifo_verl.verl.actor import Actor
from mifo_verl.verl.saving import NotSaved, Saver, Stopped
from mifo_verl.verl.shards import save_shards

ENGINE = ("model", "optim", "extra_state")


class Ranks:
    """verl's handle of two ranks; ``unseen`` are files that this machine never gets to see, ``refuses`` what the disk
    says.
    """

    def __init__(self) -> None:
        self.refuses: Exception | None = None
        self.unseen: set[str] = set()
        self.calls: list[str] = []

    def _write(self, folder: str, names: list[str]) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            if name not in self.unseen:
                (Path(folder) / name).write_bytes(b"state")

    def save_interval(self, folder: str) -> None:
        if self.refuses is not None:
            raise RayTaskError("save_interval", "a traceback", self.refuses)
        self._write(folder, [f"rank_{rank}_of_2.safetensors" for rank in (0, 1)])

    def save_checkpoint(self, path: str, *_: Any, **__: Any) -> None:
        self._write(path, [f"{part}_world_size_2_rank_{rank}.pt" for part in ENGINE for rank in (0, 1)])

    def leave_sft(self) -> None:
        self.calls.append("leave_sft")

    def load_interval(self, folder: str) -> None:
        self.calls.append("load_interval")


class Dataloader:
    """At its eighth row."""

    def state_dict(self) -> dict[str, int]:
        return {"place": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_rows(rows({1: 20}, "train", seed=0), folder / "train.parquet")
    return folder / "train.parquet"


@dataclass
class Run:
    """A run's checkpoints, of which nothing is resumed unless a setting says so."""

    saver: Saver
    ranks: Ranks
    records: RunRecords
    store: CheckpointStore
    config: DictConfig

    def begin(self, critic: Any = None) -> LoopState:
        with self.saver.found():
            pass
        groups = {"actor": self.ranks} | ({"critic": critic} if critic else {})
        actor = Actor(self.ranks, self.config.actor_rollout_ref.actor, pad_token_id=0)
        return self.saver.resume(actor, groups, Dataloader())

    def write(self, state: LoopState) -> Path | None:
        return self.saver.write(state, {"place": 8}, None)

    def said(self) -> list[tuple[str, str]]:
        return [(event["kind"], event["text"]) for event in read_lines(self.records.folder / EVENTS)]


@pytest.fixture
def make(data, tmp_path):
    def made(name: str = "run", settings: dict[str, Any] | None = None, **trainer: Any) -> Run:
        chosen = [f"trainer.{key}={value}" for key, value in trainer.items()]
        base = ["experiment=quickstart", f"run_dir={tmp_path / name}", f"data.train_files={data}"]
        config = compose_config([*base, *chosen]).node
        records = RunRecords(config.run_dir)
        (records.folder / CONFIG).write_text(OmegaConf.to_yaml(config, resolve=True))
        store = CheckpointStore(config.trainer.default_local_dir, keep_last=2, keep_best=0)
        return Run(
            Saver(config, CheckpointConfig(keep_last=2, keep_best=0, **(settings or {})), records),
            Ranks(),
            records,
            store,
            config,
        )

    return made


def stop_in_the_rollouts(run: Run, state: LoopState) -> Path | None:
    """SIGTERM while the rollouts of the next step are awaited."""
    run.saver.step_begins(state)
    run.saver.stopping.set()
    with pytest.raises(Stopped):
        run.saver.stop_here(state)
    return run.saver.write_stopped(state, None)


# ---------------------------------------------------------------------- a disk that refuses


def test_a_shard_that_the_disk_refuses_is_an_os_error_with_the_file_s_name(tmp_path):
    (tmp_path / "rank_0_of_1.safetensors").mkdir()  # a folder is no file to write
    with pytest.raises(OSError, match=r"rank_0_of_1\.safetensors could not be written: .*directory"):
        save_shards(tmp_path, {"start.0": torch.zeros(4)}, rank=0, ranks=1)


def test_the_end_is_saved_once_and_only_if_it_is_wanted(make):
    run, end = make(), LoopState(step=4)
    run.begin()
    assert run.saver.write_final(end, 0.5) == run.store.folder / "global_step_4"
    assert run.saver.write_final(end, 0.5) is None  # trainer.save_freq may have made it
    unwanted = make("other", settings={"save_final": False})
    unwanted.begin()
    assert unwanted.saver.write_final(end, 0.5) is None and not unwanted.store.folder.exists()


def test_a_checkpoint_holds_the_state_verl_s_files_and_the_place_in_the_data(make):
    run = make()
    run.begin()
    folder = run.write(LoopState(step=4, drawn=32))
    assert LoopState.load(folder / "mifo").drawn == 32
    assert torch.load(folder / "data.pt") == {"place": 8}
    assert (folder / "actor" / "optim_world_size_2_rank_1.pt").is_file() and folder.name == "global_step_4"
    assert 0.0 < run.saver.take_seconds() < 60.0 and run.saver.take_seconds() == 0.0  # told once


def test_a_run_goes_on_from_a_save_that_the_disk_refused_and_keeps_the_one_before(make):
    run = make()
    run.begin()
    assert run.write(LoopState(step=3))
    run.ranks.refuses = OSError(28, "No space left on device")
    assert run.write(LoopState(step=4)) is None
    assert run.store.newest().facts["step"] == 3
    assert [kind for kind, _ in run.said()] == ["saved", "save_failed"]
    assert "CHECKPOINT FAILED at step 4" in run.said()[1][1] and "No space left" in run.said()[1][1]


def test_a_run_that_is_to_stop_there_does(make):
    run = make(settings={"on_failed_save": "stop"})
    run.begin()
    run.ranks.refuses = OSError(28, "No space left on device")
    with pytest.raises(OSError, match=r"CHECKPOINT FAILED at step 4 .*No space left"):
        run.write(LoopState(step=4))


def test_what_is_no_fault_of_the_disk_is_raised_as_it_is(make):
    run = make()
    run.begin()
    run.ranks.refuses = ValueError("a bug")
    with pytest.raises(RayTaskError) as raised:
        run.write(LoopState(step=4))
    assert raised.value.cause is run.ranks.refuses and run.said() == []


@pytest.mark.parametrize(
    "name", ["optim_world_size_2_rank_1.pt", "extra_state_world_size_2_rank_0.pt", "rank_1_of_2.safetensors"]
)
def test_a_checkpoint_without_every_rank_s_files_does_not_count(make, name):
    run = make()
    run.begin()
    run.ranks.unseen = {name}
    assert run.write(LoopState(step=4)) is None and run.store.newest() is None
    assert name in run.said()[0][1] and "a folder that all nodes share" in run.said()[0][1]


def test_with_a_critic_its_files_have_to_be_there_too(make):
    run, critic = make(), Ranks()
    run.begin(critic)
    assert run.write(LoopState(step=3))
    critic.unseen = {"model_world_size_2_rank_0.pt"}
    assert run.write(LoopState(step=4)) is None
    assert "critic/model_world_size_2_rank_0.pt" in run.said()[1][1]


def test_what_fails_once_a_checkpoint_counts_is_no_failed_save(make):
    run = make()
    run.begin()
    run.store.folder.mkdir(parents=True)
    (run.store.folder / f"{LATEST}.new").mkdir()
    assert run.write(LoopState(step=4))
    assert [kind for kind, _ in run.said()] == ["checkpoint_untidy", "saved"]


# ---------------------------------------------------------------------- a stop


def test_a_stop_in_the_rollouts_saves_the_end_of_the_step_before(make):
    run = make()
    run.begin()
    state = LoopState(step=4, drawn=32)
    run.saver.step_begins(state)
    state.drawn = 40
    run.saver.stopping.set()
    folder = run.saver.write_stopped(state, 0.5)
    assert LoopState.load(folder / "mifo").drawn == 32 and run.store.newest().facts["accuracy"] == 0.5
    assert run.saver.write_stopped(state, 0.5) is None  # it is saved


def test_once_the_weights_change_a_run_stops_at_the_step_s_end_and_not_before(make):
    run = make()
    run.begin()
    state = LoopState(step=4)
    run.saver.step_begins(state)
    run.saver.weights_change(state)
    run.saver.stopping.set()
    run.saver.stop_here(state)
    assert run.saver.write_stopped(state, None) is None and run.said() == []
    state.step = 5
    with pytest.raises(Stopped):
        run.saver.step_begins(state)
    assert run.saver.write_stopped(state, None).name == "global_step_5"


@pytest.mark.parametrize("on_failed_save", ["continue", "stop"])
def test_a_stop_that_the_disk_does_not_let_save_says_so(make, on_failed_save):
    run = make(settings={"on_failed_save": on_failed_save})
    run.begin()
    run.ranks.refuses = OSError(28, "No space left on device")
    with pytest.raises(NotSaved, match="step 4"):
        stop_in_the_rollouts(run, LoopState(step=4))
    assert [kind for kind, _ in run.said()] == ["save_failed"]


def inside(step: int) -> LoopState:
    """Inside the SFT phase of the step after this one."""
    return LoopState(step=step, sft=SftProgress([], 0, None, {}))


def test_inside_an_sft_phase_the_phase_is_saved_as_it_is(make):
    run, state = make(), LoopState(step=4)
    run.begin()
    run.saver.step_begins(state)
    run.saver.weights_change(state)
    state.sft = inside(4).sft
    assert run.saver.write_stopped(state, None) == run.store.folder / "stopped" / "global_step_4"
    assert run.ranks.calls == ["leave_sft"] and run.store.newest().order == (4, True)


def test_after_a_resumed_sft_phase_the_state_before_it_is_never_saved_with_the_weights_behind_it(make):
    first = make()
    first.begin()
    first.write(inside(4))
    run = make(resume_mode="auto")
    state = run.begin()
    run.saver.step_begins(state)
    run.saver.weights_change(state)
    state.sft = None  # it has ended
    run.saver.stopping.set()
    run.saver.stop_here(state)
    assert run.saver.write_stopped(state, None) is None


@pytest.mark.parametrize("during_step", [False, True])
def test_a_stop_before_anything_new_saves_what_another_run_s_checkpoint_brought(make, during_step):
    """``auto`` would find nothing in this run's folder and start at step 0."""
    other = make("other")
    other.begin()
    folder = other.write(inside(4) if during_step else LoopState(step=4))
    run = make(resume_mode="resume_path", resume_from_path=folder)
    state = run.begin()
    stop_in_the_rollouts(run, state)
    assert run.store.newest().order == (4, during_step) and run.ranks.calls == ["load_interval"]
    origin = {"checkpoint": str(folder), "step": 4, "interval": 1, "prompts": []}
    assert json.loads((run.records.folder / ORIGIN).read_text()) == origin


def test_a_run_that_starts_keeps_no_line_of_one_before_it(make):
    run = make()
    run.records.begin({"step": 3})
    run.records.validation(0, {"mean": 0.5})
    assert run.begin() == LoopState()
    assert read_lines(run.records.folder / VALIDATION) == [] and not (run.records.folder / ORIGIN).exists()


def test_a_stop_in_the_first_step_of_a_new_run_saves_nothing(make):
    run = make()
    assert stop_in_the_rollouts(run, run.begin()) is None and run.store.newest() is None


def test_a_stop_before_anything_new_saves_nothing_where_the_run_s_own_checkpoint_says_it(make):
    first = make()
    first.begin()
    first.write(LoopState(step=4))
    run = make(resume_mode="auto")
    assert stop_in_the_rollouts(run, run.begin()) is None
    assert [kind for kind, _ in run.said()] == ["saved", "resumed"]
    assert not (run.records.folder / ORIGIN).exists()


# ---------------------------------------------------------------------- resuming


def test_a_resumed_run_goes_on_with_the_state_and_the_seconds_of_the_processes_before(make):
    first = make()
    first.begin()
    first.write(LoopState(step=3, interval=2, rl_steps=1, solved=["q1"], elapsed_seconds=100.0))
    state = make(resume_mode="auto").begin()
    assert (state.step, state.interval, state.rl_steps, state.solved) == (3, 2, 1, ["q1"])
    assert 100.0 < state.elapsed_seconds < 160.0


def test_verl_is_told_the_checkpoint_that_is_resumed_and_nothing_else(make):
    first = make()
    first.begin()
    folder = first.write(LoopState(step=4))
    told = []
    for mode in ("disable", "auto"):
        run = make(resume_mode=mode)
        trainer = run.config.trainer
        with run.saver.found():
            told.append((trainer.resume_mode, trainer.resume_from_path))
        assert (trainer.resume_mode, trainer.resume_from_path) == (mode, None)
    assert told == [("disable", None), ("resume_path", str(folder))]


def test_what_a_run_does_not_go_on_from_is_moved_aside_and_said(make):
    first = make()
    first.begin()
    for step in (2, 3):
        first.write(LoopState(step=step))
    run = make(resume_mode="resume_path", resume_from_path=first.store.folder / "global_step_2")
    run.begin()
    assert run.store.newest().facts["step"] == 2
    (text,) = [text for kind, text in run.said() if kind == "moved_aside"]
    assert f"were moved to {run.store.folder}/aside/1;" in text


def test_records_that_a_checkpoint_was_made_with_and_are_gone_end_a_resume_in_words(make):
    first = make()
    first.begin()
    for step in (1, 2, 3, 4):
        first.records.metrics({"step": step})
    first.write(LoopState(step=4))
    make(resume_mode="auto").begin()
    (first.records.folder / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl has 1 lines up to step 4, .* made with 4"):
        make(resume_mode="auto").begin()


# ---------------------------------------------------------------------- the exit code


@pytest.mark.parametrize(
    ("ended", "restarts", "code", "last"),
    [
        (Stopped(), 0, 75, "stopped on request; the same command with trainer.resume_mode=auto goes on in"),
        (NotSaved("the disk refused it"), 3, 74, "stopped on request and NOT SAVED: the disk refused it"),
    ],
)
def test_the_exit_code_and_the_last_line_say_whether_a_stop_was_saved(
    data, tmp_path, monkeypatch, capsys, ended, restarts, code, last
):
    def run_ppo(*_: Any) -> None:
        raise RayTaskError("run", "a traceback", ended)

    monkeypatch.setattr(launching, "run_ppo", run_ppo)
    overrides = [f"run_dir={tmp_path}", f"data.train_files={data}", f"restarts={restarts}"]
    config = compose_config(["experiment=quickstart", *overrides]).node
    assert launching.launch(config, lambda folder: None) == code
    assert capsys.readouterr().out.splitlines()[-1].startswith(last)


def test_a_restart_before_the_first_save_goes_on_from_the_checkpoint_that_was_named(data, tmp_path, monkeypatch):
    modes = []

    def run_ppo(config: Any, start: Any) -> None:
        start.num_runs += 1
        modes.append(config.trainer.resume_mode)
        if len(modes) == 2:  # it saves, then dies again
            folder = Path(config.trainer.default_local_dir) / "global_step_5"
            folder.mkdir(parents=True)
            (folder / "manifest.json").write_text("{}")
        raise RayTaskError("run", "a traceback", RuntimeError("a rank has died") if len(modes) < 3 else Stopped())

    monkeypatch.setattr(launching, "run_ppo", run_ppo)
    monkeypatch.setattr(launching, "checkpoint_facts", lambda config: None)
    overrides = [f"run_dir={tmp_path}", f"data.train_files={data}", "restarts=2"]
    overrides += ["trainer.resume_mode=resume_path", f"trainer.resume_from_path={tmp_path}/other/global_step_4"]
    launching.launch(compose_config(["experiment=quickstart", *overrides]).node, lambda folder: None)
    assert modes == ["resume_path", "resume_path", "auto"]
