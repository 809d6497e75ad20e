"""The stacks of a run that hangs, written by a thread of each process, whatever its other threads wait for.

Every process that loads the plug-in has such a thread, and a file of its own in ``<run>/.stacks/``. Who wants the
stacks touches the file ``ask`` there on every node, and gathers what they wrote. ``mifo stacks`` asks so.
"""

import contextlib
import faulthandler
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import ray

from mifo_verl.run.processes import STOPPED, process_of, task_on

FOLDER = "MIFO_STACKS"
"""Environment variable: the folder on shared storage in which every process of the run has its file."""
CLUSTER = "cluster.json"
ASK = "ask"
_POLL_SECONDS = 0.5
_DUMP_SECONDS = 5.0
_NODE_SECONDS = 30.0

_file: Any = None


def open_folder(run: Path) -> Path:
    """An empty folder for the stacks of a run that starts; this process and those it starts know of it."""
    held = stacks_folder(run)
    shutil.rmtree(held, ignore_errors=True)
    held.mkdir(exist_ok=True)  # a file that a process still holds stays on NFS
    os.environ[FOLDER] = str(held)
    listen()
    return held


def listen() -> None:
    """Let this process write its stacks when it is asked to, where its run has a folder for them."""
    global _file
    folder = os.environ.get(FOLDER)
    if folder is None or _file is not None:
        return
    name = f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"
    with contextlib.suppress(OSError):  # a process without stacks is worth more than none
        _file = open(Path(folder) / name, "w")  # noqa: SIM115  held while this process lives
        ask = Path(folder) / ASK
        seen = _asked_at(ask)  # here: the thread may begin after the next request
        threading.Thread(target=_answer_asked, args=(ask, seen, _file), name="stacks", daemon=True).start()


def _answer_asked(ask: Path, seen: int, file: Any) -> None:
    """Write the stacks of all threads whenever they are asked for after ``seen``.

    By a thread, which holds the interpreter's lock as it writes: a handler of a signal does not, and crashes where it
    meets a thread in the middle of a call.
    """
    while True:
        time.sleep(_POLL_SECONDS)
        if (now := _asked_at(ask)) != seen:
            seen = now
            faulthandler.dump_traceback(file, all_threads=True)


def _asked_at(ask: Path) -> int:
    with contextlib.suppress(OSError):
        return ask.stat().st_mtime_ns
    return 0


def note_cluster() -> None:
    """Keep how another process comes to this Ray cluster."""
    folder = os.environ.get(FOLDER)
    if folder is not None:
        address = ray.get_runtime_context().gcs_address
        text = json.dumps({"address": address, "auth_mode": os.environ.get("RAY_AUTH_MODE")})
        (Path(folder) / CLUSTER).write_text(text + "\n")


def connect_to(cluster: Mapping[str, Any]) -> None:
    """Connect to the Ray cluster that a run has noted. Raises what says why not."""
    if "address" not in cluster:
        raise ConnectionError("the run has not come to its controller yet")
    ray.init(address=cluster["address"], log_to_driver=False, logging_level="ERROR")


def write_stacks(folder: Path, connect: Callable[[], None] = lambda: None) -> Path:
    """Write the stacks of all processes of a run into one file of its folder; returns it.

    This machine's are asked for directly; where the run has processes on others, ``connect`` is called for Ray, which
    does the same on its other nodes.
    """
    held = stacks_folder(folder)
    texts = [stacks_here(str(held))]
    hosts = {file.name.split(":")[0] for file in held.iterdir() if ":" in file.name} - {socket.gethostname()}
    if hosts:
        texts += _stacks_elsewhere(str(held), hosts, connect)
    file = folder / time.strftime("stacks-%Y%m%d-%H%M%S.txt")
    file.write_text("\n".join(texts))
    return file


def stacks_folder(folder: Path) -> Path:
    """Where the processes of the run in a folder leave their stacks."""
    return folder / ".stacks"


def _stacks_elsewhere(held: str, hosts: set[str], connect: Callable[[], None]) -> list[str]:
    try:
        connect()
        own = ray.get_runtime_context().get_node_id()
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != own]
        tasks = {task_on(node, stacks_here, held): node for node in nodes}
        done, late = ray.wait(list(tasks), num_returns=len(tasks), timeout=_NODE_SECONDS)
        return [ray.get(task) for task in done] + [f"=== node {tasks[task]} does not answer\n" for task in late]
    except Exception as error:
        return [f"=== {', '.join(sorted(hosts))}: not asked ({' '.join(str(error).split())[:300]})\n"]


def stacks_here(folder: str) -> str:
    """The stacks of every process of this machine that listens, as text."""
    asked = {}
    for file in sorted(Path(folder).glob(f"{socket.gethostname()}:*")):
        _, pid, created = file.name.split(":")
        process = process_of(int(pid), float(created))
        if process is not None:
            asked[file] = process, file.stat().st_size
    (Path(folder) / ASK).touch()
    _await_all(asked)
    return "\n".join(_answer(file, process, before) for file, (process, before) in asked.items())


def _await_all(asked: dict[Path, tuple[psutil.Process, int]]) -> None:
    """Wait until every process that can write has written, and a moment more."""
    deadline, before = time.monotonic() + _DUMP_SECONDS, -1
    while time.monotonic() < deadline:
        sizes = {file: file.stat().st_size for file in asked}
        wrote = all(sizes[file] > size or _is_stopped(process) for file, (process, size) in asked.items())
        if wrote and sum(sizes.values()) == before:
            return
        before = sum(sizes.values())
        time.sleep(0.2)


def _answer(file: Path, process: psutil.Process, before: int) -> str:
    with open(file) as written:
        written.seek(before)
        text = written.read()
    try:
        rank, times = process.environ().get("RANK"), process.cpu_times()
        name = " ".join(process.cmdline()).strip()[:120].strip() + (f", rank {rank}" if rank else "")
        facts = f"{name}; {process.status()}, {times.user + times.system:.1f} s of CPU"
    except psutil.Error:
        facts = "it has just ended"
    return f"=== {socket.gethostname()} pid {process.pid}: {facts}\n{text or 'does not answer' + chr(10)}"


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return process.status() in STOPPED
    except psutil.Error:
        return False
