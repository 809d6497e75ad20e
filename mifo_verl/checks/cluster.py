"""Whether a Ray cluster has the GPUs that a run asks for, and every node the run's files.

``python -m mifo_verl.checks.cluster [--wait=<seconds>] <address> <override> ...``, which the files of ``launch/`` ask
before a run starts. Exit code 2 and one line where it would fail, or wait for ever; nodes may take so long to come.
"""

import logging
import sys
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mifo_verl.checks.run import FILES, HUB_NAME, paths_of
from mifo_verl.compose import ConfigError, compose_config

MODEL = "actor_rollout_ref.model.path"


def gpus_of_nodes(address: str) -> list[int]:
    """GPUs of every live node of the cluster at ``http://<head>:<dashboard port>`` or ``<head>:<port>``.

    Raises ConfigError where the cluster does not answer, or asks for a token that this machine does not have.
    """
    from ray.exceptions import AuthenticationError
    from ray.util.state import list_nodes
    from ray.util.state.exception import RayStateApiException

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        nodes = list_nodes(address=address)
    except AuthenticationError:
        raise ConfigError(
            f"address={address} must be given the cluster's token; copy ~/.ray/auth_token of its head to this machine, "
            "or set RAY_AUTH_TOKEN and RAY_AUTH_MODE=token"
        ) from None
    except (RayStateApiException, ConnectionError, ValueError):
        raise ConfigError(
            f"address={address} must be a cluster that runs, and none answers there; start it with ray start --head "
            "--dashboard-host 0.0.0.0, or open the dashboard's port, 8265 by default"
        ) from None
    return [int((node.resources_total or {}).get("GPU", 0)) for node in nodes if node.state == "ALIVE"]


def missing_gpus(nodes: list[int], num_nodes: int, num_gpus: int, where: str) -> str | None:
    """One line if ``num_nodes`` x ``num_gpus`` do not fit the GPUs of the nodes; the GPUs of one are never spread."""
    if sum(there // num_gpus for there in nodes) >= num_nodes:
        return None
    has = ", ".join(f"{nodes.count(gpus)} with {gpus}" for gpus in sorted(set(nodes), reverse=True)) or "none"
    return (
        f"trainer.nnodes={num_nodes} must be at most the nodes with trainer.n_gpus_per_node={num_gpus} GPUs of "
        f"{where}, which has these nodes: {has}; add nodes (ray start --address=<head>:6379), or make one smaller"
    )


def relative_paths(node: DictConfig) -> list[str]:
    """A line for every path of the run that other nodes would look for in a folder of their own."""
    named = {key: paths_of(OmegaConf.select(node, key)) for key in ("run_dir", *FILES, MODEL)}
    named[MODEL] = [path for path in named[MODEL] if Path(path).exists() or not HUB_NAME.fullmatch(path)]
    return [
        f"{key}={path} must be an absolute path on storage that every node sees; write {key}={Path(path).absolute()} "
        "if this folder is such storage"
        for key, paths in named.items()
        for path in paths
        if not Path(path).expanduser().is_absolute()
    ]


def main(arguments: list[str]) -> int:
    """Compare; returns the exit code."""
    waits = [argument for argument in arguments if argument.startswith("--wait=")]
    address, *overrides = arguments[len(waits) :]
    until = time.monotonic() + float(waits[0].partition("=")[2] if waits else 0)
    try:
        node = compose_config(overrides).node
        if lines := relative_paths(node):
            raise ConfigError(*lines)
        trainer = node.trainer
        while line := _missing(address, trainer.nnodes, trainer.n_gpus_per_node):
            if time.monotonic() >= until:
                raise ConfigError(line)
            time.sleep(2)
    except ConfigError as error:
        for line in error.errors:
            print(f"error: {line}", file=sys.stderr)
        return 2
    return 0


def _missing(address: str, num_nodes: int, num_gpus: int) -> str | None:
    try:
        return missing_gpus(gpus_of_nodes(address), num_nodes, num_gpus, address)
    except ConfigError as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
