"""Checkpoints are whole or not there."""

import json
import shutil
from pathlib import Path

import pytest

from mifo_verl.bridge.checkpoint_store import LATEST, BrokenCheckpoint, CheckpointStore, verify

FILES = {"actor/model.pt": b"weights" * 100, "mifo/controller.json": b"{}", "data.pt": b""}


def save(store: CheckpointStore, step: int, accuracy: float | None = None, during_step: bool = False) -> Path:
    folder = store.begin() / f"global_step_{step}"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return store.commit(folder, {"step": step, "during_step": during_step, "accuracy": accuracy})


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
    assert store.newest() is None and store.newest_facts() is None


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
    from mifo_verl.bridge import checkpoint_store

    monkeypatch.setattr(checkpoint_store, "FORMAT", 99)
    folder = save(store, 1)
    monkeypatch.undo()
    with pytest.raises(BrokenCheckpoint, match="format 99"):
        verify(folder)


def test_a_checkpoint_inside_a_step_comes_after_that_at_the_step_s_end_and_before_the_next(store):
    save(store, 3)
    save(store, 3, during_step=True)
    assert store.newest().folder == store.folder / "stopped" / "global_step_3"
    assert store.newest_facts()["during_step"]
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
