"""Checkpoints on disk that are whole or not there.

A checkpoint is written under a temporary name, its files are checksummed and synced, and a rename makes it count:
``global_step_<N>/``, or ``stopped/global_step_<N>/`` where a run was stopped inside step N + 1. Its manifest lists
every file with its size and SHA-256; what differs from it is named and never read.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mifo_verl.bridge.faults import reach

FORMAT = 2
MANIFEST = "manifest.json"
LATEST = "latest_checkpointed_iteration.txt"
"""verl's own mark, kept for its tools; nothing here reads it."""

STOPPED = "stopped"
"""Subfolder of the checkpoints that were made inside a step."""

_TEMPORARY = ".saving"
_READERS = 8

logger = logging.getLogger(__name__)


class BrokenCheckpoint(ValueError):
    """A checkpoint that is torn, altered or of another format; the message names the file."""


@dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint."""

    folder: Path
    facts: dict[str, Any]
    """What the manifest says beside the files: step, world size, config, versions, accuracy."""

    @property
    def order(self) -> tuple[int, bool]:
        """Later checkpoints are greater; one made inside the next step comes after the one at this step's end."""
        return self.facts["step"], self.facts["during_step"]


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(self, folder: str | Path, keep_last: int, keep_best: int) -> None:
        self.folder = Path(folder)
        self._keep_last = keep_last
        self._keep_best = keep_best

    # ------------------------------------------------------------------ writing

    def begin(self) -> Path:
        """An empty folder to write ``global_step_<N>/`` into. What an earlier save left half-done is removed."""
        temporary = self.folder / _TEMPORARY
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        return temporary

    def abandon(self) -> None:
        """Remove what a failed save has written."""
        shutil.rmtree(self.folder / _TEMPORARY, ignore_errors=True)

    def free_bytes(self) -> int:
        """What is left on the disk."""
        there = next(folder for folder in [self.folder, *self.folder.absolute().parents] if folder.exists())
        return shutil.disk_usage(there).free

    def commit(self, written: Path, facts: dict[str, Any]) -> Path:
        """Make a written folder the run's newest checkpoint; older ones go as keep_last and keep_best say."""
        write_manifest(written, facts)
        reach("checkpoint_commit")
        folder = self.folder / (STOPPED if facts["during_step"] else ".") / f"global_step_{facts['step']}"
        folder.parent.mkdir(exist_ok=True)
        if folder.exists():  # it was found broken, or the run would stand behind it
            folder.rename(written.parent / "replaced")
        written.rename(folder)
        _sync(folder.parent)
        self.abandon()
        self._mark(facts["step"])
        self._remove_old()
        return folder

    def _mark(self, step: int) -> None:
        new = self.folder / f"{LATEST}.new"
        new.write_text(str(step))
        os.replace(new, self.folder / LATEST)

    def _remove_old(self) -> None:
        """Keep the newest, the best by validation accuracy, and what this store did not write."""
        known = sorted((c for c in map(_read, self._folders()) if c is not None), key=lambda c: c.order)
        measured = [c for c in known if c.facts["accuracy"] is not None]
        best = sorted(measured, key=lambda c: (c.facts["accuracy"], c.order))[-self._keep_best :]
        kept = known[-self._keep_last :] + (best if self._keep_best else [])
        for checkpoint in known:
            if checkpoint not in kept:
                shutil.rmtree(checkpoint.folder)

    # ------------------------------------------------------------------ reading

    def newest(self, report: Callable[[str], None] = logger.error) -> Checkpoint | None:
        """The newest checkpoint that is whole, None where there is none yet; every one passed over is reported by name.

        Raises BrokenCheckpoint where there are checkpoints and none of them is whole.
        """
        broken = None
        for folder in sorted(self._folders(), key=_order_of_name, reverse=True):
            try:
                return verify(folder)
            except BrokenCheckpoint as error:
                broken = error
                report(f"CHECKPOINT SKIPPED: {error}; the one before it is tried")
        if broken:
            raise BrokenCheckpoint(
                f"{self.folder} must hold a whole checkpoint, and the last one tried is broken: {broken}; "
                "start over with trainer.resume_mode=disable or another run_dir"
            )
        return None

    def newest_facts(self) -> dict[str, Any] | None:
        """What the newest readable manifest says, without reading the files it lists."""
        known = [checkpoint for checkpoint in map(_read, self._folders()) if checkpoint is not None]
        return max(known, key=lambda checkpoint: checkpoint.order).facts if known else None

    def _folders(self) -> Iterator[Path]:
        for parent in (self.folder, self.folder / STOPPED):
            yield from (folder for folder in parent.glob("global_step_*") if _NAME.fullmatch(folder.name))


_NAME = re.compile(r"global_step_([0-9]+)")


def _order_of_name(folder: Path) -> tuple[int, bool]:
    return int(folder.name.rpartition("_")[2]), folder.parent.name == STOPPED


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Checksum and sync every file of a folder, and write its manifest last."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(_READERS) as readers:
        digests = list(readers.map(lambda name: _digest(folder / name, sync=True), names))
    files = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in zip(names, digests, strict=True)}
    with open(folder / MANIFEST, "w") as file:
        file.write(_manifest_text({"format": FORMAT, **facts, "files": files}))
        file.flush()
        os.fsync(file.fileno())
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        _sync(path)


def verify(folder: Path) -> Checkpoint:
    """The checkpoint in a folder, every byte compared with its manifest. Raises BrokenCheckpoint."""
    manifest = _manifest(folder)
    files: dict[str, dict[str, Any]] = manifest.pop("files")
    for name, expected in files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != expected["bytes"]:
            state = "is missing" if size is None else f"has {size} bytes"
            raise BrokenCheckpoint(f"{path} {state}, and its manifest says {expected['bytes']} bytes")
    with ThreadPoolExecutor(_READERS) as readers:
        digests = readers.map(lambda name: _digest(folder / name, sync=False)[1], files)
        for (name, expected), digest in zip(files.items(), digests, strict=True):
            if digest != expected["sha256"]:
                raise BrokenCheckpoint(
                    f"{folder / name} is not what was written: its SHA-256 differs from the manifest's"
                )
    return Checkpoint(folder, manifest)


def _read(folder: Path) -> Checkpoint | None:
    """A checkpoint by its manifest alone."""
    try:
        facts = _manifest(folder)
        del facts["files"]
        return Checkpoint(folder, facts)
    except BrokenCheckpoint:
        return None


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        text = path.read_text()
        manifest: dict[str, Any] = json.loads(text)["manifest"]
        whole = text == _manifest_text(manifest)
    except FileNotFoundError:
        raise BrokenCheckpoint(f"{path} is missing") from None
    except (ValueError, KeyError, TypeError, OSError):
        whole = False
    if not whole:
        raise BrokenCheckpoint(f"{path} is not what was written")
    if manifest["format"] != FORMAT:
        raise BrokenCheckpoint(f"{path} has format {manifest['format']}, and this version reads format {FORMAT}")
    return manifest


def _manifest_text(manifest: dict[str, Any]) -> str:
    """The one text of a manifest, with its own digest: any changed byte gives another text or another digest."""
    text = json.dumps(manifest, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"manifest": manifest, "sha256": digest}, sort_keys=True, indent=1) + "\n"


def _digest(path: Path, sync: bool) -> tuple[int, str]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sync:
            os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size, digest


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
