"""A launch touches nothing of a run that goes on, and is not locked out by one that has ended."""

import subprocess
import sys
import threading
import time

import pytest
from omegaconf import OmegaConf

from mifo_verl.compose import ConfigError, compose_config
from mifo_verl.run import launch, stacks
from mifo_verl.run.launch import LAUNCH_LOCK, RunFolder

LAUNCHED = (
    "import sys; from pathlib import Path; from mifo_verl.run.launch import RunFolder; "
    "r = RunFolder(Path(sys.argv[1]), True); print(1, flush=True); input()"
)
CONTROLLED = (
    "import sys; from mifo_verl.run.journal import RunRecords; r = RunRecords(sys.argv[1]); r.lock(); "
    "print(1, flush=True); input()"
)


@pytest.fixture
def running(tmp_path):
    """Start another process that holds the folder ``run``, with a step behind it."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    (folder / "config.yaml").write_text("mine: 1\n")
    (folder / ".stacks").mkdir()
    (folder / ".stacks" / "node:1:1.00").write_text("")
    started = []

    def start(code: str) -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen([sys.executable, "-c", code, str(folder)], **pipes))
        assert started[-1].stdout.readline() == b"1\n"
        return started[-1]

    yield folder, start
    for process in started:
        process.kill()
        process.wait()


def content(folder) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return {str(path.relative_to(folder.parent)): path.read_text() for path in files}


@pytest.mark.parametrize("code", [LAUNCHED, CONTROLLED], ids=["its launch", "its controller alone"])
def test_a_second_launch_ends_before_it_touches_anything(running, monkeypatch, code):
    folder, start = running
    start(code)
    before = content(folder)
    monkeypatch.setattr(launch, "RunFolder", lambda *args: RunFolder(*args, patience_seconds=0.5))
    for resume in ("disable", "auto"):
        config = compose_config(["experiment=quickstart", f"run_dir={folder}", f"trainer.resume_mode={resume}"]).node
        OmegaConf.resolve(config)
        with pytest.raises(ConfigError, match="must not be used by two runs at a time, and another one holds it"):
            launch.launch(config, lambda _: pytest.fail("data were written"))
        assert content(folder) == before
        assert [path.name for path in folder.parent.iterdir()] == ["run"]


def test_a_launch_that_waits_goes_on_where_the_run_has_ended(running):
    folder, start = running
    other = start(CONTROLLED)
    threading.Timer(1.0, lambda: other.stdin.close()).start()
    began = time.monotonic()
    assert RunFolder(folder, resumes=True, patience_seconds=30).path == folder
    assert 0.9 < time.monotonic() - began < 10


def test_the_controller_gets_the_records_of_a_folder_that_was_taken(running):
    folder, start = running
    held = RunFolder(folder, resumes=True)
    start(CONTROLLED)
    assert held.path == folder


def test_a_run_that_was_there_is_moved_aside_and_both_folders_are_held(running):
    folder, _ = running
    held = RunFolder(folder, resumes=False, patience_seconds=0)
    assert content(folder) == {}
    assert (folder.parent / "run.1" / "metrics.jsonl").exists() and held.path == folder
    for path in (folder, folder.parent / "run.1"):
        with pytest.raises(ConfigError):
            RunFolder(path, resumes=True, patience_seconds=0)


def test_the_lock_of_a_folder_that_was_moved_aside_meanwhile_does_not_count(running, monkeypatch):
    folder, _ = running
    folder_locks = []

    def flock(lock, how):
        folder_locks.append(lock.name)
        if len(folder_locks) == 1:  # the launch before this one moves the folder, just as this one gets its lock
            folder.rename(folder.parent / "run.1")

    monkeypatch.setattr(launch.fcntl, "flock", flock)
    held = RunFolder(folder, resumes=True)
    assert (folder / LAUNCH_LOCK).exists() and held.path == folder
    assert folder_locks.count(str(folder / LAUNCH_LOCK)) == 2


def test_the_folder_of_the_stacks_may_keep_files_that_cannot_be_removed(running, monkeypatch):
    folder, _ = running
    monkeypatch.setattr(stacks.shutil, "rmtree", lambda *_, **__: None)  # as on NFS, where a process holds a file
    monkeypatch.setattr(stacks, "listen", lambda: None)
    monkeypatch.delenv(stacks.FOLDER, raising=False)
    assert stacks.open_folder(folder) == folder / ".stacks"
    monkeypatch.delenv(stacks.FOLDER)


def test_the_report_at_a_runs_end_is_a_process_and_a_run_that_has_none_says_why(running, capsys):
    folder, _ = running
    launch.write_report(folder)
    said = capsys.readouterr().out
    assert said.startswith(f"warning: no report of {folder}: error: ") and f"mifo report {folder} makes it" in said


def test_a_tracker_knows_a_run_by_one_id_when_it_is_resumed_and_another_run_by_another(tmp_path):
    (tmp_path / "a").mkdir()
    first = launch.tracked_run(tmp_path / "a")
    assert launch.tracked_run(tmp_path / "a") == first and first["WANDB_RESUME"] == "allow"
    (tmp_path / "b").mkdir()
    assert launch.tracked_run(tmp_path / "b")["WANDB_RUN_ID"] != first["WANDB_RUN_ID"]


def test_rays_workers_run_at_normal_niceness_if_the_user_does_not_say_otherwise():
    assert compose_config(["experiment=quickstart"]).environment()["RAY_worker_niceness"] == "0"
    own = compose_config(["experiment=quickstart", "+env.RAY_worker_niceness=5"])
    assert own.environment()["RAY_worker_niceness"] == "5"
