"""Workers as forks: what Ray asks of its own script is what the fork gets."""

import json
import os
import subprocess
import sys
from pathlib import Path

from ray._private import ray_constants

from mifo_verl.cpu import forkserver

WORKER = """
import json, os, sys, threading
facts = {"arguments": sys.argv[1:], "folder": os.getcwd(), "path": sys.path[0], "name": __name__, "pid": os.getpid()}
facts |= {"session": os.getsid(0), "of_ray": os.environ.get("OF_RAY"), "of_run": os.environ.get("OF_RUN")}
facts |= {"loaded": "mifo_verl.verl.trainer" in sys.modules, "threads": threading.active_count(), "parent": os.getppid()}
print(json.dumps(facts), flush=True)
"""


def _worker(folder: Path, raylet: str, **more: str) -> dict:
    context = json.dumps({"env_vars": {"OF_RUN": "b"}})
    worker = folder / "default_worker.py"
    command = [sys.executable, ray_constants.SETUP_WORKER_FILENAME, str(worker), "--a=1"]
    command += [f"--serialized-runtime-env-context={context}", "--language=PYTHON"]
    environment = {**os.environ, "RAY_RAYLET_PID": raylet, "RAY_JOB_ID": "01000000", "OF_RAY": "a", **more}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, timeout=120)
    return json.loads(done.stdout)


def test_a_worker_is_a_fork_with_what_ray_gave_it_and_the_server_ends_with_the_run(tmp_path, monkeypatch):
    for name in (forkserver.SERVER, "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(forkserver.WANTED, "1")
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setattr(ray_constants, "SETUP_WORKER_FILENAME", "setup_worker.py")
    (tmp_path / "default_worker.py").write_text(WORKER)
    (tmp_path / "setup_worker.py").write_text("import json, sys; print(json.dumps({'rays own': sys.argv[2:3]}))")
    with forkserver.running() as server:
        first, second = (_worker(tmp_path, raylet="7") for _ in range(2))
        assert first | {"pid": 0, "session": 0} == {
            "arguments": ["--a=1"],
            "folder": str(tmp_path),
            "path": str(tmp_path),
            "name": "__main__",
            "of_ray": "a",
            "of_run": "b",
            "loaded": True,
            "threads": 1,
            "parent": server.pid,
            "pid": 0,
            "session": 0,
        }
        assert first["session"] == first["pid"] != second["pid"]
        assert _worker(tmp_path, raylet="8") == {"rays own": ["--a=1"]}, (
            "Ray reads a raylet once: another one's is no fork"
        )
    assert server.wait(20) == 0
    assert _worker(tmp_path, raylet="7") == {"rays own": ["--a=1"]}, "without a server Ray's own script runs"


def test_no_server_is_begun_where_none_is_wanted_or_the_cluster_is_another_ones(monkeypatch):
    monkeypatch.delenv(forkserver.SERVER, raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv(forkserver.WANTED, "1")
    with forkserver.running() as server:
        assert server is None
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv(forkserver.WANTED, "0")
    with forkserver.running() as server:
        assert server is None and forkserver.SERVER not in os.environ
