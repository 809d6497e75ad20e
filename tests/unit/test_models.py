"""What a model is: its weights, config and tokenizer, wherever they stand."""

import json
import shutil
from pathlib import Path

import pytest

from mifo_verl.run.checkpoints import CheckpointStore
from mifo_verl.tools.evaluate.models import Model, digest_of, distinct_names, find_model
from mifo_verl.tools.prepare.tiny_model import START_MODEL


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(START_MODEL, tmp_path / "copy"))


def test_a_hugging_face_folder_is_taken_as_it_is(copy):
    found = find_model(str(copy), "float32")
    assert (found.name, found.folder) == ("copy", copy)


def test_the_digest_is_of_the_content_and_not_of_the_place(copy):
    assert digest_of(copy) == digest_of(START_MODEL)
    (copy / "README.md").write_text("words")
    assert digest_of(copy) == digest_of(START_MODEL)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "chat_template.jinja", "tokenizer.json"])
def test_the_digest_changes_with_every_part_of_the_model(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes() + b" ")
    assert digest_of(copy) != digest_of(START_MODEL)


def test_models_of_one_name_get_the_start_of_their_digest():
    models = [Model("a", Path("x"), "1" * 64), Model("a", Path("y"), "2" * 64), Model("b", Path("z"), "3" * 64)]
    assert [model.name for model in distinct_names(models)] == ["a-111111", "a-222222", "b"]
    with pytest.raises(ValueError, match="must be different models"):
        distinct_names([models[0], models[0]])


def saved(folder, step, stopped=False):
    """A checkpoint as the store of a run writes it, without weights."""
    store = CheckpointStore(folder, keep_last=9, keep_best=0)
    written = store.begin()
    (written / "actor" / "huggingface").mkdir(parents=True)
    for name in ("fsdp_config.json", "huggingface/config.json"):
        (written / "actor" / name).write_text("{}")
    (written / "actor" / "model_world_size_1_rank_0.pt").write_bytes(b"weights of %d" % step)
    return store.commit(written, {"step": step, "during_step": stopped, "accuracy": None})


def merged(checkpoint):
    """The start model as what the checkpoint was converted to."""
    folder = checkpoint / "huggingface_float32"
    shutil.copytree(START_MODEL, folder)
    shard = checkpoint / "actor" / "model_world_size_1_rank_0.pt"
    stat = shard.stat()
    (folder / "merged_from").write_text(json.dumps({shard.name: [stat.st_size, stat.st_mtime_ns]}))
    return folder


def test_a_run_stands_for_its_newest_whole_checkpoint(tmp_path, capsys):
    run, checkpoints = tmp_path / "mine", tmp_path / "mine" / "checkpoints"
    folders = {step: merged(saved(checkpoints, step)) for step in (7, 8, 9)}
    for path in (run, checkpoints):
        found = find_model(str(path), "float32")
        assert (found.name, found.folder, found.digest) == ("mine/global_step_9", folders[9], digest_of(START_MODEL))
    (checkpoints / "global_step_9" / "actor" / "model_world_size_1_rank_0.pt").write_bytes(b"torn")
    assert find_model(str(run), "float32").folder == folders[8]
    assert "CHECKPOINT SKIPPED" in capsys.readouterr().out
    for path in (checkpoints / "global_step_7", checkpoints / "global_step_7" / "actor"):
        assert find_model(str(path), "float32").name == "mine/global_step_7"


def test_a_run_that_was_stopped_inside_a_step_is_found(tmp_path):
    checkpoints = tmp_path / "mine" / "checkpoints"
    saved(checkpoints, 7)
    folder = merged(saved(checkpoints, 7, stopped=True))
    found = find_model(str(tmp_path / "mine"), "float32")
    assert (found.name, found.folder) == ("mine/global_step_7", folder)


def test_a_torn_checkpoint_that_was_named_is_an_error(tmp_path):
    checkpoint = saved(tmp_path / "mine" / "checkpoints", 7)
    merged(checkpoint)
    (checkpoint / "actor" / "model_world_size_1_rank_0.pt").write_bytes(b"WEIGHTS of 7")
    with pytest.raises(ValueError, match="is not what was written"):
        find_model(str(checkpoint), "float32")


def test_a_checkpoint_without_weights_is_an_error_that_says_what_is_missing(tmp_path):
    (tmp_path / "global_step_7" / "actor").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"model=.*global_step_7 must hold actor/model_world_size"):
        find_model(str(tmp_path / "global_step_7"), "float32")


def test_a_hub_name_is_an_error_while_the_hub_is_switched_off(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"model=Qwen/Qwen2\.5-Math-1\.5B must be a Hugging Face folder"):
        find_model("Qwen/Qwen2.5-Math-1.5B", "float32")
