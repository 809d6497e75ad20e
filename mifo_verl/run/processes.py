"""The processes of a run, seen from outside: where an actor lives, what its node's operating system says of it.

A process that hangs answers nobody, and what is busy and what is stopped look the same from inside Ray.
"""

import contextlib
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
_NODE_SECONDS = 10.0


@dataclass(frozen=True)
class Place:
    """Where a process is. ``created``, in seconds since the epoch, and the pid name a process for good."""

    node_id: str
    host: str
    pid: int
    created: float


@dataclass(frozen=True)
class Look:
    """A process as its operating system sees it; ``state`` is psutil's word, or ``gone`` if it does not exist."""

    state: str
    cpu_seconds: float = 0.0

    @property
    def is_stopped(self) -> bool:
        """By SIGSTOP or by a debugger. A process that is busy or waits never is."""
        return self.state in STOPPED


def place(_: Any = None) -> Place:
    """Where this process is; actors are asked by ``__ray_call__``."""
    node_id = ray.get_runtime_context().get_node_id()
    return Place(node_id, socket.gethostname(), os.getpid(), psutil.Process().create_time())


def look(place: Place) -> Look:
    """A process of this machine."""
    process = process_of(place.pid, place.created)
    if process is None:
        return Look("gone")
    times = process.cpu_times()
    return Look(process.status(), times.user + times.system)


def look_at_all(places: Iterable[Place]) -> dict[Place, Look]:
    """Processes as their nodes see them, all nodes asked at once; without those of nodes that do not answer in time."""
    by_node: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        by_node[place.node_id].append(place)
    here = by_node.pop(ray.get_runtime_context().get_node_id(), [])
    tasks = [task_on(node, _look_at_each, there) for node, there in by_node.items()]
    seen = _look_at_each(here)
    for task in ray.wait(tasks, num_returns=len(tasks), timeout=_NODE_SECONDS)[0] if tasks else []:
        with contextlib.suppress(RayError):
            seen |= ray.get(task)
    return seen


def _look_at_each(places: list[Place]) -> dict[Place, Look]:
    return {place: look(place) for place in places}


def end(place: Place) -> None:
    """SIGKILL to a process, on its node; a stopped one obeys too. Raises a RayError if the node does not answer."""
    if place.node_id == ray.get_runtime_context().get_node_id():
        _kill(place)
    else:
        ray.get(task_on(place.node_id, _kill, place), timeout=_NODE_SECONDS)


def _kill(place: Place) -> None:
    if process := process_of(place.pid, place.created):
        process.kill()


def process_of(pid: int, created: float) -> psutil.Process | None:
    """The live process of this machine with this pid and this start, in seconds since the epoch."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if abs(process.create_time() - created) < 2 and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def free_resources() -> str:
    """What Ray has free, in words."""
    free, there = ray.available_resources(), ray.cluster_resources()
    parts = (f"{free.get(name, 0):g} of {there.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
    return f"{', '.join(parts)} free"


def task_on(node_id: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on a node; the reference to its result."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(function).remote(*arguments)
