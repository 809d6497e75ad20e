"""Ray's workers as forks of one process that has imported verl already.

A run on a CPU has ten Ray workers on one machine, and each would spend seconds on the same imports. ``running`` begins
a server that makes these imports once, while the driver imports verl itself and starts Ray. Ray then runs
``start_worker.py`` where it would run its ``setup_worker.py``; it hands its arguments, environment and outputs to the
server, which forks the worker. If there is no server it goes on as Ray does.
"""

import gc
import importlib
import json
import os
import runpy
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mifo_verl.run import noise

WANTED = "MIFO_FORK_WORKERS"
"""Environment variable: ``1`` if workers are to be forked (``hardware=cpu``)."""
SERVER = "MIFO_FORK_SERVER"
"""Environment variable: the server's name among the abstract Unix sockets of this machine."""
_REQUEST_BYTES = 1 << 20
_LIBRARIES = (
    "accelerate",
    "datasets",
    "peft",
    "tensordict",
    "torch.distributed.fsdp",
    "transformers.models.auto.modeling_auto",
    "transformers.models.qwen2.modeling_qwen2",
)
_WITH_RAY = (
    "mifo_verl.verl.trainer",
    "mifo_verl.verl.task_runner",
    "mifo_verl.cpu.rollout",
    "ray._private.external_storage",
    "ray._private.workers.setup_worker",
)


@contextmanager
def running() -> Iterator[subprocess.Popen[bytes] | None]:
    """The server for the workers of this process's own Ray cluster, if the environment wants one.

    It ends when its standard input does: with this block, or with this process.
    """
    if os.environ.get(WANTED) != "1" or os.environ.get("RAY_ADDRESS", "local") not in ("", "local"):
        yield None
        return
    from ray._private import ray_constants

    os.environ[SERVER] = f"mifo-{os.getpid()}-{secrets.token_hex(8)}"
    ray_constants.SETUP_WORKER_FILENAME = str(Path(__file__).with_name("start_worker.py"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{os.environ[SERVER]}")
        listener.listen(64)  # before the imports: who asks early waits for them
        command = [sys.executable, "-W", "ignore", "-m", __name__, str(listener.fileno())]
        held = [listener.fileno()]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=held, start_new_session=True)
    try:
        yield server
    finally:
        assert server.stdin is not None
        server.stdin.close()


def serve(listener: int) -> Callable[[], None]:
    """Fork a worker for every request until the process that started this ends; returns what a fork has to do.

    Ray reads the job and the raylet from the environment once, as it is imported: that waits for the first request.
    A raylet after it, of a run that was restarted, is refused.
    """
    noise.leave_out()
    with socket.socket(fileno=listener) as listening:
        _import(_LIBRARIES)
        raylet = None
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
            with listening.accept()[0] as asking:
                request, outputs, _, _ = socket.recv_fds(asking, _REQUEST_BYTES, 2)
                if not request or _user_of(asking) != os.getuid():
                    continue
                wanted = json.loads(request)
                if raylet is None:
                    raylet = wanted["environment"]["RAY_RAYLET_PID"]
                    os.environ.update(wanted["environment"])
                    _import(_WITH_RAY)
                    gc.freeze()  # or the first collection of a fork copies every page
                if wanted["environment"]["RAY_RAYLET_PID"] == raylet:
                    if os.fork() == 0:
                        return lambda: _become_worker(wanted, outputs)
                    with suppress(OSError):  # Ray has given it up meanwhile
                        asking.send(b"forked")
                for output in outputs:
                    os.close(output)
    return lambda: None


def _import(names: tuple[str, ...]) -> None:
    for name in names:
        importlib.import_module(name)


def _user_of(peer: socket.socket) -> int:
    """Abstract sockets have no owner that the kernel checks."""
    _, user, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(user)


def _become_worker(request: dict[str, Any], outputs: list[int]) -> None:
    """What Ray's ``setup_worker.py`` and the worker's script do, in this process."""
    from ray._private.runtime_env.context import RuntimeEnvContext
    from ray._private.utils import update_envs
    from ray._private.workers.setup_worker import parser

    from mifo_verl.run.stacks import listen

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()  # Ray ends the group of a worker that has died
    for source, target in zip([os.open(os.devnull, os.O_RDONLY), *outputs], range(3), strict=True):
        os.dup2(source, target)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    known, sys.argv = parser.parse_known_args(request["arguments"])
    update_envs(RuntimeEnvContext.deserialize(known.serialized_runtime_env_context or "{}").env_vars)
    sys.path[0] = str(Path(sys.argv[0]).parent)
    listen()
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    serve(int(sys.argv[1]))()
