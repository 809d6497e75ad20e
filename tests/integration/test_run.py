"""A whole run on Ray: complete intervals, and records that agree with each other.

That one seed gives the same bits, in one process or in many, is in test_kills; another seed is in
test_evaluate_checkpoint.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.faults.__main__ import REPOSITORY, RUN


def train(folder: Path, *overrides: str) -> dict[str, Any]:
    """A small run in a process of its own, as a user starts it; what it left behind."""
    command = [
        sys.executable,
        "-m",
        "mifo_verl.train",
        *RUN,
        f"run_dir={folder}",
        "trainer.logger=[tensorboard]",
        *overrides,
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600, env={**os.environ})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return left_in(folder, done.stdout)


def left_in(folder: Path, out: str) -> dict[str, Any]:
    records = ("metrics", "ledger", "validation")  # a run that never trains on a demonstration has no ledger
    files = {name: folder / f"{name}.jsonl" for name in records}
    lines = {name: file.read_text().splitlines() if file.exists() else [] for name, file in files.items()}
    return {
        "out": out,
        **{name: [json.loads(line) for line in lines[name]] for name in records},
        "summary": json.loads((folder / "summary.json").read_text()),
        "files": {path.name for path in folder.iterdir()},
    }


@pytest.fixture(scope="module")
def first(whole_run) -> dict[str, Any]:
    return left_in(whole_run, whole_run.with_suffix(".log").read_text())


def test_a_run_passes_through_complete_intervals_and_leaves_its_files(first):
    assert first["summary"]["intervals"] >= 3
    assert {"config.yaml", "metrics.jsonl", "ledger.jsonl", "summary.json", "report.html"} <= first["files"]
    phases = [(line["step"], line["phase"], line["interval"]) for line in first["metrics"]]
    assert phases == sorted(phases, key=lambda line: (line[0], line[1] == "sft"))
    assert [line["step"] for line in first["metrics"] if line["phase"] == "rl"] == [1, 2, 3, 4, 5, 6]


def test_as_many_rollouts_of_a_step_are_kept_as_are_asked_for(whole_run):
    samples = [json.loads(line) for line in (whole_run / "samples.jsonl").read_text().splitlines()]
    assert Counter(line["step"] for line in samples) == dict.fromkeys(range(1, 7), 3)  # mifo.inspect.rollouts=3
    assert all(line["text"] and line["answer"] for line in samples)


def test_the_start_the_validated_steps_and_the_end_are_validations_of_their_steps(first):
    assert [line["step"] for line in first["validation"]] == [0, 2, 4, 6]
    accuracy = {line["step"]: line["accuracy"] for line in first["validation"]}
    assert accuracy[0] == first["summary"]["accuracy_start"] and accuracy[6] == first["summary"]["accuracy_end"]
    of_steps = {line["step"]: line["validation"] for line in first["metrics"] if line.get("validation")}
    assert of_steps == {step: accuracy[step] for step in (2, 4, 6)}


def test_every_record_has_the_fields_that_the_docs_promise(first):
    fields = {
        "step", "phase", "interval", "reward", "accuracy", "entropy", "kl_to_start", "buffer_size", "kept_share",
        "frozen_share", "loss", "grad_norm", "seconds",
    }  # fmt: skip
    assert all(fields <= set(line) for line in first["metrics"])
    uses = {
        "interval", "step", "prompt_id", "num_correct", "num_rollouts", "demonstration_sha256", "source", "response_tokens",
        "kept_tokens", "kind",
    }  # fmt: skip
    assert all(set(line) == uses for line in first["ledger"])


def test_the_first_rl_step_of_an_interval_is_at_its_start_and_later_ones_are_not(first):
    seen = set()
    for line in (line for line in first["metrics"] if line["phase"] == "rl"):
        new = line["interval"] not in seen
        seen.add(line["interval"])
        # of some rollouts of the batch, whose log-probs come in other micro-batches: rounding is left at the start
        assert 0 <= line["rollout_difference"] < 1e-5
        assert (line["kl_to_start"] < 1e-9) if new else (line["kl_to_start"] > 1e-9)


def test_only_hard_prompts_are_trained_on_and_the_expert_is_the_one_of_the_data(first):
    import pyarrow.parquet as pq

    table = pq.read_table(REPOSITORY / "data" / "addition" / "train.parquet").to_pylist()
    expert = {row["prompt_id"]: row["target"][0]["content"] for row in table}
    assert first["ledger"]
    for use in first["ledger"]:
        assert use["num_rollouts"] == 8 and use["num_correct"] * 8 <= use["num_rollouts"]
        assert hashlib.sha256(expert[use["prompt_id"]].encode()).hexdigest() == use["demonstration_sha256"]
        assert use["kept_tokens"] == -(-use["response_tokens"] // 5)


def test_the_ledger_the_metrics_and_the_summary_agree(first):
    sft = [line for line in first["metrics"] if line["phase"] == "sft"]
    uses = first["ledger"]
    for key in ("response_tokens", "kept_tokens"):
        assert sum(use[key] for use in uses) == sum(line[key] for line in sft)
        assert sum(use[key] for use in uses) == sum(phase[key] for phase in first["summary"]["sft_phases"])
    assert len(uses) == sum(line["demonstrations"] for line in sft) == first["summary"]["demonstrations"]
    assert all(line["frozen_share"] == pytest.approx(0.5, abs=1e-5) for line in sft)
    assert all(line["frozen_drift"] == 0.0 for line in sft if "frozen_drift" in line)
    assert all(line["frozen_share"] == 0.0 for line in first["metrics"] if line["phase"] == "rl")
    for phase in first["summary"]["sft_phases"]:
        assert 0 <= phase["accuracy_before"] <= 1 and 0 <= phase["accuracy_after"] <= 1
    seconds = first["summary"]["seconds"]
    assert {"rl", "sft", "start_up", "overhead"} <= set(seconds)
    assert seconds["total"] == pytest.approx(sum(seconds.values()) - seconds["total"])


def test_the_console_ends_with_the_table(first):
    assert "validation accuracy" in first["out"] and "addition/level_3" in first["out"]
    assert "complete intervals" in first["out"] and "SFT interval 1" in first["out"]
