"""What the watchdog finds ends the run with a reason; that every wait has a stage is in test_trainer."""

import errno
import threading
import time

import pytest
from omegaconf import OmegaConf

from mifo_verl.compose import compose_config
from mifo_verl.run import watchdog as module
from mifo_verl.run.journal import read_lines
from mifo_verl.run.watchdog import CannotGoOn, Watchdog
from mifo_verl.settings import WatchdogConfig
from mifo_verl.verl import task_runner
from tests.waiting import wait_until


@pytest.fixture
def config(tmp_path):
    node = compose_config(["experiment=quickstart", f"run_dir={tmp_path}", "mifo.probe.around_sft=false"]).node
    OmegaConf.resolve(node)
    return node


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
    assert event["kind"] == "failed" and "start-up: TransferQueue has taken 0 s" in event["text"]
    assert "waiting for what Ray has: 0 of 4 CPU free" in event["text"] and "limit_seconds is over" in event["text"]
    assert ran == [True]
    wait_until(lambda: set(threading.enumerate()) <= before)  # the trainer has a watchdog of its own


def test_verl_takes_a_transfer_queue_that_is_there():
    import inspect

    import transfer_queue

    assert inspect.getsource(transfer_queue.init).index("if _init_from_existing():") > 0
    source = inspect.getsource(task_runner._TaskRunner.run)
    assert source.index("OmegaConf.resolve(config)") < source.index("tq.init(config") < source.index("= trainer_cls(")
