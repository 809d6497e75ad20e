"""What a model is: its weights, config and tokenizer, wherever they stand."""

import json
import shutil
from pathlib import Path

import pytest

from mifo_verl.data.tiny_model import START_MODEL
from mifo_verl.evaluate.models import Model, digest_of, distinct_names, find_model


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


def test_a_run_stands_for_its_newest_checkpoint_which_has_to_be_whole(tmp_path):
    checkpoints = tmp_path / "mine" / "checkpoints"
    (checkpoints / "global_step_7" / "actor").mkdir(parents=True)
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("7")
    for path in (
        tmp_path / "mine",
        checkpoints,
        checkpoints / "global_step_7",
        checkpoints / "global_step_7" / "actor",
    ):
        with pytest.raises(ValueError, match=r"model=.*global_step_7 must hold actor/model_world_size"):
            find_model(str(path), "float32")


def test_a_merged_checkpoint_is_used_again_while_its_shards_are_the_same(tmp_path):
    checkpoint = tmp_path / "mine" / "checkpoints" / "global_step_7"
    actor, merged = checkpoint / "actor", checkpoint / "huggingface_float32"
    (actor / "huggingface").mkdir(parents=True)
    for name in ("fsdp_config.json", "huggingface/config.json"):
        (actor / name).write_text("{}")
    shard = actor / "model_world_size_1_rank_0.pt"
    shard.write_bytes(b"weights")
    shutil.copytree(START_MODEL, merged)
    stat = shard.stat()
    (merged / "merged_from").write_text(json.dumps({shard.name: [stat.st_size, stat.st_mtime_ns]}))
    found = find_model(str(tmp_path / "mine" / "checkpoints" / "global_step_7"), "float32")
    assert (found.name, found.folder, found.digest) == ("mine/global_step_7", merged, digest_of(START_MODEL))


def test_a_hub_name_is_an_error_while_the_hub_is_switched_off(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"model=Qwen/Qwen2\.5-Math-1\.5B must be a Hugging Face folder"):
        find_model("Qwen/Qwen2.5-Math-1.5B", "float32")
