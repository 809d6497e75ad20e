"""Nothing grows with the square of a run: what is counted here is how many lines are parsed."""

import json
from pathlib import Path

import pytest

from mifo_verl.run import journal
from mifo_verl.run.journal import Follower, RunRecords


@pytest.fixture
def parsed(monkeypatch) -> list[str]:
    """Every text that is parsed as JSON."""
    texts: list[str] = []
    loads = json.loads
    monkeypatch.setattr(journal.json, "loads", lambda text: texts.append(text) or loads(text))
    return texts


def test_a_follower_reads_every_line_once_and_a_torn_one_when_it_is_whole(tmp_path: Path, parsed):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    follow = Follower(path)
    seen = []
    for text in ('{"step": 2}\n{"st', "", 'ep": 3}\n', "no JSON\n", '{"step": 4}\n'):
        with open(path, "a") as file:
            file.write(text)
        seen += [line["step"] for line in follow()]
    assert seen == [2, 3, 4] and len(parsed) == 4
    path.write_text('{"step": 1}\n{"step": 2}\n')  # a resume has dropped the lines after its checkpoint
    assert follow() == []
    with open(path, "a") as file:
        file.write('{"step": 3, "again": true}\n')
    assert follow() == [{"step": 3, "again": True}]


def test_a_file_that_comes_later_is_followed_from_its_first_line(tmp_path: Path):
    follow = Follower(tmp_path / "events.jsonl")
    assert follow() == []
    (tmp_path / "events.jsonl").write_text('{"kind": "saved"}\n')
    assert follow() == [{"kind": "saved"}]


def test_checkpoints_count_the_lines_before_them_once(tmp_path: Path, parsed):
    RunRecords(tmp_path).ledger([{"step": 1}, {"step": 1}])
    records = RunRecords(tmp_path)
    assert records.sync() == {"ledger.jsonl": 2}
    for step in range(2, 30):
        records.ledger([{"step": step}])
        assert records.sync() == {"ledger.jsonl": step + 1}
    assert len(parsed) == 2
    records.rewind(3)
    assert records.sync() == {"ledger.jsonl": 4}


def test_a_validation_looks_at_the_one_before_it_alone(tmp_path: Path, parsed):
    records = RunRecords(tmp_path)
    for step in [*range(400), 399, 7]:
        records.validation(step, {"mean": step / 400})
    assert len((tmp_path / "validation.jsonl").read_text().splitlines()) == 400
    assert len(parsed) == 401
