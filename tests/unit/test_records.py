"""The record files of a run: whole lines, rewound to a step, one writer."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mifo_verl.run.journal import (
    EVENTS,
    INSPECTION,
    METRICS,
    ORIGIN,
    SUMMARY,
    VALIDATION,
    RunRecords,
    read_lines,
    replace_text,
)
from mifo_verl.run.resume import require_lines


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
    (tmp_path / SUMMARY).write_text("{}")
    records.rewind(0)
    assert not (tmp_path / SUMMARY).exists()  # it was of more steps
    assert (tmp_path / METRICS).read_text() == ""


def test_what_is_not_finite_is_null_and_named(tmp_path):
    RunRecords(tmp_path).metrics({"step": 1, "loss": float("nan"), "grad_norm": float("inf"), "entropy": 0.5})
    text = (tmp_path / METRICS).read_text()
    line = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert line == {"step": 1, "loss": None, "grad_norm": None, "entropy": 0.5, "nonfinite": ["loss", "grad_norm"]}


def test_what_is_not_finite_is_null_at_any_depth_and_in_every_file(tmp_path):
    broken, where = float("-inf"), {"step": 1, "interval": 1}
    held = {"mask": {"norms": [1.0, float("nan")], "kinds": ["q"]}}
    RunRecords(tmp_path).metrics(where | {"accuracy_before": {"mean": broken, "a": 0.5}, "inspection": held})
    line = {"accuracy_before": {"mean": None, "a": 0.5}, "nonfinite": ["accuracy_before", "inspection"]}
    assert read_lines(tmp_path / METRICS) == [where | line]
    assert read_lines(tmp_path / INSPECTION) == [where | {"mask": {"norms": [1.0, None], "kinds": ["q"]}}]


def test_a_step_has_one_validation_and_a_run_that_goes_on_forgets_those_after_its_checkpoint(tmp_path):
    records = RunRecords(tmp_path)
    for step, value in ((0, 0.1), (2, 0.2), (2, 0.3), (4, 0.4)):
        records.validation(step, {"mean": value})
    records.rewind(2)
    records.validation(0, {"mean": 0.9})
    records.validation(4, {"mean": 0.5})
    found = [(line["step"], line["accuracy"]["mean"]) for line in read_lines(tmp_path / VALIDATION)]
    assert found == [(0, 0.1), (2, 0.2), (4, 0.5)]


def test_where_the_lines_begin_is_noted_once(tmp_path):
    records = RunRecords(tmp_path)
    records.begin({"step": 5})
    assert json.loads((tmp_path / ORIGIN).read_text()) == {"step": 5}
    records.metrics({"step": 6})
    for other in ({"step": 6}, None):
        records.begin(other)
        assert json.loads((tmp_path / ORIGIN).read_text()) == {"step": 5}
    records.rewind(-1)
    records.begin(None)
    assert not (tmp_path / ORIGIN).exists()


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
    code = "from mifo_verl.run.journal import RunRecords; r = RunRecords('.'); r.lock(); print('held', flush=True); input()"
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


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_no_other_run(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RuntimeError) as refusal:
        RunRecords(tmp_path).lock()  # at once: waiting cures nothing
    kinds = {line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()}
    assert f"errno {number}" in str(refusal.value) and os.strerror(number) in str(refusal.value)
    assert any(f"and {kind} at /" in str(refusal.value) for kind in kinds)
    assert "another run_dir" in str(refusal.value) and "two runs" not in str(refusal.value)


def test_a_torn_event_ends_with_itself(tmp_path):
    records = RunRecords(tmp_path)
    records.event("saved", "one")
    with open(tmp_path / EVENTS, "a") as file:
        file.write('{"time": 3, "kind": "resu')
    records.event("resumed", "two")
    records.event("saved", "three")
    assert [event["text"] for event in read_lines(tmp_path / EVENTS)] == ["one", "two", "three"]


def test_a_broken_line_of_numbers_is_never_left_out(tmp_path):
    (tmp_path / METRICS).write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is not JSON"):
        read_lines(tmp_path / METRICS)


def test_a_checkpoint_s_lines_are_on_the_disk_and_counted(tmp_path, monkeypatch):
    records, synced, real = RunRecords(tmp_path), [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(os.fstat(descriptor).st_ino), real(descriptor)))
    for step in (1, 2):
        records.metrics({"step": step, "interval": 1, "prompts": []})
    records.ledger([{"step": 2}] * 3)
    assert records.sync() == {"metrics.jsonl": 2, "ledger.jsonl": 3, "prompts.jsonl": 2}
    files = ("metrics.jsonl", "ledger.jsonl", "prompts.jsonl", ".")
    assert {(tmp_path / name).stat().st_ino for name in files} == set(synced)


def test_lines_that_a_checkpoint_was_made_with_and_are_gone_are_named(tmp_path):
    records = RunRecords(tmp_path)
    for step in (1, 2, 3):
        records.metrics({"step": step})
    require_lines(tmp_path, 2, {METRICS: 2})
    with pytest.raises(ValueError, match=r"metrics\.jsonl has 2 lines up to step 2, .* made with 3; put the file back"):
        require_lines(tmp_path, 2, {METRICS: 3})
    with pytest.raises(ValueError, match=r"ledger\.jsonl has 0 lines"):
        require_lines(tmp_path, 2, {"ledger.jsonl": 1})


def test_what_is_not_the_same_in_every_run_or_too_long_for_a_record_has_a_file_of_its_own(tmp_path):
    line = {"step": 3, "interval": 2, "loss": 0.5, "memory_gb": {"host_used": 7.5}, "prompts": [["q1", 0, 8]]}
    RunRecords(tmp_path).metrics(line)
    where = {"step": 3, "interval": 2}
    assert read_lines(tmp_path / METRICS) == [where | {"loss": 0.5}]
    assert read_lines(tmp_path / "memory.jsonl") == [where | {"host_used": 7.5}]
    assert read_lines(tmp_path / "prompts.jsonl") == [where | {"prompts": [["q1", 0, 8]]}]
