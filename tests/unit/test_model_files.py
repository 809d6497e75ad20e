"""A model folder that is incomplete or contradicts itself is found without loading it."""

import json
from pathlib import Path

import pytest

from mifo_verl.checks.model_files import has_tokenizer, read_json, rope_errors, special_tokens, weight_errors, window

START = Path(__file__).parents[2] / "mifo_verl" / "data" / "addition_start"


def test_the_model_as_shipped_is_whole() -> None:
    assert list(weight_errors(START)) == [] and has_tokenizer(START)
    assert special_tokens(START) == ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]
    config = read_json(START / "config.json")
    assert list(rope_errors(config)) == [] and window(config) == 512


def test_weights_that_are_missing_or_pointers_are_named(tmp_path: Path) -> None:
    assert "must hold weights" in next(weight_errors(tmp_path))
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 1\n")
    assert "run git lfs pull" in next(weight_errors(tmp_path))
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model.safetensors").rename(tmp_path / "model-1.safetensors")
    errors = list(weight_errors(tmp_path))
    assert len(errors) == 2 and "names model-2.safetensors" in errors[0] and "model-1.safetensors" in errors[1]


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_json_file_that_is_no_object_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json must be a JSON"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({}, []),
        ({"rope_theta": 40000}, []),
        ({"rope_theta": "40k"}, ["rope_theta=40k"]),
        ({"rope_theta": 0}, ["rope_theta=0"]),
        ({"rope_parameters": {"rope_theta": -1.0, "rope_type": "default"}}, ["rope_theta=-1.0"]),
        ({"rope_scaling": {"type": "linear"}}, ["rope_type=linear"]),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}, "rope_theta": 10000.0}, []),
        ({"rope_scaling": None}, []),
    ],
)
def test_rope_settings_that_cannot_be_are_named(config: dict, wrong: list[str]) -> None:
    errors = list(rope_errors(config))
    assert len(errors) == len(wrong) and all(piece in error for piece, error in zip(wrong, errors, strict=True))


def test_the_window_is_what_the_model_says_and_as_yarn_extends_it() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    assert window({"max_position_embeddings": 4096}) == 4096
    assert window({"max_position_embeddings": 32768, "rope_scaling": yarn}) == 131072
    assert window({}) is None
