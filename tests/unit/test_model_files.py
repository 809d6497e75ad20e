"""A model folder that is incomplete or contradicts itself is found without loading it."""

import json
import shutil
from pathlib import Path

import pytest

from mifo_verl.checks.model_files import has_tokenizer, read_json, rope_errors, special_tokens, weight_errors, window
from mifo_verl.tools.evaluate.templates import fill
from mifo_verl.tools.prepare.__main__ import main as prepare

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
        ({"rope_theta": True}, ["rope_theta=True"]),
        ({"rope_theta": 40000.0, "rope_parameters": {"rope_theta": 10000.0}}, ["write 40000.0 there"]),
        (
            {"rope_theta": 40000.0, "rope_scaling": {"type": "yarn", "factor": 2.0, "rope_theta": 1.0}},
            ["write 40000.0"],
        ),
        ({"rope_theta": 5.0, "rope_parameters": {"a": {"rope_theta": 1.0}, "b": {"rope_theta": 2.0}}}, ["write 5.0"]),
        ({"rope_parameters": {"a": {"rope_theta": 1.0}, "b": {"rope_type": "yarn"}}}, ["must have a factor"]),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2}, "rope_parameters": {"rope_theta": 4.0}},
            ["must not stand beside"],
        ),
        ({"rope_scaling": {"rope_theta": 4.0}, "rope_parameters": {"rope_theta": 4.0}}, []),
        ({"rope_scaling": {"rope_type": "default", "factor": 4.0}}, ["rope_type=default must be a scaling"]),
        ({"rope_scaling": {"factor": 4.0}}, ["rope_type=None must be a scaling"]),
        ({"rope_scaling": {"type": "linear", "rope_type": "default", "factor": 4.0}}, ["rope_type=default"]),
        ({"rope_scaling": {"rope_type": "yarnn", "factor": 4.0}}, ["rope_type=yarnn must be one of"]),
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


# Copies with another RoPE base, window or template: mifo data model


def made(tmp_path, config: dict, *settings: str) -> Path:
    """The copy of the start model, whose config.json has other entries."""
    model = Path(shutil.copytree(START, tmp_path / "model"))
    kept = {k: v for k, v in json.loads((model / "config.json").read_text()).items() if not k.startswith("rope")}
    (model / "config.json").write_text(json.dumps(kept | config))
    assert prepare(["model", f"model={model}", f"out={tmp_path / 'copy'}", *settings]) == 0
    return tmp_path / "copy"


@pytest.mark.parametrize(
    "config",
    [
        {"rope_theta": 10000.0},  # as transformers 4 wrote it
        {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}},
        {"rope_theta": 10000.0, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}},
    ],
)
def test_the_copy_rotates_by_the_base_that_was_asked_for(tmp_path, config):
    from transformers import AutoConfig

    copy = made(tmp_path, config, "rope_theta=40000", "max_position_embeddings=16384")
    read = AutoConfig.from_pretrained(copy)
    assert read.rope_parameters["rope_theta"] == 40000 and read.max_position_embeddings == 16384
    assert list(rope_errors(json.loads((copy / "config.json").read_text()))) == []
    assert (copy / "model.safetensors").samefile(tmp_path / "model" / "model.safetensors")
    assert not (copy / "config.json").samefile(tmp_path / "model" / "config.json")


@pytest.mark.parametrize("name", ["none", "qwen", "prime", "luffy"])
def test_training_asks_as_the_evaluation_does(tmp_path, name):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made(tmp_path, {}, f"template={name}"))
    chat = [{"role": "user", "content": '1 "+" {1}\n=?'}]
    ask = {"tokenize": False, "add_generation_prompt": True}
    text = tokenizer.apply_chat_template(chat, **ask)
    assert text == fill(name, '1 "+" {1}\n=?')
    answered = tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": "2"}], tokenize=False)
    assert answered == f"{text}2{tokenizer.eos_token}"
    with pytest.raises(Exception, match="prepare the data with system=none"):
        tokenizer.apply_chat_template([{"role": "system", "content": "s"}, *chat], **ask)


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ("rope_theta=40k", "a number above 0"),
        ("template=quen", "did you mean qwen"),
        ("model=none", "a Hugging Face folder"),
    ],
)
def test_a_copy_that_cannot_be_made_is_told_in_one_line(tmp_path, capsys, setting, rule):
    asked = {"model": str(START), "out": str(tmp_path / "copy")} | dict([setting.split("=")])
    assert prepare(["model", *(f"{key}={value}" for key, value in asked.items())]) == 2
    assert rule in capsys.readouterr().err and not (tmp_path / "copy").exists()
