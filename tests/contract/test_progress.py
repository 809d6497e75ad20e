"""The display shows what is there, and never ends before the run."""

import json
import math
import re
import time
from itertools import pairwise

import pytest
from omegaconf import OmegaConf

from mifo_verl.run import display as progress
from mifo_verl.run.display import ProgressDisplay, print_summary
from mifo_verl.run.journal import RunRecords
from tests.unit.example_run import ExampleRun, make_data

SFT = {"step": 1, "phase": "sft", "interval": 1, "kept_share": 0.2, "frozen_share": 0.5}


@pytest.fixture
def shown(tmp_path, monkeypatch, capsys):
    """Show what is written inside; its console is no terminal."""
    monkeypatch.setattr(progress, "_REFRESH_SECONDS", 0.05)
    config = OmegaConf.create({"trainer": {"total_training_steps": 4}, "mifo": {"schedule": {"size": 8}}})

    def show(write) -> str:
        with ProgressDisplay(tmp_path, config):
            for part in write:
                part(RunRecords(tmp_path))
                time.sleep(0.3)
        return capsys.readouterr().out

    return show


def test_a_loss_that_is_not_finite_is_named_and_what_comes_after_it_is_shown(shown):
    out = shown(
        [
            lambda records: records.metrics(SFT | {"loss": math.nan}),
            lambda records: records.metrics(SFT | {"step": 2, "loss": 0.25}),
        ]
    )
    assert "step 1 SFT interval 1  loss not finite  kept 0.200  frozen 0.500" in out
    assert "step 2 SFT interval 1  loss 0.2500" in out


def test_in_a_log_the_stage_is_said_at_least_every_30_seconds(tmp_path, shown, monkeypatch):
    class Clock:
        """It goes on by four seconds whenever the display looks at it."""

        now = 1000.0
        strftime, localtime = staticmethod(time.strftime), staticmethod(time.localtime)

        def monotonic(self) -> float:
            self.now += 4
            return self.now

        def time(self) -> float:
            return self.now

    monkeypatch.setattr(progress, "time", Clock())
    stage = json.dumps({"stage": "rollout, 3 of 16 prompts", "since": 1000.0})
    out = shown([lambda _: (tmp_path / "stage.json").write_text(stage), *[lambda _: None] * 3])
    said = [int(seconds) for seconds in re.findall(r"rollout, 3 of 16 prompts for (\d+) s", out)]
    assert len(said) >= 2 and all(later - earlier <= 32 for earlier, later in pairwise([0, *said]))


def test_on_a_terminal_the_stage_stands_in_the_live_line_all_the_time(tmp_path, shown, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's word for: this is a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    stage = json.dumps({"stage": "rollout, 3 of 16 prompts", "since": time.time()})
    out = shown([lambda _: None, lambda _: (tmp_path / "stage.json").write_text(stage), lambda _: None])
    lines = [re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", line) for line in re.split(r"[\r\n]+", out)]
    live = [line for line in lines if "step 0/4" in line]
    assert len(live) > 4 and all("start-up: Ray" in line or "rollout, 3 of 16 prompts (" in line for line in live)
    assert any("rollout, 3 of 16 prompts (" in line for line in live)


def test_a_line_that_cannot_be_shown_is_skipped_once_and_the_display_goes_on(shown, caplog):
    out = shown(
        [
            lambda records: records.metrics({"step": 1, "phase": "sft"}),
            lambda records: records.metrics(SFT | {"step": 2, "loss": 0.25}),
            lambda records: records._append("events.jsonl", [{"text": "no time"}]),
            lambda records: records.event("saved", "checkpoint of step 2"),
        ]
    )
    assert "step 2 SFT interval 1  loss 0.2500" in out and "checkpoint of step 2" in out
    assert [record.message for record in caplog.records if record.exc_info] == ["the display stumbled"] * 2


def test_without_a_validation_of_the_start_no_change_is_told(tmp_path, capsys):
    run = ExampleRun(tmp_path / "run", make_data(tmp_path)).run(3)
    summary = json.loads((run / "summary.json").read_text())
    for start, shown in (({"a": 0.25, "mean": 0.25}, ["0.250", "0.500", "+0.250"]), ({}, ["-", "0.500", "-"])):
        print_summary(summary | {"accuracy_start": start}, run)
        (row,) = [line for line in capsys.readouterr().out.splitlines() if "mean" in line]
        assert [cell.strip() for cell in row.strip("│").split("│")] == ["mean", *shown]


def test_where_the_time_went_is_printed_the_longest_first(tmp_path, capsys):
    run = ExampleRun(tmp_path / "run", make_data(tmp_path)).run(3)
    summary = json.loads((run / "summary.json").read_text())
    stages = {"start_up": 30.0, "rollout": 60.0, "sft": 9.96, "probe": 0.04}
    print_summary(summary | {"stages": stages, "seconds": {"total": 100.0}}, run)
    said = "seconds: total 100.0 = rollout 60.0 (60%), start up 30.0 (30%), sft 10.0 (10%)"
    assert said in capsys.readouterr().out.splitlines()
