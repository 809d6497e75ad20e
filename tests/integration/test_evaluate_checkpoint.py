"""The curve and the table: a run's last validation, and the evaluation of what it saves at its end, give the same numbers."""

import json
from pathlib import Path
from typing import Any

import pytest

from mifo_verl.tools.evaluate.__main__ import main as evaluate
from mifo_verl.tools.prepare.__main__ import main as prepare
from tests import forks

TRAIN = [
    "experiment=quickstart",
    "trainer.total_training_steps=2",
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "buffer_size=2",
    "mifo.sft.batch_size=2",
    "mifo.probe.around_sft=false",
    "seed=3",
]
# as in validation: the run's seed, temperature and length, and the rollout server's rows in the model
EVALUATE = ["seed=3", "temperature=1.0", "max_tokens=64", "batch=128", "threads=1", "engine=transformers"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run of two steps with an SFT phase, its data beside it."""
    folder = tmp_path_factory.mktemp("runs") / "curve"
    assert prepare(["addition", f"out={folder}/data", "train=3,60,60,3,3", "val=4,40,40,2,2"]) == 0
    files = [
        f"data.{split}_files={folder}/data/{name}.parquet"
        for split, name in (("train", "train"), ("val", "validation"))
    ]
    forks.train([*TRAIN, *files, f"run_dir={folder}/run"], folder / "run.log")
    return folder


@pytest.fixture(scope="module")
def table(folder) -> dict[str, Any]:
    entry = f"benchmarks=[{folder}/data/validation.parquet]"
    assert evaluate([f"model={folder}/run", entry, f"out={folder}/evaluation", *EVALUATE]) == 0
    [model] = json.loads((folder / "evaluation" / "results.json").read_text())["models"]
    return model


def test_the_evaluated_checkpoint_has_the_accuracy_of_the_last_validation(folder, table):
    curve = json.loads((folder / "run" / "summary.json").read_text())["accuracy_end"]
    mean = curve.pop("mean")
    evaluated = {name: result["metrics"]["avg"]["mean"] for name, result in table["benchmarks"].items()}
    assert evaluated == pytest.approx(curve, abs=1e-9)
    assert table["average"]["avg"]["mean"] == pytest.approx(mean, abs=1e-9)
    assert 0 < mean < 1


def test_the_newest_checkpoint_of_the_run_was_converted_and_named(folder, table):
    assert table["name"] == "run/global_step_2"
    assert (folder / "run" / "checkpoints" / "global_step_2" / "huggingface_float32" / "model.safetensors").is_file()


def test_the_trained_model_is_no_longer_the_one_it_began_with(folder, table):
    from mifo_verl.tools.evaluate.models import digest_of
    from mifo_verl.tools.prepare.tiny_model import START_MODEL

    assert table["digest"] != digest_of(START_MODEL)
