"""Every wait of a run is inside a stage that the watchdog reads, and what it finds ends the run."""

import errno
import json
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from mifo_verl.compose import compose_config
from mifo_verl.config import WatchdogConfig, build_config
from mifo_verl.method.buffer import DemonstrationBuffer
from mifo_verl.run import watchdog as module
from mifo_verl.run.journal import RunRecords, read_lines
from mifo_verl.run.liveness import Lost
from mifo_verl.run.watchdog import CannotGoOn, Watchdog
from mifo_verl.types import BufferEntry, SftExample
from mifo_verl.verl import task_runner
from mifo_verl.verl.saving import Stopped
from mifo_verl.verl.sft_phase import SftPhase
from mifo_verl.verl.trainer import MifoTrainer
from tests.waiting import wait_until


@pytest.fixture
def config(tmp_path):
    node = compose_config(["experiment=quickstart", f"run_dir={tmp_path}", "mifo.probe.around_sft=false"]).node
    OmegaConf.resolve(node)
    return node


@pytest.fixture
def trainer(config):
    """A trainer with its watchdog, none of its actors."""
    made = object.__new__(MifoTrainer)
    made.config, made.mifo = config, build_config(OmegaConf.to_container(config.mifo))
    made.probe = made.mifo.probe
    made.watchdog = Watchdog(made.mifo.watchdog, lambda *_: None)
    made.watchdog.begins("start-up")
    made.stopping, made._step_end, made._sft_entered = threading.Event(), None, False
    made.interval, made.global_steps = 1, 1
    yield made
    made.watchdog.end()


def stage_of(trainer: MifoTrainer) -> str:
    return trainer.watchdog.current().name


@pytest.mark.parametrize(
    ("method", "arguments", "stage"),
    [
        ("on_init_end", (), "first weight sync"),
        ("_compute_ref_log_prob", (None, {}), "reference log-probs"),
        ("_compute_values", (None, {}), "values"),
        ("_update_critic", (None, {}), "critic update"),
        ("_update_actor", (None, {}), "RL update"),
        ("on_step_end", (), "weight sync"),
    ],
)
def test_a_call_that_waits_for_workers_has_a_stage_of_its_own(trainer, monkeypatch, method, arguments, stage):
    seen = []
    monkeypatch.setattr(PPOTrainerSync, method, lambda self, *_: seen.append(stage_of(self)))
    trainer._sft = None
    getattr(trainer, method)(*arguments)
    assert seen == [stage]
    assert stage_of(trainer) == "start-up"


class Workers:
    """The ranks of a group, which note the stage that they are called in."""

    def __init__(self, trainer: MifoTrainer) -> None:
        self.seen = []
        self._trainer = trainer

    def begin_sft(self, interval: int) -> list[None]:
        self.seen.append(stage_of(self._trainer))
        return [None]

    def weights_sha256(self) -> list[str]:
        assert not self._trainer.watchdog.has_ended
        self.seen.append(stage_of(self._trainer))
        return ["ab"]


def test_the_selection_of_the_mask_is_a_stage(trainer, config):
    workers = Workers(trainer)
    trainer.sft_phase = SftPhase(config, trainer.mifo, workers, None, str)
    trainer.hard_prompts = SimpleNamespace(rejected=Counter())
    trainer.buffer = DemonstrationBuffer()
    trainer.buffer.put(BufferEntry(None, SftExample("q1", (1,), (2,), "ab")))
    trainer._begin_sft_phase({})
    assert workers.seen == ["mask selection"]


def test_the_rewards_of_demonstrations_on_the_controller_are_a_stage(trainer):
    seen = []
    trainer.hard_prompts = SimpleNamespace(collect=lambda *_: seen.append(stage_of(trainer)) or [])
    trainer.probes = SimpleNamespace(solved=SimpleNamespace(see=lambda _: None))
    trainer._collect(None)
    assert seen == ["hard prompts"]


def test_the_watch_lasts_until_the_digest_of_the_weights_and_no_longer(trainer, monkeypatch, tmp_path):
    workers = Workers(trainer)
    trainer.actor_rollout_wg, trainer._validation, trainer._accuracy_start = workers, {"val-core/a/acc/mean@1": 1.0}, {}
    trainer.records, trainer._seconds_before = RunRecords(tmp_path), 0.0
    trainer.spending = SimpleNamespace(rl=SimpleNamespace(num_weights=7))
    trainer._actors = dict
    monkeypatch.setattr(PPOTrainerSync, "fit", lambda self, _: self.watchdog.step_begins())
    trainer.fit(None)
    assert workers.seen == ["the end"] and trainer.watchdog.has_ended
    assert json.loads((tmp_path / "summary.json").read_text())["num_weights"] == 7


def test_a_run_that_fails_is_not_watched_any_longer(trainer, monkeypatch):
    def fit(self, _):
        raise OSError

    trainer._actors = dict
    monkeypatch.setattr(PPOTrainerSync, "fit", fit)
    with pytest.raises(OSError):
        trainer.fit(None)
    assert trainer.watchdog.has_ended


def test_an_error_that_comes_of_a_lost_actor_is_told_as_its_loss(trainer, monkeypatch):
    def fit(self, _):
        raise ValueError("Received an empty list as keys.")

    trainer._actors = dict
    monkeypatch.setattr(PPOTrainerSync, "fit", fit)
    monkeypatch.setattr(trainer.watchdog._actors, "require_alive", lambda: None)
    with pytest.raises(ValueError, match="empty list"):
        trainer.fit(None)

    def require_alive():
        raise Lost("rollout server 0 has died")

    monkeypatch.setattr(trainer.watchdog._actors, "require_alive", require_alive)
    with pytest.raises(CannotGoOn, match="rollout server 0 has died"):
        trainer.fit(None)


def test_a_run_that_was_asked_to_stop_has_lost_nobody(trainer, monkeypatch):
    def fit(self, _):
        raise Stopped

    def require_alive():
        raise Lost("rollout server 0 has died")

    trainer._actors = dict
    monkeypatch.setattr(PPOTrainerSync, "fit", fit)
    monkeypatch.setattr(trainer.watchdog._actors, "require_alive", require_alive)
    with pytest.raises(Stopped):
        trainer.fit(None)


def test_a_reason_that_cannot_be_written_ends_the_wait_all_the_same_and_the_stacks_are_taken_once(monkeypatch):
    monkeypatch.setattr(module, "_TICK_SECONDS", 0.05)
    stacks, ended = [], []
    monkeypatch.setattr(module, "_LAST_WORDS_SECONDS", 0.5)
    monkeypatch.setattr(module.os, "_exit", ended.append)

    def say(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def dump():
        time.sleep(1.0)  # longer than the last words may take: they are counted from its end
        stacks.append(len(ended))

    dog = Watchdog(WatchdogConfig(limit_seconds=0.2), say, stacks=dump)
    dog.begins("start-up")
    wait_until(lambda: dog.failure)
    failed = time.monotonic()
    with pytest.raises(CannotGoOn, match="limit_seconds is over"):
        dog.raise_if_failed()
    wait_until(lambda: ended)
    dog.end()
    assert time.monotonic() - failed > 0.4 and stacks == [0]


def test_a_task_runner_whose_transfer_queue_does_not_come_says_so(config, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_TICK_SECONDS", 0.05)
    monkeypatch.setattr(task_runner, "free_resources", lambda: "0 of 4 CPU free")
    monkeypatch.setattr(task_runner, "require_loaded", lambda: None)
    ran = []
    monkeypatch.setattr(task_runner._TaskRunner, "run", lambda self, _: ran.append(config.transfer_queue.enable))
    monkeypatch.setattr(task_runner.tq, "init", lambda _: wait_until(lambda: read_lines(tmp_path / "events.jsonl")))
    config.mifo.watchdog.limit_seconds = 0.2
    before = set(threading.enumerate())
    task_runner.MifoTaskRunner().run(config)
    (event,) = read_lines(tmp_path / "events.jsonl")
    assert event["kind"] == "failed" and "TransferQueue's start has taken 0 s" in event["text"]
    assert "waiting for what Ray has: 0 of 4 CPU free" in event["text"] and "limit_seconds is over" in event["text"]
    assert ran == [True]
    wait_until(lambda: set(threading.enumerate()) <= before)  # the trainer has a watchdog of its own


def test_verl_takes_a_transfer_queue_that_is_there():
    import inspect

    import transfer_queue

    assert inspect.getsource(transfer_queue.init).index("if _init_from_existing():") > 0
    source = inspect.getsource(task_runner._TaskRunner.run)
    assert source.index("OmegaConf.resolve(config)") < source.index("tq.init(config") < source.index("= trainer_cls(")
