"""A package of a user's own brings a part, a reward and an experiment; nothing of mifo_verl is edited for it.

docs/extend.md shows this package. It is installed into a folder of its own, as pip installs any package, and trained with.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mifo_verl.checks.__main__ import main as check

REPOSITORY = Path(__file__).parents[2]
PACKAGE = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "focal-sft"
version = "0.1"

[project.entry-points."mifo_verl.parts"]
focal = "focal_sft.loss"

[tool.setuptools]
packages = ["focal_sft"]

[tool.setuptools.package-data]
focal_sft = ["trainer_configs/**/*.yaml"]
""",
    "focal_sft/__init__.py": "",
    "focal_sft/loss.py": '''
from dataclasses import dataclass

from mifo_verl.errors import require
from mifo_verl.method.sft_loss import SFT_LOSSES, SftLoss, mean_over_response


@SFT_LOSSES.register("focal")
@dataclass(frozen=True)
class Focal(SftLoss):
    """-(1 - sg[p])^gamma log p: tokens that the model is sure of count less (Lin et al. 2017, equation 4)."""

    gamma: float

    def __post_init__(self):
        require(self.gamma >= 0, "gamma", self.gamma, "a number of at least 0", "write mifo.sft_loss.gamma=2")

    def __call__(self, log_prob_BT, keep_BT, response_mask_BT, facts):
        log_prob_BT = log_prob_BT.float()
        weight_BT = (1 - log_prob_BT.detach().exp()) ** self.gamma
        return mean_over_response(-weight_BT * log_prob_BT, keep_BT, response_mask_BT)

    def describe(self):
        return f"focal loss with gamma {self.gamma:g}"
''',
    "focal_sft/reward.py": '''
def compute_score(data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
    """1 for the right sum in a box, and a bonus for a short answer."""
    right = f"\\\\boxed{{{ground_truth}}}" in solution_str
    return {"score": float(right) + bonus * (right and len(solution_str) < 40), "acc": float(right)}
''',
    "focal_sft/trainer_configs/mifo/sft_loss/focal.yaml": "name: focal\ngamma: 2.0\n",
    "focal_sft/trainer_configs/experiment/focal.yaml": """
# @package _global_
defaults:
  - quickstart
  - override /mifo/sft_loss: focal
name: focal
reward:
  custom_reward_function:
    path: pkg://focal_sft.reward
    reward_kwargs:
      bonus: 0.5
""".lstrip(),
}
SMALL = (
    "experiment=focal",
    "buffer_size=4",
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "mifo.sft.batch_size=4",
    "data.val_max_samples=20",
    "mifo.probe.around_sft=false",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder that the package is installed into, its metadata beside it."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name, text in PACKAGE.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, capture_output=True)
    return target


def mifo(installed: Path, *arguments: str) -> subprocess.CompletedProcess:
    paths = os.pathsep.join([str(installed), str(REPOSITORY)])
    command = [sys.executable, "-m", "mifo_verl.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "500"}
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600, env=environment)


def test_the_experiment_and_the_part_are_listed_by_the_help(installed):
    lines = mifo(installed, "train", "--help").stdout.splitlines()
    chosen = {line.split("=")[0].strip(): line.partition("=")[2] for line in lines if line.startswith("  ")}
    assert "focal" in chosen["experiment"] and "entropy_gate, focal, idft" in chosen["mifo/sft_loss"]


def test_the_check_refuses_a_wrong_setting_by_the_parts_own_rule(installed, tmp_path):
    bad = mifo(installed, "check", *SMALL, f"run_dir={tmp_path}/run", "mifo.sft_loss.gamma=-1")
    assert bad.returncode == 2
    assert "mifo.sft_loss.gamma=-1 must be a number of at least 0" in bad.stdout + bad.stderr


@pytest.fixture(scope="module")
def run(installed, tmp_path_factory) -> Path:
    """A run of it: SFT in the first of three steps, RL in the others."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    stages = ["method=sft_then_rl", "mifo.schedule.sft_steps=1", "trainer.total_training_steps=3"]
    done = mifo(installed, "train", *SMALL, *stages, f"run_dir={folder}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def lines_of(run: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]


def test_it_trains_with_part_and_reward_and_the_ledger_and_the_report_know_the_run(installed, run):
    lines = lines_of(run, "metrics")
    rl, sft = ([line for line in lines if line["phase"] == phase] for phase in ("rl", "sft"))
    assert len(rl) == 2 and len(sft) >= 1 and all(line["loss"] > 0 for line in sft)
    assert any(line["reward"] > line["accuracy"] for line in rl), "the bonus of the package's reward"
    ledger = mifo(installed, "ledger", str(run))
    assert ledger.returncode == 0 and "no fault" in ledger.stdout
    assert "focal" in (run / "report.html").read_text()


def test_sft_comes_before_rl_on_the_data_set_s_own_demonstrations(run):
    metrics, ledger = lines_of(run, "metrics"), lines_of(run, "ledger")
    assert [(line["step"], line["phase"]) for line in metrics] == [(1, "sft"), (1, "sft"), (2, "rl"), (3, "rl")]
    assert len(ledger) == 8 and len({use["prompt_id"] for use in ledger}) == 8
    for use in ledger:
        assert (use["step"], use["num_correct"], use["num_rollouts"]) == (1, None, None)
        assert use["kept_tokens"] == use["response_tokens"]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["rl_steps"] == 2 and summary["sft_updates"] == 2


def test_without_the_package_its_part_is_an_unknown_name(capsys, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert check(["experiment=quickstart", "mifo.sft_loss.name=focal"]) == 2
    assert "mifo.sft_loss.name=focal must be one of" in capsys.readouterr().out
