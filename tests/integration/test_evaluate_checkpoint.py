"""A run of another seed with an SFT phase, and its end evaluated: the curve and the table give the same numbers."""

import json
from pathlib import Path
from typing import Any

import pytest

from mifo_verl.data.parquet import write_rows
from mifo_verl.tools.evaluate.__main__ import main
from mifo_verl.tools.prepare import addition
from tests.integration.test_run import left_in, train

# as in validation: the run's seed, temperature and length, and the rollout server's rows in the model
EVALUATE = ["seed=3", "temperature=1.0", "max_tokens=64", "batch=128", "threads=1", "engine=transformers"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run of two steps with an SFT phase, its validation questions beside it."""
    folder = tmp_path_factory.mktemp("runs") / "curve"
    questions = folder / "validation.parquet"
    questions.parent.mkdir()
    write_rows(addition.rows({1: 4, 2: 40, 3: 40, 4: 2, 5: 2}, "validation", 0), questions)
    validates = [f"data.val_files={questions}", "data.val_max_samples=-1"]
    train(folder / "run", "seed=3", "trainer.total_training_steps=2", "mifo.probe.around_sft=false", *validates)
    return folder


@pytest.fixture(scope="module")
def table(folder) -> dict[str, Any]:
    asked = [f"model={folder}/run", f"benchmarks=[{folder}/validation.parquet]", f"out={folder}/evaluation"]
    assert main([*asked, *EVALUATE]) == 0
    [model] = json.loads((folder / "evaluation" / "results.json").read_text())["models"]
    return model


def test_another_seed_gives_another_run(folder, whole_run):
    first, other = left_in(whole_run, ""), left_in(folder / "run", "")
    assert "tensorboard" in other["files"]
    keys = ("reward", "entropy", "loss", "grad_norm")
    assert all(other["metrics"][0][key] != first["metrics"][0][key] for key in keys)


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
