"""Running a plan: checked before the first run starts, every run a process, finished ones skipped, others taken up."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import FrameType

import yaml

from mifo_verl.compose import ConfigError
from mifo_verl.run.flatten import settings_of
from mifo_verl.run.journal import CONFIG
from mifo_verl.tools.sweep.plan import PlannedRun, in_arms
from mifo_verl.tools.sweep.store import is_finished

TRAIN = (sys.executable, "-m", "mifo_verl.train")
LOGS = "logs"
STOPPED = 75
"""Exit code of a training that was asked to stop, and of a sweep that was."""
_SETTINGS_SHOWN = 5


def check_arms(runs: Sequence[PlannedRun]) -> None:
    """Check one run of each arm. Raises ConfigError with all errors. Arms that have a finished run have passed."""
    from mifo_verl.checks.preflight import check_run, prepare_data

    passed = {run.arm for run in runs if is_finished(run.folder)}
    first = {run.arm: run for run in reversed(runs) if run.arm not in passed}
    errors: dict[str, list[str]] = {}
    for run in reversed(first.values()):
        environment = dict(os.environ)
        os.environ.update(run.composed.environment())
        try:
            prepare_data(run.composed.node)
            for error in check_run(run.composed.node, run.overrides).found.errors():
                errors.setdefault(str(error), []).append(run.arm)
        finally:
            os.environ.clear()
            os.environ.update(environment)
    if errors:
        raise ConfigError(*in_arms(errors))


def refuse_others(runs: Sequence[PlannedRun]) -> None:
    """Raise ConfigError if a folder holds a run of other settings: it is neither skipped nor written over."""
    errors = [
        f"{run.folder} holds a run of other settings: {differing}; set them back, choose another sweep_dir, or move "
        "that folder away"
        for run in runs
        if (differing := _differences(run))
    ]
    if errors:
        raise ConfigError(*errors)


def _differences(run: PlannedRun) -> str:
    """In which settings the run in this one's folder differs, in words; '' if it does not, or no run is there."""
    if not (run.folder / CONFIG).exists():
        return ""
    held = settings_of(yaml.load((run.folder / CONFIG).read_text(), yaml.CSafeLoader))
    own = run.settings
    keys = [key for key in sorted({*held, *own}) if held.get(key) != own.get(key)]
    more = f" and {len(keys) - _SETTINGS_SHOWN} more" if len(keys) > _SETTINGS_SHOWN else ""
    return "; ".join(f"{key}={own.get(key)} (the folder has {held.get(key)})" for key in keys[:_SETTINGS_SHOWN]) + more


class Runner:
    """Starts trainings, some at a time, and passes a signal on to them, so that each saves what it has."""

    def __init__(self, command: Sequence[str] = TRAIN, jobs: int = 1) -> None:
        self._command, self._jobs = command, jobs
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        """Trainings that have been started and not yet waited for, by the run's name."""
        self._signals: list[int] = []
        self._lock = threading.RLock()  # a signal may come while another one is handled
        self._seconds: list[float] = []

    def run(self, runs: Sequence[PlannedRun]) -> int:
        """Run what is not finished. Returns 0, 1 if a run has failed, 75 if the sweep was asked to stop."""
        left = [run for run in runs if not is_finished(run.folder)]
        if len(left) < len(runs):
            print(f"{len(runs) - len(left)} of {len(runs)} runs are finished and skipped", flush=True)
        before = {number: signal.signal(number, self.stop) for number in (signal.SIGINT, signal.SIGTERM)}
        failed: list[str] = []
        try:
            with ThreadPoolExecutor(self._jobs) as pool:
                started = [pool.submit(self.run_one, run) for run in left]
                for number, done in enumerate(as_completed(started), start=1):
                    line, is_failed = done.result()
                    failed += [line] if is_failed else []
                    if line:
                        print(f"[{number}/{len(left)}] {line}{self._eta(len(left) - number)}", flush=True)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._signals:
            print("stopped on request; the same command goes on", flush=True)
            return STOPPED
        for line in failed:
            print(f"error: {line}", file=sys.stderr)
        return 1 if failed else 0

    def stop(self, number: int, frame: FrameType | None = None) -> None:
        """Pass a signal on to every training, and start no more."""
        with self._lock:
            self._signals.append(number)
            running = list(self.running.values())
        for process in running:
            process.send_signal(number)  # which leaves a process alone that has ended

    def run_one(self, run: PlannedRun) -> tuple[str, bool]:
        """What became of one run, in words, and whether it failed."""
        if self._signals:
            return "", False
        log = run.folder.parent / LOGS / f"{run.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        resumes = (run.folder / "checkpoints").is_dir()
        print(f"{run.name}: {'resumed' if resumes else 'started'}; log: {log}", flush=True)
        began = time.monotonic()
        code = self._wait([*self._command, *run.overrides, *["trainer.resume_mode=auto"] * resumes], run.name, log)
        if code == STOPPED or self._signals:
            return f"{run.name}: stopped", False
        if code or not is_finished(run.folder):
            return f"{run.name}: failed with exit code {code}: {_last_line(log)} (log: {log})", True
        self._seconds.append(time.monotonic() - began)
        return f"{run.name}: finished in {self._seconds[-1]:.0f} s", False

    def _wait(self, command: list[str], name: str, log: Path) -> int:
        """The exit code of a training, which is told of every signal that comes from its start to its end."""
        with open(log, "ab") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
            with self._lock:
                self.running[name] = process
                missed = list(self._signals)  # what came while the process was being started
            for number in missed:
                process.send_signal(number)
            code = process.wait()
        with self._lock:
            del self.running[name]
        return code

    def _eta(self, left: int) -> str:
        if not self._seconds or not left or self._signals:
            return ""
        mean = sum(self._seconds) / len(self._seconds)
        return f"; {left} left, about {mean * left / self._jobs / 60:.0f} min"


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error: ")]
    return (told or lines or ["no output"])[-1][:300]
