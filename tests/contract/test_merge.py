"""verl's model merger, as we call it: its command line, the files it reads, and the rounding that we leave out."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from mifo_verl.compose import compose_config
from mifo_verl.run.checkpoints import write_manifest
from mifo_verl.run.resume import start_from_weights
from mifo_verl.tools.export import main as export
from mifo_verl.tools.prepare.tiny_model import START_MODEL
from mifo_verl.verl.merge import ADAPTER, SOURCE, merged_folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """global_step_3 as verl's checkpoint manager leaves it, of one rank and in float32."""
    folder = tmp_path_factory.mktemp("checkpoints") / "global_step_3"
    actor = folder / "actor"
    model = AutoModelForCausalLM.from_pretrained(START_MODEL, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1e-4)  # which bfloat16 cannot hold
    model.config.save_pretrained(actor / "huggingface")
    model.generation_config.save_pretrained(actor / "huggingface")
    AutoTokenizer.from_pretrained(START_MODEL).save_pretrained(actor / "huggingface")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": 1}))
    torch.save(dict(model.state_dict()), actor / "model_world_size_1_rank_0.pt")
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())


def test_float32_weights_are_merged_without_rounding(checkpoint):
    saved = torch.load(checkpoint / "actor" / "model_world_size_1_rank_0.pt")
    merged = weights(merged_folder(checkpoint, "float32"))
    assert merged.keys() == saved.keys()
    assert all(torch.equal(merged[name], saved[name]) for name in saved)


def test_bfloat16_is_verls_own_rounding(checkpoint):
    saved = torch.load(checkpoint / "actor" / "model_world_size_1_rank_0.pt")
    merged = weights(merged_folder(checkpoint, "bfloat16"))
    assert all(torch.equal(merged[name], saved[name].bfloat16().float()) for name in saved)
    assert any(not torch.equal(merged[name], saved[name]) for name in saved)


def test_the_tokenizer_and_its_chat_template_come_along(checkpoint):
    merged = AutoTokenizer.from_pretrained(merged_folder(checkpoint, "float32"))
    shipped = AutoTokenizer.from_pretrained(START_MODEL)
    messages = [{"role": "user", "content": "12+3=?"}]
    render = {"add_generation_prompt": True, "return_dict": False}
    assert merged.apply_chat_template(messages, **render) == shipped.apply_chat_template(messages, **render)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_config_json_says_the_dtype_that_the_weights_have(checkpoint, dtype):
    folder = merged_folder(checkpoint, dtype)
    assert json.loads((folder / "config.json").read_text())["dtype"] == dtype
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {f"torch.{dtype}"}
    assert AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype == getattr(torch, dtype)


@pytest.fixture(scope="module")
def with_adapter(checkpoint, tmp_path_factory) -> Path:
    """The same start model with a LoRA adapter, rank 2 and alpha 3, on every linear layer but the head."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapter") / "global_step_3"
    shutil.copytree(checkpoint / "actor" / "huggingface", folder / "actor" / "huggingface")
    shutil.copy(checkpoint / "actor" / "fsdp_config.json", folder / "actor")
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(START_MODEL, dtype=torch.float32)
    config = LoraConfig(r=2, lora_alpha=3, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    torch.save(dict(model.state_dict()), folder / "actor" / "model_world_size_1_rank_0.pt")
    (folder / "actor" / ADAPTER).write_text('{"r": 2, "lora_alpha": 3, "task_type": "CAUSAL_LM"}')
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_is_folded_into_the_weights_in_float32_and_rounded_after(with_adapter, dtype):
    saved = torch.load(with_adapter / "actor" / "model_world_size_1_rank_0.pt")
    merged = weights(merged_folder(with_adapter, dtype))
    stem = "base_model.model.model.layers.1.mlp.up_proj"
    lora_a, lora_b = (saved[f"{stem}.lora_{part}.default.weight"] for part in "AB")
    expected = saved[f"{stem}.base_layer.weight"] + 1.5 * (lora_b @ lora_a)
    assert torch.equal(merged["model.layers.1.mlp.up_proj.weight"], expected.to(getattr(torch, dtype)).float())
    start = AutoModelForCausalLM.from_pretrained(START_MODEL, dtype=torch.float32).state_dict()
    assert merged.keys() == start.keys()
    changed = {name for name in start if not torch.allclose(merged[name], start[name], atol=1e-2)}
    assert changed == {name for name in start if name.endswith("_proj.weight")}
    assert not (merged_folder(with_adapter, dtype) / "lora_adapter").exists()


def test_export_writes_a_whole_hugging_face_folder_of_a_run(checkpoint, tmp_path, capsys):
    out = tmp_path / "model"
    assert export([str(checkpoint), f"out={out}", "dtype=float32"]) == 0
    files = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert files <= {file.name for file in out.iterdir()} and not (out / SOURCE).exists()
    assert str(out) in capsys.readouterr().out
    assert export([str(checkpoint), f"out={out}"]) == 2
    assert "must be a new or an empty folder; choose another one" in capsys.readouterr().err
    assert export([str(checkpoint), "dtype=int8"]) == 2 and export([str(tmp_path / "none")]) == 2


def test_a_checkpoint_is_merged_once_and_again_where_its_shards_have_changed(checkpoint):
    folder = merged_folder(checkpoint, "float32")
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert merged_folder(checkpoint, "float32") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    shard = checkpoint / "actor" / "model_world_size_1_rank_0.pt"
    state = torch.load(shard)
    state["model.norm.weight"] += 1
    torch.save(state, shard)
    assert torch.equal(weights(merged_folder(checkpoint, "float32"))["model.norm.weight"], state["model.norm.weight"])
    shard.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="could not be merged"):
        merged_folder(checkpoint, "float32")
    assert not list(checkpoint.glob(".huggingface*"))


def test_a_new_run_begins_with_the_weights_of_another_and_says_which(checkpoint, tmp_path):
    given = ["experiment=quickstart", "trainer.resume_mode=weights", f"run_dir={tmp_path}/new"]
    before = compose_config([*given, "seed=7"]).to_dict()
    shutil.copytree(checkpoint, tmp_path / "global_step_3")
    write_manifest(tmp_path / "global_step_3", {"step": 3, "during_step": False, "accuracy": None, "config": before})
    given += [f"trainer.resume_from_path={tmp_path}/global_step_3", "actor_rollout_ref.actor.optim.lr=1e-5", "seed=7"]
    config, said = compose_config(given).node, []
    (tmp_path / "new").mkdir()
    for _ in range(2):  # the same command again finds it done
        start_from_weights(config, lambda kind, text: said.append(kind))
        assert config.actor_rollout_ref.model.path == f"{tmp_path}/new/start" and config.trainer.resume_mode == "auto"
    assert said == ["weights"]
    saved, started = weights(merged_folder(checkpoint, "float32")), weights(tmp_path / "new" / "start")
    assert all(torch.equal(started[name], saved[name]) for name in saved)
    origin = json.loads((tmp_path / "new" / "weights_from.json").read_text())
    assert (origin["checkpoint"], origin["step"]) == (f"{tmp_path}/global_step_3", 3)
    assert origin["changed"]["actor_rollout_ref.actor.optim.lr"] == [1e-4, 1e-5]
    assert {key.rpartition(".")[2] for key in origin["changed"]} == {"lr"}
