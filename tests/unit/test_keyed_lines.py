"""Records survive a killed process, once each."""

import json
import multiprocessing
import os
import signal
import time

import pytest

from mifo_verl.tools.keyed_lines import KeyedLines

FIELDS = ("text",)


def test_what_was_put_is_there_when_the_file_is_opened_again(tmp_path):
    path = tmp_path / "deep" / "kept.jsonl"
    with KeyedLines(path, FIELDS) as lines:
        lines.put("a", {"text": "ä\n\u2028", "note": 1})
        assert "a" in lines and "b" not in lines and len(lines) == 1
        assert path.read_bytes().endswith(b"\n")  # for whoever looks on, and if this process dies now
    with KeyedLines(path, FIELDS) as lines:
        assert lines.get("a") == {"text": "ä\n\u2028", "note": 1}
        assert lines.get("b") is None
        lines.put("b", {"text": ""})
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_text_with_lone_surrogates_survives(tmp_path):
    with KeyedLines(tmp_path / "kept.jsonl", FIELDS) as lines:
        lines.put("a", {"text": "\ud800"})
    with KeyedLines(tmp_path / "kept.jsonl", FIELDS) as lines:
        assert lines.get("a") == {"text": "\ud800"}


@pytest.mark.parametrize("torn", ['{"key": "b", "te', '{"key": "b", "text": "whole but for its end"}', "\x00"])
def test_a_torn_last_line_is_cut_off_and_the_next_record_stands_alone(tmp_path, torn):
    path = tmp_path / "kept.jsonl"
    path.write_text('{"key": "a", "text": "1"}\n' + torn)
    with KeyedLines(path, FIELDS) as lines:
        assert len(lines) == 1 and "b" not in lines
        lines.put("b", {"text": "2"})
    assert path.read_text() == '{"key": "a", "text": "1"}\n{"key": "b", "text": "2"}\n'


@pytest.mark.parametrize("broken", ["{", "[1]", '"a"', '{"key": "b"}', '{"text": "b"}', ""])
def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path, broken):
    path = tmp_path / "kept.jsonl"
    path.write_text('{"key": "a", "text": "1"}\n' + broken + '\n{"key": "c", "text": "3"}\n')
    with (
        pytest.raises(ValueError, match=r"kept.jsonl: line 2 must be a JSON object with key, text"),
        KeyedLines(path, FIELDS),
    ):
        pass
    assert path.read_text().count("\n") == 3  # nothing was cut


def test_a_key_is_kept_once(tmp_path):
    with KeyedLines(tmp_path / "kept.jsonl", FIELDS) as lines:
        lines.put("a", {"text": "1"})
        with pytest.raises(ValueError, match="a is kept already"):
            lines.put("a", {"text": "2"})
    assert (tmp_path / "kept.jsonl").read_text().count("\n") == 1


def test_a_second_process_is_refused(tmp_path):
    path = tmp_path / "kept.jsonl"
    with KeyedLines(path, FIELDS), pytest.raises(ValueError, match="must not be in use"), KeyedLines(path, FIELDS):
        pass
    with KeyedLines(path, FIELDS):  # free again
        pass


def write_until_killed(path):
    with KeyedLines(path, FIELDS) as lines:
        for number in range(10**9):
            lines.put(str(number), {"text": "x" * 100})


def test_a_killed_process_loses_nothing_that_it_put_before(tmp_path):
    path = tmp_path / "kept.jsonl"
    process = multiprocessing.get_context("spawn").Process(target=write_until_killed, args=(path,))
    process.start()
    deadline = time.monotonic() + 60
    while (not path.exists() or path.stat().st_size < 50_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    whole = path.read_text().count("\n")
    assert whole > 100
    with KeyedLines(path, FIELDS) as lines:
        assert len(lines) == whole
        assert all(str(number) in lines for number in range(whole))
