"""The stacks of a run come from every process, whatever it is doing; one that is stopped is named."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from mifo_verl.run import stacks
from mifo_verl.run.processes import end, look, place, task_on
from mifo_verl.tools.stacks import main
from tests.waiting import wait_until

pytestmark = pytest.mark.alone

LISTEN = "from mifo_verl.run.stacks import listen; import threading, time; listen(); print(1, flush=True)"
BUSY = f"""{LISTEN}
def rollout():
    while True: pass
rollout()"""
DEADLOCKED = f"""{LISTEN}
def reward():
    lock = threading.Lock()
    lock.acquire(); lock.acquire()
reward()"""
SLEEPING = f"""{LISTEN}
def update():
    time.sleep(1000)
update()"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of three processes; the last is stopped."""
    (tmp_path / ".stacks").mkdir()
    environment = {**os.environ, stacks.FOLDER: str(tmp_path / ".stacks"), "RANK": "3"}
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
        for code in (BUSY, DEADLOCKED, SLEEPING)
    ]
    for process in started:
        process.stdout.readline()
    os.kill(started[2].pid, signal.SIGSTOP)
    yield tmp_path, [process.pid for process in started]
    for process in started:
        process.kill()
        process.wait()


def parts(text: str) -> dict[int, str]:
    """What is said of each process."""
    return {int(part.split("pid ")[1].split(":")[0]): part for part in text.split("=== ")[1:]}


def test_a_busy_a_deadlocked_and_a_stopped_process(run, capsys):
    folder, (busy, deadlocked, stopped) = run
    began = time.monotonic()
    assert main([str(folder)]) == 0
    file = capsys.readouterr().out.strip()
    said = parts(Path(file).read_text())
    assert said.keys() == {busy, deadlocked, stopped}
    assert "in rollout" in said[busy] and "rank 3; running" in said[busy]
    assert "in reward" in said[deadlocked]
    assert "; stopped" in said[stopped] and "does not answer" in said[stopped]
    assert time.monotonic() - began < stacks._DUMP_SECONDS
    assert look_state(busy) == "running", "who is asked goes on"


def look_state(pid: int) -> str:
    import psutil

    return psutil.Process(pid).status()


def test_a_request_is_answered_that_comes_before_the_listening_thread_has_begun(tmp_path, monkeypatch):
    late = []
    monkeypatch.setenv(stacks.FOLDER, str(tmp_path))
    monkeypatch.setattr(stacks, "_file", None)
    monkeypatch.setattr(stacks.threading.Thread, "start", lambda thread: late.append(thread))
    stacks.listen()
    (tmp_path / stacks.ASK).touch()
    monkeypatch.undo()
    (thread,) = late
    thread.start()
    (file,) = tmp_path.glob(f"*:{os.getpid()}:*")
    wait_until(lambda: "in wait_until" in file.read_text())


def test_each_file_has_the_stacks_of_its_own_moment_only(run):
    folder, (busy, _, _) = run
    first, second = (parts(stacks.stacks_here(str(folder / ".stacks"))) for _ in range(2))
    assert first[busy].count("in rollout") == second[busy].count("in rollout") == 1


def test_a_process_that_has_ended_is_not_asked_nor_another_one_of_its_number(run):
    folder, pids = run
    host = stacks.socket.gethostname()
    (folder / ".stacks" / f"{host}:{os.getpid()}:1000.00").touch()  # a process that had the number of this one
    (folder / ".stacks" / f"{host}:999999:1000.00").touch()
    assert parts(stacks.stacks_here(str(folder / ".stacks"))).keys() == set(pids)


def test_a_machine_that_cannot_be_asked_is_named(run):
    folder, _ = run
    (folder / ".stacks" / "node-7:1:1000.00").touch()
    assert main([str(folder)]) == 0
    (file,) = folder.glob("stacks-*.txt")
    assert "=== node-7: not asked (the run has not come to its controller yet)" in file.read_text()
    assert "in rollout" in file.read_text()


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "must be the run_dir of a run that goes on" in capsys.readouterr().out


@ray.remote(num_cpus=0, resources={"far": 1})
class Far:
    def pid(self) -> int:
        return os.getpid()


@pytest.fixture(scope="module")
def cluster():
    """Two nodes, both of them on this machine."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1, resources={"far": 1})
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_process_of_another_node_is_looked_at_and_ended_there(cluster, run):
    folder, (busy, _, _) = run
    actor = Far.remote()
    there = ray.get(actor.__ray_call__.remote(place))
    assert there.pid == ray.get(actor.pid.remote())
    assert there.node_id != ray.get_runtime_context().get_node_id()
    wait_until(lambda: ray.get(task_on(there.node_id, look, there)).state == "sleeping")  # it has just answered
    os.kill(there.pid, signal.SIGSTOP)
    assert ray.get(task_on(there.node_id, look, there)).is_stopped
    (folder / ".stacks" / "node-7:1:1000.00").touch()
    text = stacks.write_stacks(folder).read_text()
    assert text.count(f"pid {busy}: ") == 2, "this node's answer and the other's, which is the same machine here"
    end(there)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.pid.remote())
    wait_until(lambda: look(there).state == "gone")  # Ray knows by the socket, before the process has ended
