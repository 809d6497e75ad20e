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
from mifo_verl.tools.fork.records import Arm, read_arm

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
  replayed: mifo/constraint=replay mifo.sft.own_rollouts=8
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


def arm_of(folder: Path, step: int, arm: str) -> Arm:
    return read_arm(folder / "out" / f"run_global_step_{step}" / f"{arm}.jsonl")


def test_an_arm_with_the_runs_settings_and_demonstrations_is_the_runs_own_sft_phase_to_the_bit(folder):
    arm, after = arm_of(folder, 1, "as_the_run"), arm_of(folder, 2, "as_the_run")
    assert arm.ended.weights_sha256 == after.began.weights_sha256 != arm.began.weights_sha256
    assert len(arm.ended.weights_sha256) == 2  # ranks
    of_run = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").open()]
    losses = [line["loss"] for line in of_run if line["phase"] == "sft" and line["step"] == 2]
    assert [one.loss for one in arm.updated] == losses and len(losses) == 2


def test_all_arms_begin_at_the_same_weights_and_answers_and_two_alike_are_the_same_to_the_bit(folder):
    one, two, frozen = (arm_of(folder, 1, arm) for arm in ("as_the_run", "again", "frozen"))
    assert one.began.weights_sha256 == two.began.weights_sha256 == frozen.began.weights_sha256
    assert one.measured[0] == two.measured[0] == frozen.measured[0]
    assert (one.updated, one.measured) == (two.updated, two.measured)
    assert one.ended.weights_sha256 == two.ended.weights_sha256 != frozen.ended.weights_sha256


def test_an_arm_is_measured_at_its_start_where_it_is_asked_for_and_at_its_end(folder):
    measured = arm_of(folder, 1, "as_the_run").measured
    assert [one.update for one in measured] == [0, 1, 2]
    assert [len(one.own) for one in measured] == [88, 88, 88]
    assert (measured[0].kl, measured[0].weight_change) == (0.0, 0.0)
    assert 0 < measured[1].weight_change < measured[2].weight_change and measured[1].kl > 0
    assert measured[0].cross_entropy_demonstrations > measured[2].cross_entropy_demonstrations


def test_the_frozen_half_of_an_arm_holds_still(folder):
    frozen = arm_of(folder, 1, "frozen")
    assert (frozen.began.mask["num_frozen"], frozen.began.mask["num_coordinates"]) == (444_288, 888_576)
    assert frozen.ended.frozen_drift == 0.0 and arm_of(folder, 1, "as_the_run").began.mask is None


def test_an_arm_that_needs_own_rollouts_gets_the_checkpoints_right_answers_to_its_runs_questions(folder):
    plain, replayed = arm_of(folder, 1, "as_the_run"), arm_of(folder, 1, "replayed")
    assert (replayed.began.weights_sha256, replayed.measured[0]) == (plain.began.weights_sha256, plain.measured[0])
    assert replayed.updated[0].loss == plain.updated[0].loss  # of the demonstrations alone, before any update
    assert replayed.updated[0].grad_norm != plain.updated[0].grad_norm
    assert replayed.ended.weights_sha256 != plain.ended.weights_sha256


def test_only_what_is_missing_is_made_again_and_it_is_the_same_to_the_bit(folder):
    files = {arm: folder / "out" / "run_global_step_1" / f"{arm}.jsonl" for arm in ("as_the_run", "again", "frozen")}
    before, kept = read_arm(files["frozen"]), {arm: files[arm].stat().st_mtime_ns for arm in ("as_the_run", "again")}
    files["frozen"].rename(files["frozen"].with_name(".frozen.jsonl"))  # as a killed fork leaves it
    said = fork(folder, 1)
    after = read_arm(files["frozen"])
    assert (before.began, before.updated, before.measured) == (after.began, after.updated, after.measured)
    assert before.ended.weights_sha256 == after.ended.weights_sha256
    assert {arm: files[arm].stat().st_mtime_ns for arm in kept} == kept
    assert "run_global_step_1/frozen.jsonl: " in said and "again.jsonl: " not in said
    assert {file.name for file in (folder / "out").glob("fork.*")} == {"fork.md", "fork.csv", "fork.html"}
    assert not list((folder / "out").glob(".model.*"))
