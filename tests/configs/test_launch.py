"""The files of launch/ for Slurm and Kubernetes: what a scheduler's signal does, and what a cluster is asked for."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import yaml
from omegaconf import OmegaConf

from mifo_verl.checks.cluster import missing_gpus, relative_paths
from mifo_verl.compose import compose_config
from tests.waiting import wait_until

LAUNCH = Path(__file__).parents[2] / "launch"
STAND_INS = {
    "scontrol": 'case $1 in show) echo node1; echo node2;; *) echo "$@" >> $LOG;; esac',
    "srun": 'echo "srun $*" >> $LOG; while [[ $1 == --* ]]; do [[ $1 == --nodelist ]] && shift; shift; done; exec "$@"',
    "ray": 'echo "ray $*" >> $LOG; [[ $1 == status ]] || exec sleep 60',
    "python": """case "$*" in
*checks.cluster*) ;;
*secrets*) echo token;;
*mifo_verl.train*) trap 'echo heard >> $LOG; sleep 1; exit 75' TERM; echo "train $*" >> $LOG
  [[ "$*" == *ends* ]] || for i in {1..600}; do sleep 0.1; done;;
esac""",
}


@pytest.fixture
def slurm(tmp_path):
    """Start the batch file among stand-ins of what a cluster has; its process, and the file of what they were told."""
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    log = tmp_path / "log"
    log.touch()
    allocation = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_GPUS_ON_NODE": "8"}
    environment = os.environ | allocation | {"PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(log)}
    environment |= {"SLURM_CPUS_PER_TASK": "96"}

    def start(*overrides: str) -> tuple[subprocess.Popen[str], Path]:
        command = ["bash", str(LAUNCH / "slurm.sbatch"), *overrides]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True), log

    return start


def test_slurm_signals_the_batch_shell_the_run_hears_it_once_and_the_job_is_queued_again(slurm):
    process, log = slurm("experiment=mifo", "run_dir=/shared/run 0")
    wait_until(lambda: "train" in log.read_text())
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == 75
    said = log.read_text().splitlines()
    assert said.count("heard") == 1 and said[-1] == "requeue 7"
    assert "train -m mifo_verl.train trainer.resume_mode=auto experiment=mifo run_dir=/shared/run 0" in said
    assert sorted(line.split()[5] for line in said if line.startswith("srun")) == ["node1", "node2"]  # side by side
    assert any(line == "ray start --block --num-cpus 96 --num-gpus 8 --address node1:20007" for line in said)


def test_a_run_that_ends_by_itself_is_not_queued_again(slurm):
    process, log = slurm("run_dir=/shared/ends")
    assert process.wait(20) == 0 and "requeue" not in log.read_text()


def test_slurm_is_told_in_one_line_that_the_folder_must_be_shared(slurm):
    process, log = slurm("experiment=mifo", "run_dir=runs/0")
    assert process.wait(20) == 2 and log.read_text() == ""
    assert process.stderr.read().splitlines()[0].startswith("error: run_dir must be an absolute path")


def test_the_batch_file_asks_slurm_to_signal_the_shell_alone_and_in_time():
    asked = [
        line.split(maxsplit=1)[1]
        for line in (LAUNCH / "slurm.sbatch").read_text().splitlines()
        if line[:8] == "#SBATCH "
    ]
    assert {"--signal=B:USR1@900", "--requeue", "--open-mode=append", "--ntasks-per-node=1"} <= set(asked)


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """Fields and types of ray.io/v1 as KubeRay's Go types declare them, as far as they are for us; Kubernetes drops an
    unknown one in silence. What lies in a pod is Kubernetes' own.
    """


class Pod(Strict):
    containers: list[dict[str, Any]]
    volumes: list[dict[str, Any]]
    terminationGracePeriodSeconds: int


class Template(Strict):
    spec: Pod


class Group(Strict, kw_only=True):
    rayStartParams: dict[str, str]
    template: Template


class Workers(Group, kw_only=True):
    groupName: str
    replicas: int
    minReplicas: int
    maxReplicas: int


class Cluster(Strict):
    rayVersion: str
    headGroupSpec: Group
    workerGroupSpecs: list[Workers]


class Spec(Strict):
    jobId: str
    entrypoint: str
    runtimeEnvYAML: str
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode"]
    backoffLimit: int
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int
    rayClusterSpec: Cluster


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: dict[str, str]
    spec: Spec


CONTAINER = {"name", "image", "env", "lifecycle", "resources", "volumeMounts", "securityContext", "ports"}


def test_the_ray_job_has_only_documented_fields_and_asks_for_what_its_entry_point_uses():
    job: dict[str, Any] = yaml.safe_load((LAUNCH / "rayjob.yaml").read_text())
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    msgspec.convert(job, RayJob)
    for group in (head, workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert set(container) <= CONTAINER
        variables = {variable["name"]: variable["value"] for variable in container["env"]}
        assert all(isinstance(value, str) for value in variables.values())
        assert {"NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"} <= set(variables)
        saving = int(variables["RAY_JOB_STOP_WAIT_TIME_S"])
        assert saving == int(yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"])
        assert pod["terminationGracePeriodSeconds"] >= saving + 60
        assert f"{spec['jobId']} || true" in container["lifecycle"]["preStop"]["exec"]["command"][-1]
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes[mounted["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
        assert "persistentVolumeClaim" in volumes[mounted["/shared"]]
        assert container["resources"]["limits"] == container["resources"]["requests"]
    command = spec["entrypoint"].split()
    assert command[:3] == ["python", "-m", "mifo_verl.train"]
    trainer = compose_config(command[3:]).node.trainer
    gpus = [
        int(g["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]) for g in (head, workers)
    ]
    there = [gpus[0], *[gpus[1]] * workers["replicas"]]
    assert missing_gpus(there, trainer.nnodes, trainer.n_gpus_per_node, "it") is None
    assert trainer.nnodes == len(there)
    assert f"ray=={cluster['rayVersion']}" in (LAUNCH.parent / "docker" / "cpu.lock.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("nodes", "num_nodes", "num_gpus", "has"),
    [
        ([8, 8], 2, 8, None),
        ([8], 2, 4, None),  # two groups of four on one node
        ([8, 4], 2, 8, "1 with 8, 1 with 4"),
        ([4, 4], 1, 8, "2 with 4"),  # no group spreads over nodes
        ([], 1, 1, "none"),
    ],
)
def test_a_cluster_with_too_few_gpus_is_named_with_what_it_has(nodes, num_nodes, num_gpus, has):
    line = missing_gpus(nodes, num_nodes, num_gpus, "http://head:8265")
    assert line == has or f"which has these nodes: {has}; add nodes" in str(line)


def test_a_cluster_that_does_not_answer_is_one_line_at_submission():
    said = submit_checked("http://127.0.0.1:9")
    assert said.returncode == 2 and said.stderr.count("\n") == 1
    assert said.stderr.startswith("error: address=http://127.0.0.1:9 must be a cluster that runs, and none answers")


def submit_checked(address: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    files = [f"data.{split}_files=/shared/{split}.parquet" for split in ("train", "val")]
    command = [str(LAUNCH / "submit.sh"), address, "experiment=quickstart", "run_dir=/shared/runs/0", *files]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path})


def test_a_path_that_other_nodes_would_look_for_in_their_own_folder_is_refused_at_submission(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    given = {
        "run_dir": "/shared/run",
        "data": {"train_files": ["/shared/a.parquet", "data/b.parquet"], "val_files": "/shared/c.parquet"},
        "actor_rollout_ref": {"model": {"path": "models/mine"}},
    }
    lines = relative_paths(OmegaConf.create(given))
    assert [line.partition(" must be an absolute path")[0] for line in lines] == [
        "data.train_files=data/b.parquet",
        "actor_rollout_ref.model.path=models/mine",
    ]
    assert f"write data.train_files={tmp_path / 'data/b.parquet'} if" in lines[0]
    given["data"]["train_files"], given["actor_rollout_ref"]["model"]["path"] = "~/a.parquet", "Qwen/Qwen2.5-7B"
    assert relative_paths(OmegaConf.create(given)) == []
