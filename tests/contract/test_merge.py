"""verl's model merger, as we call it: its command line, the files it reads, and the rounding that we leave out."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from mifo_verl.compose import compose_config
from mifo_verl.run.checkpoints import write_manifest
from mifo_verl.run.resume import start_from_weights
from mifo_verl.tools.evaluate.models import find_model
from mifo_verl.tools.evaluate.report import write_results
from mifo_verl.tools.evaluate.results import QuestionResult, model_table
from mifo_verl.tools.export import main as export
from mifo_verl.tools.prepare.tiny_model import START_MODEL
from mifo_verl.verl.merge import ADAPTER, SOURCE, merged_folder
from tests.integration.hub import TOKEN, serve
from tests.unit.example_run import ExampleRun, make_data


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


@pytest.fixture(scope="module")
def of_a_run(checkpoint, tmp_path_factory) -> Path:
    """A run of 12 steps whose records are there, and its checkpoint of step 3."""
    folder = tmp_path_factory.mktemp("runs") / "example"
    folder.mkdir()
    ExampleRun(folder, make_data(folder.parent)).run(12)
    (folder / "versions.json").write_text('{"torch": "2.13.0"}')
    merged_folder(checkpoint, "bfloat16")  # once for all: the copy is not stale
    shutil.copytree(checkpoint, folder / "checkpoints" / "global_step_3")
    return folder


def results(folder: Path, digest: str) -> Path:
    """results.json of a model that got three of four questions right."""
    answers = [QuestionResult(str(n), 1, int(n < 3), {1: float(n < 3)}, 5.0, 0) for n in range(4)]
    write_results([model_table("m", "path", digest, {"sums": answers}, {"temperature": 0.6})], folder)
    return folder


def test_the_card_says_method_data_numbers_config_and_versions(of_a_run, tmp_path):
    checkpoint = of_a_run / "checkpoints" / "global_step_3"
    digest = find_model(str(checkpoint), "bfloat16").digest
    out, evaluation = tmp_path / "model", results(tmp_path / "evaluation", digest)
    assert export([str(checkpoint), f"out={out}", f"evaluation={evaluation}"]) == 0
    text = (out / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "transformers" and "mifo_verl" in front["tags"]
    assert "| constraint | the top 0.5 of the coordinates by importance are frozen |" in text
    ledger = [json.loads(line) for line in (of_a_run / "ledger.jsonl").read_text().splitlines()]
    uses = sum(line["step"] <= 3 for line in ledger)
    assert 0 < uses < len(ledger) and f"| uses of a demonstration | {uses} |" in text and "| rollouts | 96 |" in text
    assert "| step 0 | 0.2500 |" in text and "step 6" not in text
    assert re.search(r"\| sums \| 4 \| avg \| 75\.0 \[\d+\.\d, 100\.0\] \|", text)
    assert "| torch | 2.13.0 |" in text and (of_a_run / "config.yaml").read_text().rstrip() in text
    assert not any(path.stat().st_mode & 0o444 != 0o444 for path in out.rglob("*"))


def test_an_evaluation_of_another_model_is_refused(of_a_run, tmp_path, capsys):
    evaluation = results(tmp_path / "evaluation", "0" * 64)
    assert (
        export(
            [str(of_a_run / "checkpoints" / "global_step_3"), f"out={tmp_path / 'model'}", f"evaluation={evaluation}"]
        )
        == 2
    )
    assert "must be of this model in this dtype" in capsys.readouterr().err


def test_push_writes_every_file_to_the_hub_in_a_private_repository(checkpoint, tmp_path, monkeypatch, capsys):
    with serve(tmp_path / "hub") as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_nobody")
        asked = [str(checkpoint), f"out={tmp_path / 'one'}", "push=me/model"]
        assert export(asked) == 2
        assert "push=me/model must be a repository that you may write to" in capsys.readouterr().err
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        out = tmp_path / "two"
        assert export([asked[0], f"out={out}", asked[2]]) == 0
    pushed = tmp_path / "hub" / "me" / "model"
    assert (pushed / ".private").read_text() in ("True", "private")
    assert {file.name: file.read_bytes() for file in out.iterdir()} == {
        file.name: file.read_bytes() for file in pushed.iterdir() if file.name != ".private"
    }


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


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """A Hugging Face folder of the same model with other weights, some of them -0.0."""
    folder = tmp_path_factory.mktemp("other") / "model"
    model = AutoModelForCausalLM.from_pretrained(START_MODEL, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.3).clamp_(min=0).mul_(-1)
    model.save_pretrained(folder)
    return folder


def bits(folder: Path) -> dict[str, torch.Tensor]:
    return {name: weight.view(torch.int32) for name, weight in weights(folder).items()}


def test_merging_at_0_and_1_is_either_model_to_the_bit_and_at_a_half_their_mean(other, tmp_path):
    first, second = weights(START_MODEL), weights(other)
    asked = [f"merge={other}", "share=[0,0.25,0.5,1]", f"out={tmp_path / 'out'}", "dtype=float32"]
    assert export([str(START_MODEL), *asked]) == 0
    found = {share: tmp_path / "out" / f"share_{share}" for share in ("0", "0.25", "0.5", "1")}
    assert {folder.name for folder in (tmp_path / "out").iterdir()} == {f"share_{share}" for share in found}
    for share, whole in (("0", first), ("1", second)):
        own = bits(found[share])
        assert own.keys() == whole.keys() and all(torch.equal(own[n], whole[n].view(torch.int32)) for n in whole)
    half, quarter = weights(found["0.5"]), weights(found["0.25"])
    for name in first:
        mean = ((first[name].double() + second[name].double()) / 2).float()
        assert torch.equal(half[name], mean)
        assert torch.allclose(quarter[name], 0.75 * first[name] + 0.25 * second[name], atol=0, rtol=1e-6)
    assert json.loads((found["0.5"] / "config.json").read_text())["dtype"] == "float32"
    assert AutoTokenizer.from_pretrained(found["0.5"]).eos_token and not (found["0.5"] / SOURCE).exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["merge=x"], "share=[] must be given with merge=<model>; write both or none"),
        (["share=0.5"], "share=[0.5] must be given with merge=<model>; write both or none"),
        (["merge=x", "share=1.5", "out=y"], "share=[1.5] must be in [0, 1]; 0.5 is the mean"),
        (["merge=x", "share=1"], "out=None must be given with merge=<model>; write out=<folder>"),
    ],
)
def test_a_merge_that_is_half_asked_for_is_refused_at_once(given, told, capsys):
    assert export([str(START_MODEL), *given]) == 2
    assert told in capsys.readouterr().err


def test_models_of_other_shapes_are_not_merged(tmp_path, capsys):
    model = AutoModelForCausalLM.from_pretrained(START_MODEL, dtype=torch.float32)
    model.resize_token_embeddings(model.config.vocab_size + 1)
    model.save_pretrained(tmp_path / "larger")
    asked = [f"merge={tmp_path / 'larger'}", "share=0.5", f"out={tmp_path / 'out'}"]
    assert export([str(START_MODEL), *asked]) == 2
    assert "has the shapes" in capsys.readouterr().err and not (tmp_path / "out").exists()
