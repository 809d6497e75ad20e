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
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from mifo_verl.run.journal import replace_text, sync_to_disk

FORMAT = 2
MANIFEST = "manifest.json"
LATEST = "latest_checkpointed_iteration.txt"
"""verl's own mark, kept for its tools; nothing here reads it."""

STOPPED = "stopped"
"""Subfolder of the checkpoints that were made inside a step."""

ASIDE = "aside"
"""Subfolder of those that a run left behind when it went on from an earlier one; nothing deletes them."""

NAME = re.compile(r"global_step_([0-9]+)")
"""What a checkpoint's folder is called."""

_TEMPORARY = ".saving"
_READERS = 8

T = TypeVar("T")

logger = logging.getLogger(__name__)


class BrokenCheckpoint(ValueError):
    """A checkpoint that is torn, altered or of another format; the message names the file."""


@dataclass(frozen=True)
class Checkpoint:
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
        shutil.rmtree(self.folder / _TEMPORARY, ignore_errors=True)

    def free_bytes(self) -> int:
        there = next(folder for folder in [self.folder, *self.folder.absolute().parents] if folder.exists())
        return shutil.disk_usage(there).free

    def commit(self, written: Path, facts: dict[str, Any], report: Callable[[str], None] = logger.error) -> Path:
        """Make a written folder a checkpoint of the run; older ones go as keep_last and keep_best say.

        Raises OSError where it does not count. What fails once it counts is reported.
        """
        write_manifest(written, facts)
        folder = self.folder / (STOPPED if facts["during_step"] else ".") / f"global_step_{facts['step']}"
        folder.parent.mkdir(exist_ok=True)
        if folder.exists():  # it was found broken, or the run would stand behind it
            folder.rename(written.parent / "replaced")
        written.rename(folder)
        try:
            sync_to_disk(folder.parent)
            self.abandon()
            replace_text(self.folder / LATEST, str(facts["step"]))
            self._remove_old((facts["step"], facts["during_step"]))
        except OSError as error:
            report(f"CHECKPOINT NOT TIDIED UP: {folder} is whole and counts, but what comes after it failed: {error}")
        return folder

    def _remove_old(self, newest: tuple[int, bool]) -> None:
        """Up to the newest, just written: keep the last ones, the best by validation accuracy, and what is not known
        to be a checkpoint.
        """
        read = (c for c in map(_read, self._folders()) if c is not None and c.order <= newest)
        known = sorted(read, key=lambda c: c.order)
        measured = [c for c in known if c.facts["accuracy"] is not None]
        best = sorted(measured, key=lambda c: (c.facts["accuracy"], c.order))[-self._keep_best :]
        kept = known[-self._keep_last :] + (best if self._keep_best else [])
        for checkpoint in known:
            if checkpoint not in kept:
                shutil.rmtree(checkpoint.folder)

    # ------------------------------------------------------------------ reading

    def holds(self, checkpoint: Checkpoint) -> bool:
        """Whether it is one of this run's own."""
        return checkpoint.folder.resolve() in {folder.resolve() for folder in self._folders()}

    def go_on_from(self, checkpoint: Checkpoint | None) -> Path | None:
        """Move aside what does not lead to the checkpoint that a run goes on from (None: step 0).

        That is a later branch or broken, and the newest of it would be taken for the run's own. Returns the folder
        where it is now, None where there was nothing to move.
        """
        kept = checkpoint.order if checkpoint is not None and self.holds(checkpoint) else (-1, False)
        later = [path for path in self._folders() if (path / MANIFEST).exists() and _order_of_name(path) > kept]
        if not later:
            return None
        aside = next(path for number in count(1) if not (path := self.folder / ASIDE / str(number)).exists())
        for folder in later:
            new = aside / folder.relative_to(self.folder)
            new.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(new)
        return aside

    def marks(self) -> set[tuple[Path, int]]:
        """What tells the checkpoints that are there now from any made later: folder and time of the manifest."""
        manifests = (folder / MANIFEST for folder in self._folders())
        return {(path, path.stat().st_mtime_ns) for path in manifests if path.exists()}

    def newest(self, report: Callable[[str], None] = logger.error, checksums: bool = True) -> Checkpoint | None:
        """The newest checkpoint that is whole, None where there is none yet; every one passed over is reported by name.

        Without checksums it takes a moment and sees what is missing or cut, not what is altered. Raises
        BrokenCheckpoint where there are checkpoints and none of them is whole.
        """
        broken = None
        for folder in sorted(self._folders(), key=_order_of_name, reverse=True):
            try:
                return verify(folder, checksums)
            except BrokenCheckpoint as error:
                broken = error
                report(f"CHECKPOINT SKIPPED: {error}; the one before it is tried")
        if broken:
            raise BrokenCheckpoint(
                f"{self.folder} must hold a whole checkpoint, and the last one tried is broken: {broken}; "
                "start over with trainer.resume_mode=disable or another run_dir"
            )
        return None

    def _folders(self) -> Iterator[Path]:
        for parent in (self.folder, self.folder / STOPPED):
            yield from (folder for folder in parent.glob("global_step_*") if NAME.fullmatch(folder.name))


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
        sync_to_disk(path)


def verify(folder: Path, checksums: bool = True) -> Checkpoint:
    """The checkpoint in a folder, every byte (without checksums: every size) compared with its manifest.

    Raises BrokenCheckpoint, also where the disk does not give a file back.
    """
    manifest = _manifest(folder)
    files: dict[str, dict[str, Any]] = manifest.pop("files")
    for name, expected in files.items():
        size = _read_from(folder / name, _size)
        if size != expected["bytes"]:
            state = "is missing" if size is None else f"has {size} bytes"
            raise BrokenCheckpoint(f"{folder / name} {state}, and its manifest says {expected['bytes']} bytes")
    if checksums:
        with ThreadPoolExecutor(_READERS) as readers:
            digests = readers.map(lambda name: _read_from(folder / name, _digest)[1], files)
            for (name, expected), digest in zip(files.items(), digests, strict=True):
                if digest != expected["sha256"]:
                    raise BrokenCheckpoint(
                        f"{folder / name} is not what was written: its SHA-256 differs from the manifest's"
                    )
    return Checkpoint(folder, manifest)


def _read_from(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except OSError as error:
        raise BrokenCheckpoint(f"{path} cannot be read ({error.strerror or error})") from None


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


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
    if not _read_from(path, Path.exists):
        raise BrokenCheckpoint(f"{path} is missing")
    text = _read_from(path, Path.read_bytes)
    try:
        manifest: dict[str, Any] = json.loads(text)["manifest"]
        whole = text == _manifest_text(manifest).encode()
    except (ValueError, KeyError, TypeError):
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


def file_sha256(path: Path) -> str:
    """Of the content, as 64 hex digits."""
    return _digest(path)[1]


def _digest(path: Path, sync: bool = False) -> tuple[int, str]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sync:
            os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size, digest
