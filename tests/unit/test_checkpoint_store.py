"""Checkpoints are whole or not there."""

import errno
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mifo_verl.run.checkpoints import LATEST, BrokenCheckpoint, CheckpointStore, verify

FILES = {"actor/model.pt": b"weights" * 100, "mifo/controller.json": b"{}", "data.pt": b""}


def save(
    store: CheckpointStore, step: int, accuracy: float | None = None, during_step: bool = False, **options: Any
) -> Path:
    folder = store.begin() / f"global_step_{step}"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return store.commit(folder, {"step": step, "during_step": during_step, "accuracy": accuracy}, **options)


def names(store: CheckpointStore) -> list[str]:
    return sorted(str(path.relative_to(store.folder)) for path in store.folder.rglob("global_step_*"))


@pytest.fixture
def store(tmp_path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep_last=2, keep_best=0)


def test_a_committed_checkpoint_is_the_newest_and_nothing_else_is_left(store):
    folder = save(store, 3, accuracy=0.5)
    found = store.newest()
    assert found is not None and found.folder == folder == store.folder / "global_step_3"
    assert (found.facts["step"], found.facts["accuracy"]) == (3, 0.5)
    assert {path.name for path in store.folder.iterdir()} == {"global_step_3", LATEST}
    assert (store.folder / LATEST).read_text() == "3"
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES


def test_without_a_checkpoint_there_is_no_newest(store):
    assert store.newest() is None and store.newest(checksums=False) is None


def test_what_is_not_committed_does_not_count_and_goes_with_the_next_save(store):
    half = store.begin() / "global_step_1"
    (half / "actor").mkdir(parents=True)
    (half / "actor" / "model.pt").write_bytes(b"half")
    assert store.newest() is None
    again = store.begin()
    assert list(again.iterdir()) == []


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "append"])
def test_a_harmed_file_is_named_and_the_checkpoint_before_is_used(store, name, harm):
    save(store, 1)
    path = save(store, 2) / name
    if harm in ("flip", "truncate") and not path.stat().st_size:
        pytest.skip("an empty file has no byte to flip or cut")
    content = path.read_bytes()
    if harm == "remove":
        path.unlink()
    else:
        flipped = bytes([content[0] ^ 1]) + content[1:] if content else b""
        path.write_bytes({"flip": flipped, "truncate": content[:-1], "append": content + b" "}[harm])
    said: list[str] = []
    found = store.newest(said.append)
    assert found is not None and found.facts["step"] == 1
    assert len(said) == 1 and str(path) in said[0] and "SKIPPED" in said[0]


def test_every_byte_of_a_manifest_counts(store):
    folder = save(store, 1)
    whole = (folder / "manifest.json").read_bytes()
    for place in range(len(whole)):
        (folder / "manifest.json").write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(BrokenCheckpoint, match="manifest"):
            verify(folder)
    (folder / "manifest.json").write_bytes(whole)
    verify(folder)


def test_where_all_are_broken_nothing_starts_over_in_silence(store):
    (save(store, 1) / "data.pt").write_bytes(b"x")
    with pytest.raises(BrokenCheckpoint, match="resume_mode=disable"):
        store.newest(lambda text: None)


def test_another_format_is_refused_by_its_number(store, monkeypatch):
    from mifo_verl.run import checkpoints as checkpoint_store

    monkeypatch.setattr(checkpoint_store, "FORMAT", 99)
    folder = save(store, 1)
    monkeypatch.undo()
    with pytest.raises(BrokenCheckpoint, match="format 99"):
        verify(folder)


def test_a_checkpoint_inside_a_step_comes_after_that_at_the_step_s_end_and_before_the_next(store):
    save(store, 3)
    save(store, 3, during_step=True)
    assert store.newest().folder == store.folder / "stopped" / "global_step_3"
    assert store.newest().facts["during_step"]
    save(store, 4)
    assert store.newest().folder == store.folder / "global_step_4"


def test_the_same_step_saved_again_replaces_the_old_one(store):
    save(store, 1)
    (store.folder / "global_step_1" / "data.pt").write_bytes(b"harmed")
    save(store, 1)
    assert store.newest().facts["step"] == 1
    assert names(store) == ["global_step_1"]


@pytest.mark.parametrize(
    ("keep_last", "keep_best", "kept"),
    [(1, 0, [5]), (2, 0, [4, 5]), (1, 1, [2, 5]), (1, 2, [2, 4, 5]), (9, 9, [1, 2, 3, 4, 5])],
)
def test_the_newest_and_the_best_are_kept(tmp_path, keep_last, keep_best, kept):
    store = CheckpointStore(tmp_path, keep_last, keep_best)
    for step, accuracy in enumerate([0.1, 0.9, None, 0.9 - 1e-9, 0.2], start=1):
        save(store, step, accuracy)
    assert names(store) == [f"global_step_{step}" for step in kept]


def test_a_folder_that_this_store_did_not_write_is_left_alone(store):
    foreign = store.folder / "global_step_7"
    foreign.mkdir(parents=True)
    for step in (1, 2, 3):
        save(store, step)
    assert foreign.exists() and store.newest(lambda text: None).facts["step"] == 3


def test_a_branch_that_was_left_is_moved_aside_and_never_taken_for_the_newest(tmp_path):
    """20 and 30 were made by a run that then went on from 10."""
    store = CheckpointStore(tmp_path, keep_last=2, keep_best=1)
    for step in (10, 20, 30):
        save(CheckpointStore(tmp_path, keep_last=9, keep_best=0), step, accuracy=0.9)
    save(CheckpointStore(tmp_path, keep_last=9, keep_best=0), 10, during_step=True)
    assert store.go_on_from(verify(tmp_path / "global_step_10")) == tmp_path / "aside" / "1"
    save(store, 12, accuracy=0.1)
    assert store.newest().folder == tmp_path / "global_step_12"
    aside = {"aside/1/global_step_20", "aside/1/global_step_30", "aside/1/stopped/global_step_10"}
    assert set(names(store)) == {"global_step_10", "global_step_12"} | aside
    assert verify(tmp_path / "aside" / "1" / "global_step_30").facts["step"] == 30
    assert store.go_on_from(verify(tmp_path / "global_step_12")) is None


def test_the_checkpoint_just_made_stays_whatever_else_is_there(tmp_path):
    for step in (10, 20, 30):
        save(CheckpointStore(tmp_path, keep_last=9, keep_best=0), step, accuracy=0.9)
    store = CheckpointStore(tmp_path, keep_last=1, keep_best=0)
    assert save(store, 12).exists()
    assert names(store) == ["global_step_12", "global_step_20", "global_step_30"]


def test_a_broken_checkpoint_takes_no_place_of_a_whole_one(tmp_path):
    every = CheckpointStore(tmp_path, keep_last=9, keep_best=0)
    save(every, 20)
    (save(every, 30) / "data.pt").write_bytes(b"harmed")
    store = CheckpointStore(tmp_path, keep_last=1, keep_best=0)
    store.go_on_from(store.newest(lambda text: None))
    save(store, 25)
    assert names(store) == ["aside/1/global_step_30", "global_step_25"]
    assert store.newest().folder == tmp_path / "global_step_25"


def test_where_a_run_starts_over_or_from_another_s_checkpoint_nothing_of_before_stays_in_its_way(tmp_path):
    store = CheckpointStore(tmp_path / "one", keep_last=2, keep_best=0)
    other = verify(save(CheckpointStore(tmp_path / "other", keep_last=2, keep_best=0), 10))
    assert not store.holds(other)
    for checkpoint in (None, other):
        save(store, 5)
        assert store.go_on_from(checkpoint) is not None and store.newest() is None
    assert names(store) == ["aside/1/global_step_5", "aside/2/global_step_5"]


def test_what_was_made_since_is_told_from_what_was_there(store):
    save(store, 1)
    before = store.marks()
    assert store.marks() == before
    save(store, 2)
    assert {path.parent.name for path, _ in store.marks() - before} == {"global_step_2"}


@pytest.mark.parametrize("name", ["data.pt", "manifest.json"])
def test_a_file_that_the_disk_does_not_give_back_is_named_and_its_checkpoint_passed_over(store, name, monkeypatch):
    save(store, 1)
    bad = save(store, 2) / name

    def refusing(path: Path | str, *args: Any, **kwargs: Any) -> Any:
        if str(path) == str(bad):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path, *args, **kwargs)

    real = io.open
    monkeypatch.setattr("builtins.open", refusing)
    monkeypatch.setattr("io.open", refusing)
    said: list[str] = []
    assert store.newest(said.append).facts["step"] == 1
    assert f"{bad} cannot be read (Input/output error)" in said[0]


@pytest.mark.parametrize("harm", ["remove", "truncate"])
def test_what_is_missing_or_cut_is_seen_without_a_checksum(store, harm):
    path = save(store, 1) / "actor" / "model.pt"
    path.unlink() if harm == "remove" else path.write_bytes(b"weights")
    with pytest.raises(BrokenCheckpoint, match="resume_mode=disable"):
        store.newest(lambda text: None, checksums=False)


def test_what_fails_after_a_checkpoint_counts_is_said_and_loses_nothing(store):
    store.folder.mkdir(parents=True)
    (store.folder / f"{LATEST}.new").mkdir()  # a folder is no file to write
    said: list[str] = []
    folder = save(store, 1, report=said.append)
    assert store.newest().folder == folder
    assert len(said) == 1 and "NOT TIDIED UP" in said[0] and str(folder) in said[0]


def test_a_checkpoint_survives_being_moved(store, tmp_path):
    save(store, 1)
    shutil.move(store.folder, tmp_path / "elsewhere")
    assert verify(tmp_path / "elsewhere" / "global_step_1").facts["step"] == 1


def test_the_manifest_is_json_with_sizes_and_digests(store):
    manifest = json.loads((save(store, 1) / "manifest.json").read_text())["manifest"]
    assert manifest["files"]["actor/model.pt"]["bytes"] == 700
    # sha256 of the empty string
    assert manifest["files"]["data.pt"]["sha256"].startswith("e3b0c44298fc1c149afbf4c8996fb924")


def test_the_room_on_the_disk_is_known_before_there_is_a_folder(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    assert CheckpointStore(tmp_path / "not" / "yet", 1, 0).free_bytes() == pytest.approx(free, rel=0.2)
