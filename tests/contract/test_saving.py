"""What becomes of a save: on a disk that refuses it, on a stop, where a rank's file is not seen, and before a resume.

verl's own save runs; the workers are made up and write a file for each part of each rank.
"""

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from ray.exceptions import RayTaskError

from mifo_verl.compose import compose_config
from mifo_verl.config import CheckpointConfig, WatchdogConfig
from mifo_verl.data.parquet import write_rows
from mifo_verl.run import launch as launching
from mifo_verl.run.budget import Spending
from mifo_verl.run.checkpoints import LATEST, verify
from mifo_verl.run.journal import CONFIG, EVENTS, ORIGIN, VALIDATION, RunRecords, read_lines
from mifo_verl.run.watchdog import Watchdog
from mifo_verl.tools.prepare.addition import rows
from mifo_verl.types import BufferEntry, PromptGroup, SftExample
from mifo_verl.verl.checkpoint import ControllerState, SftProgress, save_shards
from mifo_verl.verl.saving import NotSaved, SavingTrainer, Stopped
from mifo_verl.verl.trainer import MifoTrainer

ENGINE = ("model", "optim", "extra_state")


class Workers:
    """Two ranks; ``unseen`` are files that this machine never gets to see, ``refuses`` what the disk says."""

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


class Trainer(SavingTrainer):
    """A trainer whose state is a count."""

    sft: SftProgress | None = None

    def _state(self) -> ControllerState:
        return ControllerState(1, 1, 8, 0.0, [], {}, self.sft)

    def _restore(self, state: ControllerState) -> None:
        self.sft = state.sft

    def _accuracy_now(self) -> float | None:
        return None


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_rows(rows({1: 20}, "train", seed=0), folder / "train.parquet")
    return folder / "train.parquet"


@pytest.fixture
def make(data, tmp_path, monkeypatch):
    """A trainer of a run's folder, after step 4 unless told otherwise."""

    def init(self: Any, config: Any) -> None:
        self.config, self.use_critic, self.trainer_mode = config, False, "sync"
        self.checkpoint_callback = SimpleNamespace(on_save=lambda **_: None)

    monkeypatch.setattr("verl.trainer.ppo.v1.trainer_base.PPOTrainer.__init__", init)

    def made(name: str = "run", on_failed_save: str = "continue", steps: int = 4, **trainer: Any) -> Trainer:
        overrides = [f"+trainer.{key}={value}".replace("+trainer.res", "trainer.res") for key, value in trainer.items()]
        base = ["experiment=quickstart", f"run_dir={tmp_path / name}", f"data.train_files={data}"]
        config = compose_config([*base, *overrides]).node
        records = RunRecords(config.run_dir)
        (records.folder / CONFIG).write_text(OmegaConf.to_yaml(config, resolve=True))
        run = Trainer(config, CheckpointConfig(2, 0, on_failed_save), records)
        run.watchdog = Watchdog(WatchdogConfig(2.0, 30.0, 3600.0, 60.0, 3), records.event, lambda _: "", lambda: None)
        run.actor_rollout_wg = Workers()
        run.train_dataloader = SimpleNamespace(state_dict=lambda: {"place": 8}, load_state_dict=lambda _: None)
        run.global_steps, run._sft_entered = steps, False
        return run

    return made


def said(run: Trainer) -> list[tuple[str, str]]:
    return [(event["kind"], event["text"]) for event in read_lines(run.records.folder / EVENTS)]


def stop_in_the_rollouts(run: Trainer) -> None:
    """SIGTERM while the rollouts of the next step are awaited."""
    run.global_steps += 1
    run._step_end = SimpleNamespace(state=run._state(), dataloader={"place": 8})
    run.stopping.set()
    run._save_where_stopped()


# ---------------------------------------------------------------------- a disk that refuses


def test_a_shard_that_the_disk_refuses_is_an_os_error_with_the_file_s_name(tmp_path):
    weights = [torch.zeros(4)]
    interval = SimpleNamespace(start=weights, history=None, frozen=None, updates=0, inspection_state=dict)
    (tmp_path / "rank_0_of_1.safetensors").mkdir()  # a folder is no file to write
    with pytest.raises(OSError, match=r"rank_0_of_1\.safetensors could not be written: .*directory"):
        save_shards(tmp_path, interval, None, rank=0, ranks=1)


def test_a_run_goes_on_from_a_save_that_the_disk_refused_and_keeps_the_one_before(make):
    run = make()
    run._write(3, run._state(), {})
    run.actor_rollout_wg.refuses = OSError(28, "No space left on device")
    assert not run._write(4, run._state(), {})
    assert run._store.newest().facts["step"] == 3
    assert [kind for kind, _ in said(run)] == ["saved", "save_failed"]
    assert "CHECKPOINT FAILED at step 4" in said(run)[1][1] and "No space left" in said(run)[1][1]


def test_a_run_that_is_to_stop_there_does(make):
    run = make(on_failed_save="stop")
    run.actor_rollout_wg.refuses = OSError(28, "No space left on device")
    with pytest.raises(OSError, match=r"CHECKPOINT FAILED at step 4 .*No space left"):
        run._write(4, run._state(), {})


def test_what_is_no_fault_of_the_disk_is_raised_as_it_is(make):
    run = make()
    run.actor_rollout_wg.refuses = ValueError("a bug")
    with pytest.raises(RayTaskError) as raised:
        run._write(4, run._state(), {})
    assert raised.value.cause is run.actor_rollout_wg.refuses and said(run) == []


@pytest.mark.parametrize(
    "name", ["optim_world_size_2_rank_1.pt", "extra_state_world_size_2_rank_0.pt", "rank_1_of_2.safetensors"]
)
def test_a_checkpoint_without_every_rank_s_files_does_not_count(make, name):
    run = make()
    run.actor_rollout_wg.unseen = {name}
    assert not run._write(4, run._state(), {})
    assert run._store.newest() is None
    assert name in said(run)[0][1] and "a folder that all nodes share" in said(run)[0][1]


def test_with_a_critic_its_files_have_to_be_there_too(make):
    run = make()
    run.use_critic, run.critic_wg = True, SimpleNamespace(save_checkpoint=lambda *_, **__: None)
    assert not run._write(4, run._state(), {})
    assert "critic/model_world_size_2_rank_0.pt" in said(run)[0][1]


def test_what_fails_once_a_checkpoint_counts_is_no_failed_save(make):
    run = make()
    run._store.folder.mkdir(parents=True)
    (run._store.folder / f"{LATEST}.new").mkdir()
    assert run._write(4, run._state(), {})
    assert [kind for kind, _ in said(run)] == ["checkpoint_untidy", "saved"]


# ---------------------------------------------------------------------- a stop


def test_a_stop_saves_the_step_s_end_once(make):
    run = make()
    stop_in_the_rollouts(run)
    assert run._store.newest().facts["step"] == 4
    run._save_where_stopped()
    assert [kind for kind, _ in said(run)] == ["saved"]


@pytest.mark.parametrize("on_failed_save", ["continue", "stop"])
def test_a_stop_that_the_disk_does_not_let_save_says_so(make, on_failed_save):
    run = make(on_failed_save=on_failed_save)
    run.actor_rollout_wg.refuses = OSError(28, "No space left on device")
    with pytest.raises(NotSaved, match="step 4"):
        stop_in_the_rollouts(run)
    assert [kind for kind, _ in said(run)] == ["save_failed"]


def test_inside_an_sft_phase_the_phase_is_saved_as_it_is(make):
    run = make(steps=5)
    run.sft, run._sft_entered = SftProgress([], 0, None, {}), True
    run._save_where_stopped()
    assert run.actor_rollout_wg.calls == ["leave_sft"]
    assert run._store.newest().order == (4, True)


@pytest.mark.parametrize("during_step", [False, True])
def test_a_stop_before_anything_new_saves_what_another_run_s_checkpoint_brought(make, during_step):
    """``auto`` would find nothing in this run's folder and start at step 0."""
    other = make("other", steps=5)
    other.sft, other._sft_entered = (SftProgress([], 0, None, {}), True) if during_step else (None, False)
    other._save_where_stopped() if during_step else other._write(4, other._state(), {})
    folder = other._store.newest().folder
    run = make(resume_mode="resume_path", resume_from_path=folder)
    run._resumed = verify(folder)
    run._load_interval()
    stop_in_the_rollouts(run)
    assert run._store.newest().order == (4, during_step) and run.actor_rollout_wg.calls == ["load_interval"]
    origin = {"checkpoint": str(folder), "step": 4, "interval": 1, "prompts": []}
    assert json.loads((run.records.folder / ORIGIN).read_text()) == origin


def test_the_origin_of_another_run_s_records_has_the_hard_prompts_of_the_buffer_and_of_the_phase(tmp_path):
    def entry(name: str, *counts: int) -> BufferEntry:
        group = PromptGroup(name, *counts, 3) if counts else None
        return BufferEntry(group, SftExample(name, (1,), (2,), "ab"))

    held, phase = [entry("a", 1, 8)], SftProgress([entry("b", 0, 8), entry("c")], 3, None, {})
    state = ControllerState(2, 1, 8, 0.0, held, {}, phase)
    assert state.as_origin(tmp_path, 7) == {
        "checkpoint": str(tmp_path),
        "step": 7,
        "interval": 2,
        "prompts": [["a", 1, 8], ["b", 0, 8]],
    }


def test_a_run_that_starts_keeps_no_line_of_one_before_it(make):
    run = make(steps=0)
    run.records.begin({"step": 3})
    run.records.validation(0, {"mean": 0.5})
    run._load_interval()
    assert read_lines(run.records.folder / VALIDATION) == [] and not (run.records.folder / ORIGIN).exists()


def test_a_stop_in_the_first_step_of_a_new_run_saves_nothing(make):
    run = make(steps=0)
    run._load_interval()
    stop_in_the_rollouts(run)
    assert run._store.newest() is None


def test_a_stop_before_anything_new_saves_nothing_where_the_run_s_own_checkpoint_says_it(make):
    first = make()
    first._write(4, first._state(), {})
    run = make()
    run._resumed = run._store.newest()
    run._load_interval()
    stop_in_the_rollouts(run)
    assert [kind for kind, _ in said(run)] == ["saved", "resumed"]
    assert not (run.records.folder / ORIGIN).exists()


# ---------------------------------------------------------------------- resuming


def test_what_a_run_does_not_go_on_from_is_moved_aside_and_said(make):
    run = make()
    for step in (2, 3):
        run._write(step, run._state(), {})
    run._resumed, run.global_steps = verify(run._store.folder / "global_step_2"), 2
    run._load_interval()
    assert run._store.newest().facts["step"] == 2
    (text,) = [text for kind, text in said(run) if kind == "moved_aside"]
    assert f"were moved to {run._store.folder}/aside/1;" in text


def test_records_that_a_checkpoint_was_made_with_and_are_gone_end_a_resume_in_words(make):
    run = make()
    for step in (1, 2, 3, 4):
        run.records.metrics({"step": step})
    run._write(4, run._state(), {})
    run._resumed = run._store.newest()
    run._load_interval()
    (run.records.folder / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl has 1 lines up to step 4, .* made with 4"):
        run._load_interval()


# ---------------------------------------------------------------------- the trainer's part


def test_the_kl_coefficient_and_the_uncounted_tokens_of_the_probes_are_part_of_the_state():
    def trainer(**parts: Any) -> Any:
        probes = SimpleNamespace(solved=SimpleNamespace(ids=[]), cross_entropy_start=None, uncounted_tokens=6)
        shared = {"interval": 1, "rl_steps": 0, "_drawn": 0, "_elapsed": lambda: 0.0, "buffer": [], "probes": probes}
        shared |= {
            "_accuracy_start": {},
            "_sft": None,
            "_measured_on": "",
            "_take_up": lambda state: None,
            "config": OmegaConf.create({"algorithm": {"use_kl_in_reward": True}}),
        }
        return SimpleNamespace(**shared, **parts)

    state = MifoTrainer._state(trainer(kl_ctrl_in_reward=SimpleNamespace(value=0.0123)))
    assert state.uncounted_tokens == 6
    other = trainer(kl_ctrl_in_reward=SimpleNamespace(value=0.001))
    MifoTrainer._restore(other, state)
    assert other.kl_ctrl_in_reward.value == 0.0123


def test_after_a_resumed_sft_phase_the_state_before_it_is_never_saved_with_the_weights_behind_it():
    run: Any = MifoTrainer.__new__(MifoTrainer)
    run._sft, run._step_end, run.stopping = object(), object(), threading.Event()
    run.hard_prompts, run.replay_buffer = SimpleNamespace(begin_step=lambda: None), SimpleNamespace()
    run.actor_rollout_wg = SimpleNamespace(enter_sft=lambda: None)
    run._no_rollouts = run._run_sft_phase = lambda *_: None
    run.step({}, {})
    assert run._step_end is None


@pytest.mark.parametrize(("spent", "last"), [(99, 20), (100, 7)])
def test_a_run_that_goes_on_with_its_budget_spent_makes_no_further_step(tmp_path, monkeypatch, spent, last):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 7, "flops": {spent}}}\n')
    monkeypatch.setattr(SavingTrainer, "_load_interval", lambda self: None)
    run: Any = MifoTrainer.__new__(MifoTrainer)
    config = compose_config(["experiment=quickstart", f"run_dir={tmp_path}"]).node
    run.spending, run._resumed, run._sft = Spending(config, 1000, 100.0), object(), None
    run.global_steps, run.total_training_steps = 7, 20
    run._load_interval()
    assert run.total_training_steps == last


def test_the_step_that_spends_the_budget_is_the_last_and_is_saved():
    saved = []
    spending = SimpleNamespace(is_over=lambda lines: len(lines) == 0)
    run = SimpleNamespace(spending=spending, global_steps=7, total_training_steps=20, _sft=None, _sft_report=None)
    run.config = OmegaConf.create({"trainer": {"save_freq": 5}})
    run._save_due, run._save_if_due = False, lambda: saved.append(run._save_due)
    run._end_if_spent = lambda lines: MifoTrainer._end_if_spent(run, lines)
    run._require_updates = lambda metrics: None
    batch = SimpleNamespace(keys=["no_rollouts"])
    MifoTrainer._compute_metrics(run, batch, {}, {})
    assert (saved, run.total_training_steps) == ([True], 7)
    run.config.trainer.save_freq = -1
    MifoTrainer._compute_metrics(run, batch, {}, {})
    assert saved == [True, False]


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
    monkeypatch.setattr(launching, "_check_checkpoint", lambda config: None)
    overrides = [f"run_dir={tmp_path}", f"data.train_files={data}", "restarts=2"]
    overrides += ["trainer.resume_mode=resume_path", f"trainer.resume_from_path={tmp_path}/other/global_step_4"]
    launching.launch(compose_config(["experiment=quickstart", *overrides]).node, lambda folder: None)
    assert modes == ["resume_path", "resume_path", "auto"]
