"""``mifo analyze fork``: an arm is the run's own SFT phase to the bit, is repeated to the bit, and is made once."""

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mifo_verl.tools.fork.arm import in_order
from mifo_verl.tools.fork.records import Began, Ended, Measured, Updated, read_arm

REPOSITORY = Path(__file__).parents[2]
RUN = [
    "experiment=quickstart",
    "method=sft_only",
    "trainer.total_training_steps=2",
    "trainer.save_freq=1",
    "trainer.val_before_train=false",
    "data.train_batch_size=16",
    "actor_rollout_ref.actor.ppo_mini_batch_size=16",
    "mifo.probe.around_sft=false",
    "mifo.probe.kl_to_start=true",
    "data.val_max_samples=2",
]
ARMS = """
title: Two steps
updates: 2
at: [1]
arms:
  as_the_run: ""
  again: mifo.gate.max_accuracy=0
  frozen: mifo/constraint=strict mifo/importance=random mifo.constraint.history=0
pairs: [[frozen, as_the_run]]
"""


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def fork(folder: Path, *steps: int) -> str:
    checkpoints = [f"{folder}/run/checkpoints/global_step_{step}" for step in steps]
    files = [f"train={folder}/step.parquet", *(f"{one}={folder}/data/validation.parquet" for one in ("own", "gained"))]
    return run(
        "mifo_verl.tools.fork", *checkpoints, f"sweep={folder}/arms.yaml", f"out={folder}/out", "probes=8", *files
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run of two steps on two ranks, each an SFT phase, and forks of both; the arms learn what the second step did."""
    folder = tmp_path_factory.mktemp("fork")
    run("mifo_verl.tools.prepare", "addition", f"out={folder}/data", "train=3,60,60,3,3", "val=4,40,40,2,2")
    files = [f"data.train_files={folder}/data/train.parquet", f"data.val_files={folder}/data/validation.parquet"]
    run("mifo_verl.train", *RUN, *files, f"run_dir={folder}/run")
    lines = [json.loads(line) for line in (folder / "run" / "ledger.jsonl").open()]
    used = [line["prompt_id"] for line in lines if line["step"] == 2]
    by_id = {row["prompt_id"]: row for row in pq.read_table(folder / "data" / "train.parquet").to_pylist()}
    placed = dict(zip(islice(in_order(range(len(used)), 0), len(used)), used, strict=True))
    rows = [by_id[placed[place]] for place in range(len(used))]
    pq.write_table(pa.Table.from_pylist(rows), folder / "step.parquet")
    (folder / "arms.yaml").write_text(ARMS)
    fork(folder, 1, 2)
    return folder


def lines_of(folder: Path, step: int, arm: str) -> list:
    return read_arm(folder / "out" / f"run_global_step_{step}" / f"{arm}.jsonl")


def test_an_arm_with_the_runs_settings_and_demonstrations_is_the_runs_own_sft_phase_to_the_bit(folder):
    arm, after = lines_of(folder, 1, "as_the_run"), lines_of(folder, 2, "as_the_run")
    assert isinstance(arm[-1], Ended) and isinstance(after[0], Began)
    assert arm[-1].weights_sha256 == after[0].weights_sha256 != arm[0].weights_sha256
    assert len(arm[-1].weights_sha256) == 2
    of_run = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").open()]
    losses = [line["loss"] for line in of_run if line["phase"] == "sft" and line["step"] == 2]
    assert [line.loss for line in arm if isinstance(line, Updated)] == losses and len(losses) == 2


def test_all_arms_begin_at_the_same_weights_and_answers_and_two_alike_are_the_same_to_the_bit(folder):
    one, two, frozen = (lines_of(folder, 1, arm) for arm in ("as_the_run", "again", "frozen"))
    assert one[0].weights_sha256 == two[0].weights_sha256 == frozen[0].weights_sha256
    assert one[1] == two[1] == frozen[1]
    assert one[1:-1] == two[1:-1] and one[-1].weights_sha256 == two[-1].weights_sha256
    assert frozen[-1].weights_sha256 != one[-1].weights_sha256


def test_an_arm_is_measured_at_its_start_where_it_is_asked_for_and_at_its_end(folder):
    measured = [line for line in lines_of(folder, 1, "as_the_run") if isinstance(line, Measured)]
    assert [line.update for line in measured] == [0, 1, 2]
    assert [len(line.own) for line in measured] == [88, 88, 88]
    assert (measured[0].kl, measured[0].weight_change) == (0.0, 0.0)
    assert 0 < measured[1].weight_change < measured[2].weight_change and measured[1].kl > 0
    assert measured[0].cross_entropy_demonstrations > measured[2].cross_entropy_demonstrations


def test_the_frozen_half_of_an_arm_holds_still(folder):
    lines = lines_of(folder, 1, "frozen")
    assert (lines[0].mask["num_frozen"], lines[0].mask["num_coordinates"]) == (444_288, 888_576)
    assert lines[-1].frozen_drift == 0.0
    assert lines_of(folder, 1, "as_the_run")[0].mask is None


def test_only_what_is_missing_is_made_again_and_it_is_the_same_to_the_bit(folder):
    files = {arm: folder / "out" / "run_global_step_1" / f"{arm}.jsonl" for arm in ("as_the_run", "again", "frozen")}
    before, kept = read_arm(files["frozen"]), {arm: files[arm].stat().st_mtime_ns for arm in ("as_the_run", "again")}
    files["frozen"].rename(files["frozen"].with_name(".frozen.jsonl"))  # as a killed fork leaves it
    said = fork(folder, 1)
    after = read_arm(files["frozen"])
    assert before[:-1] == after[:-1] and before[-1].weights_sha256 == after[-1].weights_sha256
    assert {arm: files[arm].stat().st_mtime_ns for arm in kept} == kept
    assert "run_global_step_1 frozen: " in said and "run_global_step_1 again: " not in said
    assert {file.name for file in (folder / "out").glob("fork.*")} == {"fork.md", "fork.csv", "fork.html"}
    assert not list((folder / "out").glob(".model.*"))
