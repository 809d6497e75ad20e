"""What the machine and the cluster offer: GPUs, Ray, trackers, the run's folder, the plug-in of verl."""

import netrc
import os
import shutil
import subprocess
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from omegaconf import OmegaConf

from mifo_verl.checks.cluster import gpus_of_nodes, missing_gpus
from mifo_verl.checks.findings import Findings
from mifo_verl.checks.run import Run
from mifo_verl.compose import ConfigError
from mifo_verl.errors import nearest

TRACKERS = ["console", "tensorboard", "wandb", "mlflow", "swanlab", "vemlp_wandb", "clearml", "trackio", "file"]
TRACKERS += ["rl_insight"]
_PACKAGES = {"vemlp_wandb": "volcengine_ml_platform", "tensorboard": "tensorboard"}
_KEYS = {"wandb": "WANDB_API_KEY", "swanlab": "SWANLAB_API_KEY"}
_ACTORS_BESIDE_RANKS = 4
"""Controller, agent loops, reward, rollout server: a logical CPU each, at least."""


def visible_gpus() -> list[int] | None:
    """Memory of each GPU that this process may use, in bytes; None where the driver does not say."""
    if shutil.which("nvidia-smi") is None:
        return [] if not Path("/dev/nvidiactl").exists() else None
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout.strip().splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [[part.strip() for part in line.split(",")] for line in lines]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    wanted = None if chosen is None else [name for name in chosen.split(",") if name]
    return [int(memory) << 20 for index, uuid, memory in rows if wanted is None or index in wanted or uuid in wanted]


def check_gpus(run: Run, found: Findings) -> None:
    """As many GPUs and nodes as asked for, as far as can be known from here."""
    address, nodes, ranks = os.environ.get("RAY_ADDRESS"), run.get("trainer.nnodes"), run.get("trainer.n_gpus_per_node")
    if address:
        known = address in ("auto", "local") or address.rpartition(":")[2].isdigit()
        rule = "auto, local, <host>:<port> or ray://<host>:<port>"
        found.require(known, "RAY_ADDRESS", address, rule, "add the port, 6379 by default")
    is_local = not address or address == "local"
    rule = "1 without a cluster: Ray would wait for the others for ever"
    found.require_here(nodes == 1 or not is_local, "trainer.nnodes", nodes, rule, "start a cluster and set RAY_ADDRESS")
    if not is_local:
        try:
            line = missing_gpus(gpus_of_nodes(str(address)), nodes, ranks, f"RAY_ADDRESS={address}")
        except ConfigError as error:
            found.warn(f"trainer.n_gpus_per_node={ranks} is not checked: {error}", "see ray status")
        else:
            found.error(line) if line else found.note(f"{nodes} nodes of {ranks} GPUs")
        return
    if run.get("trainer.device") != "cuda":
        return
    gpus = visible_gpus()
    if gpus is None:
        found.warn(f"trainer.n_gpus_per_node={ranks} is not checked: the driver does not answer", "see nvidia-smi")
        return
    rule = f"at most the {len(gpus)} GPUs of this machine"
    cure = "make it smaller, set RAY_ADDRESS for a cluster, or hardware=cpu"
    found.require_here(ranks <= len(gpus), "trainer.n_gpus_per_node", ranks, rule, cure)
    found.note(f"{ranks} of {len(gpus)} GPUs")


def check_cpus(run: Run, found: Findings) -> None:
    """Logical CPUs for every actor; Ray waits for ever for one that never comes."""
    cpus, key = run.get("ray_kwargs.ray_init.num_cpus"), "ray_kwargs.ray_init.num_cpus"
    needed = run.num_ranks + _ACTORS_BESIDE_RANKS
    if os.environ.get("RAY_ADDRESS") in (None, "", "local") and isinstance(cpus, int):
        rule = f"at least {needed}: {run.num_ranks} ranks and {_ACTORS_BESIDE_RANKS} more actors"
        found.require(cpus >= needed, key, cpus, rule, "they are logical; write 16")


def check_trackers(run: Run, found: Findings) -> None:
    """Every tracker is known, installed and logged in to."""
    asked = run.get("trainer.logger")
    found.require(asked is not None, "trainer.logger", asked, "a tracker or a list", "write trainer.logger=[console]")
    for name in list(asked or []) if OmegaConf.is_list(asked) else [asked]:
        rule = f"one of {', '.join(TRACKERS)}{nearest(str(name), TRACKERS)}"
        if not found.require(name in TRACKERS, "trainer.logger", name, rule, "write trainer.logger=[console] for none"):
            continue
        package = _PACKAGES.get(name, name)
        if name not in ("console", "file"):
            rule, there = f"installed, and there is no package {package} here", find_spec(package) is not None
            if not found.require_here(there, "trainer.logger", name, rule, f"pip install {package}"):
                continue
        key = _KEYS.get(name)
        if key:
            rule = f"logged in to, and neither {key} nor a saved log-in is there"
            cure = f"{name} login, or {key}=<key>, or {name.upper()}_MODE=offline"
            found.require_here(_is_logged_in(name, key), "trainer.logger", name, rule, cure)


def check_folder(run: Run, found: Findings) -> None:
    """The run's folder can be written."""
    for key in ("run_dir", "trainer.default_local_dir"):
        folder = Path(str(run.get(key))).absolute()
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        writable = there.is_dir() and os.access(there, os.W_OK) and not str(there).startswith("/proc")
        found.require(writable, key, folder, f"a folder that can be written, and {there} cannot", "choose another")


def check_plugin(run: Run, found: Findings) -> None:
    """verl will load this package in every process. ``mifo_verl.plugin`` itself would import verl."""
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    allowed = policy == "auto" or "mifo_verl" in {name.strip() for name in policy.split(",")}
    rule = "auto or a list with mifo_verl, or verl does not load it"
    found.require(allowed, "VERL_USE_EXTERNAL_PLUGINS", policy, rule, "unset it")
    if "mifo_verl" not in {entry.name for entry in entry_points(group="verl.plugins")}:
        found.error("mifo_verl must be installed as a plug-in of verl; run pip install -e '.[cpu]' or '.[gpu]'")


def _is_logged_in(name: str, key: str) -> bool:
    mode = os.environ.get(f"{name.upper()}_MODE", "").lower()
    if os.environ.get(key) or mode in ("offline", "disabled", "local"):
        return True
    if name != "wandb":
        return (Path.home() / ".swanlab").exists()
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
