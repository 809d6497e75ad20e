"""Data sets come from a hub through the datasets library, are kept, and are read again without a network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.hub import COMMIT, serve

pytest.importorskip("datasets")
CARD = "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/train-*\n---\n"
READ = """
import json, sys
from mifo_verl.tools.prepare.sources import read_records
try:
    print(json.dumps(list(read_records("train", sys.argv[1]))))
except ValueError as error:
    print(error)
"""
LOAD = """
from mifo_verl.tools.evaluate.questions import load_set
try:
    questions = load_set("aime24", None, 1, None).questions
    print(len(questions), questions[0].text, questions[0].answer)
except ValueError as error:
    print(error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A hub's repositories: GSM8K's first two questions in parquet, and AIME 2024 as JSON lines without a card."""
    gsm8k, aime = tmp_path / "hub/openai/gsm8k", tmp_path / "hub/HuggingFaceH4/aime_2024"
    (gsm8k / "main").mkdir(parents=True)
    aime.mkdir(parents=True)
    rows = pa.table({"question": ["1 + 1?", "2 + 2?"], "answer": ["2\n#### 2", "4\n#### 4"]})
    pq.write_table(rows, gsm8k / "main/train-00000-of-00001.parquet")
    (gsm8k / "README.md").write_text(CARD)
    lines = [json.dumps({"id": n, "problem": f"What is {n}?", "answer": str(n)}) + "\n" for n in range(30)]
    (aime / "train.jsonl").write_text("".join(lines))
    return tmp_path / "hub"


def run(code: str, *arguments: str, home: Path, hub: str, offline: str = "0") -> str:
    """What a process prints whose data sets are kept in ``home``."""
    environment = os.environ | {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_OFFLINE": offline}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_data_set_of_the_hub_is_read_kept_and_read_again_without_the_hub(folder: Path, tmp_path: Path) -> None:
    name, home = "hub:openai/gsm8k:main:train", tmp_path / "home"
    expected = [{"question": "1 + 1?", "answer": "2\n#### 2"}, {"question": "2 + 2?", "answer": "4\n#### 4"}]
    with serve(folder) as hub:
        assert json.loads(run(READ, name, home=home, hub=hub)) == expected
        missing = run(READ, "hub:openai/gsm8k:socratic:train", home=home, hub=hub)
    assert "train=hub:openai/gsm8k:socratic:train must be a data set that the hub gives (ValueError" in missing
    assert json.loads(run(READ, name, home=home, hub=hub, offline="1")) == expected


def test_a_commit_is_never_replaced_by_another(folder: Path, tmp_path: Path) -> None:
    home, pinned = tmp_path / "home", "hub:openai/gsm8k@{}:main:train"
    with serve(folder) as hub:
        assert len(json.loads(run(READ, pinned.format(COMMIT), home=home, hub=hub))) == 2
        unknown = run(READ, pinned.format("f" * 40), home=tmp_path / "other", hub=hub)
    assert "that the hub gives (DatasetNotFoundError: Revision" in unknown
    assert len(json.loads(run(READ, pinned.format(COMMIT), home=home, hub=hub, offline="1"))) == 2
    other = run(READ, pinned.format("f" * 40), home=home, hub=hub, offline="1")
    assert "must be kept at this commit to be read without the hub" in other


def test_a_benchmark_of_the_hub_has_its_published_number_of_rows(folder: Path, tmp_path: Path) -> None:
    file = folder / "HuggingFaceH4/aime_2024/train.jsonl"
    with serve(folder) as hub:
        assert run(LOAD, home=tmp_path / "home", hub=hub) == "30 What is 0? 0"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
        short = run(LOAD, home=tmp_path / "other", hub=hub)
    assert "HuggingFaceH4/aime_2024::train on the hub has 29 rows and must have 30" in short
