"""What a run leaves behind, written as it goes: metrics, ledger, prompts and inspection (JSON lines), summary.json."""

import fcntl
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mifo_verl.loop.events import Event, LedgerLine, RolloutSeen, StepEnded, UpdateMade, Validated

METRICS = "metrics.jsonl"
LEDGER = "ledger.jsonl"
VALIDATION = "validation.jsonl"
SAMPLES = "samples.jsonl"
PROMPTS = "prompts.jsonl"
INSPECTION = "inspection.jsonl"
MEMORY = "memory.jsonl"
PARTS = {"prompts": PROMPTS, "inspection": INSPECTION, "memory_gb": MEMORY}
"""Parts of a record that have files of their own; memory is no more the same in every run than seconds are."""

SUMMARY = "summary.json"
ORIGIN = "origin.json"
"""What the first line follows, in a run that goes on from another run's checkpoint."""
EVENTS = "events.jsonl"
ENDED = "ended"
"""The kind of the event of a run that was asked to stop and has."""
STAGE = "stage.json"
"""What the controller does now."""
CONFIG = "config.yaml"
BY_STEP = (METRICS, LEDGER, VALIDATION, SAMPLES, *PARTS.values())
"""The files whose lines belong to a step: a checkpoint presupposes those up to its own."""

logger = logging.getLogger(__name__)

RL_STAGES = ("rollout", "old_log_prob", "reference", "critic", "critic_update", "advantage", "actor_update")
"""The stages of a record that are the RL phase itself; the rest is overhead."""
START_UP, FIRST_VALIDATION, OTHER, END = "start_up", "first_validation", "other", "end"
"""What was before a process's first step; what is in no stage of a step; what comes after the last record."""


class RunRecords:
    """The record files of one run; lines are flushed as they are written."""

    def __init__(self, run_dir: str | Path) -> None:
        self.folder = Path(run_dir)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._numbers: dict[str, int] = {}
        """How many lines the files hold that belong to a step, of those that were counted."""

    def lock(self, patience_seconds: float = 60.0) -> None:
        """Be the only writer of this folder.

        Raises RuntimeError where another run still is after so long, or where the file system has no locks.
        """
        self._lock = open(self.folder / ".lock", "w")  # noqa: SIM115  held while this process lives
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"run_dir={self.folder} must not be written by two runs at a time, and another one holds it; "
                        "stop that one, or choose another run_dir"
                    ) from None
                time.sleep(0.5)
            except OSError as error:
                mount = _file_system(self.folder)
                raise RuntimeError(
                    f"run_dir={self.folder} must lie on a file system that locks files, and {mount} refuses it "
                    f"({error.strerror}, errno {error.errno}); mount it with locks (Lustre: -o flock; NFS: with its "
                    "lock service), or choose another run_dir"
                ) from None

    def __call__(self, event: Event) -> None:
        line = event.line()
        if isinstance(event, StepEnded | UpdateMade):
            self.metrics(line)
        elif isinstance(event, LedgerLine):
            self.ledger([line])
        elif isinstance(event, RolloutSeen):
            self._append(SAMPLES, [line])
        elif isinstance(event, Validated):
            self.validation(event.step, event.accuracy)

    def metrics(self, line: dict[str, Any]) -> None:
        """Append one object for one step. What is not finite is written as null, and its keys are in ``nonfinite``.

        The step's prompts, its memory and an SFT phase's inspection go to files of their own.
        """
        finite = {key: only_finite(value) for key, value in line.items()}
        broken = [key for key, value in finite.items() if value != line[key]]
        for part, name in PARTS.items():
            if part in finite:
                where = {"interval": line["interval"], "step": line["step"]}
                held = finite[part] if isinstance(finite[part], dict) else {part: finite[part]}
                self._append(name, [where | held])
        finite = {key: value for key, value in finite.items() if key not in PARTS}
        self._append(METRICS, [finite | ({"nonfinite": broken} if broken else {})])

    def validation(self, step: int, accuracy: dict[str, float]) -> None:
        """Append one object for the validation after a step, 0 for the start; a step has one, resumed or not."""
        last = read_last(self.folder / VALIDATION)
        if last is None or last["step"] < step:
            self._append(VALIDATION, [{"step": step, "accuracy": accuracy}])

    def ledger(self, lines: Iterable[dict[str, Any]]) -> None:
        self._append(LEDGER, lines)

    def rewind(self, step: int) -> None:
        """Forget the lines after a step and the end, where a run goes on from that step's checkpoint."""
        (self.folder / SUMMARY).unlink(missing_ok=True)
        for name in BY_STEP:
            if not (self.folder / name).exists():
                continue
            kept = [line for line in read_lines(self.folder / name) if line["step"] <= step]
            replace_text(self.folder / name, "".join(json.dumps(line) + "\n" for line in kept))
        self._numbers.clear()

    def begin(self, origin: dict[str, Any] | None) -> None:
        """Note what the first line will follow, another run's checkpoint or nothing; where one is there, it stays."""
        if read_lines(self.folder / METRICS):
            return
        if origin is None:
            (self.folder / ORIGIN).unlink(missing_ok=True)
        else:
            write_json(self.folder / ORIGIN, origin)

    def sync(self) -> dict[str, int]:
        """Bring the lines of all steps to the disk; how many there are, by file."""
        there = [name for name in BY_STEP if (self.folder / name).exists()]
        for path in (*(self.folder / name for name in there), self.folder):
            sync_to_disk(path)
        return {name: self._number(name) for name in there}

    def _number(self, name: str) -> int:
        """The lines of a file, read once: a run makes many checkpoints."""
        if name not in self._numbers:
            self._numbers[name] = len(read_lines(self.folder / name))
        return self._numbers[name]

    def event(self, kind: str, text: str) -> None:
        """Append what a person should know: a checkpoint made, resumed, skipped or failed, a stage that is late."""
        logger.warning(text)
        self._append(EVENTS, [{"time": time.time(), "kind": kind, "text": text}])

    def stage(self, text: str, since: float) -> None:
        """Say what goes on, since when (seconds since 1970), for who watches the run."""
        new = self.folder / f"{STAGE}.new"
        new.write_text(json.dumps({"stage": text, "since": since}))
        new.replace(self.folder / STAGE)

    def write_end(self, **table: Any) -> None:
        """Keep what only the end of a run knows for the summary: accuracies, the digest of the weights."""
        write_json(self.folder / SUMMARY, table)

    def _append(self, name: str, lines: Iterable[dict[str, Any]]) -> None:
        texts = [json.dumps(line) + "\n" for line in lines]
        text = "".join(texts)
        if name in self._numbers:
            self._numbers[name] += len(texts)
        with open(self.folder / name, "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                text = text if file.read(1) == b"\n" else f"\n{text}"  # a process died inside its last line
            file.write(text.encode())


def only_finite(value: Any) -> Any:
    """The value with None for every number in it that is not finite: JSON has none of these."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: only_finite(held) for key, held in value.items()}
    return type(value)(map(only_finite, value)) if isinstance(value, list | tuple) else value


def lines_sha256(lines: Iterable[dict[str, Any]]) -> str:
    """The digest of an update's ledger lines, which its record keeps: no field of them can change unseen."""
    return hashlib.sha256("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode()).hexdigest()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, without a last line that is still being written; none where it is absent.

    An event that a process died over is left out: events only tell. Raises ValueError with any other line's number.
    """
    if not path.exists():
        return []
    text, found = path.read_text(), []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            found.append(json.loads(line))
        except ValueError:
            if path.name != EVENTS:
                raise ValueError(f"{path}, line {number}, is not JSON: {line[:80]!r}") from None
    return found


def read_last(path: Path) -> dict[str, Any] | None:
    """The last whole line of a JSON-lines file, without reading those before it; None if there is none."""
    if not path.exists():
        return None
    with open(path, "rb") as file:
        size, chunk = file.seek(0, os.SEEK_END), b""
        while chunk.count(b"\n") < 2 and len(chunk) < size:
            file.seek(max(0, size - 2 * len(chunk) - 4096))
            chunk = file.read(size - file.tell())
    lines = chunk[: chunk.rfind(b"\n") + 1].splitlines()
    return json.loads(lines[-1]) if lines else None


class Follower:
    """The new lines of a JSON-lines file that grows, each read once."""

    def __init__(self, path: Path) -> None:
        """From the end of what is there now."""
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def __call__(self) -> list[dict[str, Any]]:
        """The whole lines that have come since the last call; a line that is no JSON is left out.

        A file that is shorter now has lost its last lines, to a resume: what it has from there on is new.
        """
        try:
            with open(self._path, "rb") as file:
                self._offset = min(self._offset, file.seek(0, os.SEEK_END))
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = []
        for line in whole.splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                logger.warning(f"{self._path} has a line that is not JSON: {line[:80]!r}")
        return found


def step_seconds(line: dict[str, Any]) -> dict[str, float]:
    """The seconds of a record by stage, none counted twice: the KL to the start is measured inside old_log_prob."""
    seconds = dict(line["seconds"])
    if "kl_to_start" in seconds and "old_log_prob" in seconds:
        seconds["old_log_prob"] -= seconds["kl_to_start"]
    return seconds


def _file_system(folder: Path) -> str:
    """The mount that a folder is on, and its kind."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    above = [mount for mount in mounts if folder.resolve().is_relative_to(mount[1])]
    device, point, kind, *_ = max(above, key=lambda mount: len(mount[1]))
    return f"{kind} at {point} ({device})"


def write_json(path: Path, table: dict[str, Any]) -> None:
    """Write an object whole or leave the old file."""
    replace_text(path, json.dumps(table, indent=2) + "\n")


def sync_to_disk(path: Path) -> None:
    """Bring a file or the names in a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_text(path: Path, text: str) -> None:
    """Write a whole file or leave the old one."""
    new = path.with_name(f"{path.name}.new")
    with open(new, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
