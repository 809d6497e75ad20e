"""The record files of a run: whole lines, rewound to a step, one writer."""

import json
import subprocess
import sys

import pytest

from mifo_verl.bridge.records import EVENTS, METRICS, RunRecords, read_lines, replace_text


def test_rewinding_keeps_the_lines_up_to_a_step_and_drops_a_torn_one(tmp_path):
    records = RunRecords(tmp_path)
    for step in (1, 2, 2, 3):
        records.metrics({"step": step})
        records.ledger([{"step": step, "prompt_id": "q"}])
    with open(tmp_path / METRICS, "a") as file:
        file.write('{"step": 2, "torn')
    records.rewind(2)
    assert read_lines(tmp_path / METRICS) == [{"step": 1}, {"step": 2}, {"step": 2}]
    assert [line["step"] for line in read_lines(tmp_path / "ledger.jsonl")] == [1, 2, 2]
    records.rewind(0)
    assert (tmp_path / METRICS).read_text() == ""


def test_what_is_not_finite_is_null_and_named(tmp_path):
    RunRecords(tmp_path).metrics({"step": 1, "loss": float("nan"), "grad_norm": float("inf"), "entropy": 0.5})
    text = (tmp_path / METRICS).read_text()
    line = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert line == {"step": 1, "loss": None, "grad_norm": None, "entropy": 0.5, "nonfinite": ["loss", "grad_norm"]}


def test_finite_lines_say_nothing_about_it(tmp_path):
    RunRecords(tmp_path).metrics({"step": 1, "loss": 0.0})
    assert read_lines(tmp_path / METRICS) == [{"step": 1, "loss": 0.0}]


def test_an_event_has_a_time_a_kind_and_a_text(tmp_path):
    RunRecords(tmp_path).event("saved", "checkpoint of step 3")
    (event,) = read_lines(tmp_path / EVENTS)
    assert (event["kind"], event["text"]) == ("saved", "checkpoint of step 3") and event["time"] > 1.7e9


def test_a_file_is_replaced_whole(tmp_path):
    (tmp_path / "file").write_text("old")
    replace_text(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "new"


def test_a_folder_has_one_writer_at_a_time_and_is_free_when_it_dies(tmp_path):
    code = "from mifo_verl.bridge.records import RunRecords; r = RunRecords('.'); r.lock(); print('held', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    records = RunRecords(tmp_path)
    with pytest.raises(RuntimeError, match=r"run_dir=.* must not be written by two runs at a time"):
        records.lock(patience_seconds=0.0)
    other.kill()
    other.wait()
    records.lock(patience_seconds=5.0)


def test_what_is_not_the_same_in_every_run_or_too_long_for_a_record_has_a_file_of_its_own(tmp_path):
    line = {"step": 3, "interval": 2, "loss": 0.5, "memory_gb": {"host_used": 7.5}, "prompts": [["q1", 0, 8]]}
    RunRecords(tmp_path).metrics(line)
    where = {"step": 3, "interval": 2}
    assert read_lines(tmp_path / METRICS) == [where | {"loss": 0.5}]
    assert read_lines(tmp_path / "memory.jsonl") == [where | {"host_used": 7.5}]
    assert read_lines(tmp_path / "prompts.jsonl") == [where | {"prompts": [["q1", 0, 8]]}]
