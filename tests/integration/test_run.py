"""Whole runs on Ray: complete intervals, records that agree with each other, another run for another seed, LoRA.

That one seed gives the same bits, in one process or in many, is in test_kills.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mifo_verl.tools.prepare.tiny_model import START_MODEL
from tests import forks
from tests.faults.__main__ import REPOSITORY, RUN

LORA = [f"actor_rollout_ref.model.{setting}" for setting in ("lora_rank=4", "lora_alpha=8", "lora.merge=true")]


def train(folder: Path, *overrides: str) -> dict[str, Any]:
    """A small run; what it left behind."""
    settings = [*RUN, f"run_dir={folder}", "trainer.logger=[tensorboard]", *overrides]
    return left_in(folder, forks.train(settings, folder.with_suffix(".log")))


def left_in(folder: Path, out: str) -> dict[str, Any]:
    records = ("metrics", "ledger", "validation")  # a run that never trains on a demonstration has no ledger
    files = {name: folder / f"{name}.jsonl" for name in records}
    lines = {name: file.read_text().splitlines() if file.exists() else [] for name, file in files.items()}
    return {
        "out": out,
        **{name: [json.loads(line) for line in lines[name]] for name in records},
        "summary": json.loads((folder / "summary.json").read_text()),
        "files": {path.name for path in folder.iterdir()},
    }


@pytest.fixture(scope="module")
def first(whole_run) -> dict[str, Any]:
    return left_in(whole_run, whole_run.with_suffix(".log").read_text())


def test_a_run_passes_through_complete_intervals_and_leaves_its_files(first):
    assert first["summary"]["intervals"] >= 3
    assert {"config.yaml", "metrics.jsonl", "ledger.jsonl", "summary.json", "report.html"} <= first["files"]
    phases = [(line["step"], line["phase"], line["interval"]) for line in first["metrics"]]
    assert phases == sorted(phases, key=lambda line: (line[0], line[1] == "sft"))
    assert [line["step"] for line in first["metrics"] if line["phase"] == "rl"] == [1, 2, 3, 4, 5, 6]


def test_as_many_rollouts_of_a_step_are_kept_as_are_asked_for(whole_run):
    samples = [json.loads(line) for line in (whole_run / "samples.jsonl").read_text().splitlines()]
    assert Counter(line["step"] for line in samples) == dict.fromkeys(range(1, 7), 3)  # mifo.inspect.rollouts=3
    assert all(line["text"] and line["answer"] for line in samples)


def test_the_start_the_validated_steps_and_the_end_are_validations_of_their_steps(first):
    assert [line["step"] for line in first["validation"]] == [0, 2, 4, 6]
    accuracy = {line["step"]: line["accuracy"] for line in first["validation"]}
    assert accuracy[0] == first["summary"]["accuracy_start"] and accuracy[6] == first["summary"]["accuracy_end"]
    of_steps = {line["step"]: line["validation"] for line in first["metrics"] if line.get("validation")}
    assert of_steps == {step: accuracy[step] for step in (2, 4, 6)}


def test_every_record_has_the_fields_that_the_docs_promise(first):
    fields = {
        "step", "phase", "interval", "reward", "accuracy", "entropy", "kl_to_start", "buffer_size", "kept_share",
        "frozen_share", "loss", "grad_norm", "seconds",
    }  # fmt: skip
    assert all(fields <= set(line) for line in first["metrics"])
    uses = {
        "interval", "step", "prompt_id", "num_correct", "num_rollouts", "demonstration_sha256", "source", "response_tokens",
        "kept_tokens", "kind",
    }  # fmt: skip
    assert all(set(line) == uses for line in first["ledger"])


def test_the_first_rl_step_of_an_interval_is_at_its_start_and_later_ones_are_not(first):
    seen = set()
    for line in (line for line in first["metrics"] if line["phase"] == "rl"):
        new = line["interval"] not in seen
        seen.add(line["interval"])
        # of some rollouts of the batch, whose log-probs come in other micro-batches: rounding is left at the start
        assert 0 <= line["rollout_difference"] < 1e-5
        assert (line["kl_to_start"] < 1e-9) if new else (line["kl_to_start"] > 1e-9)


def test_only_hard_prompts_are_trained_on_and_the_expert_is_the_one_of_the_data(first):
    import pyarrow.parquet as pq

    table = pq.read_table(REPOSITORY / "data" / "addition" / "train.parquet").to_pylist()
    expert = {row["prompt_id"]: row["target"][0]["content"] for row in table}
    assert first["ledger"]
    for use in first["ledger"]:
        assert use["num_rollouts"] == 8 and use["num_correct"] * 8 <= use["num_rollouts"]
        assert hashlib.sha256(expert[use["prompt_id"]].encode()).hexdigest() == use["demonstration_sha256"]
        assert use["kept_tokens"] == -(-use["response_tokens"] // 5)


def test_the_ledger_the_metrics_and_the_summary_agree(first):
    sft = [line for line in first["metrics"] if line["phase"] == "sft"]
    uses = first["ledger"]
    for key in ("response_tokens", "kept_tokens"):
        assert sum(use[key] for use in uses) == sum(line[key] for line in sft)
        assert sum(use[key] for use in uses) == sum(phase[key] for phase in first["summary"]["sft_phases"])
    assert len(uses) == sum(line["demonstrations"] for line in sft) == first["summary"]["demonstrations"]
    assert all(line["frozen_share"] == pytest.approx(0.5, abs=1e-5) for line in sft)
    assert all(line["frozen_drift"] == 0.0 for line in sft if "frozen_drift" in line)
    assert all(line["frozen_share"] == 0.0 for line in first["metrics"] if line["phase"] == "rl")
    for phase in first["summary"]["sft_phases"]:
        assert 0 <= phase["accuracy_before"] <= 1 and 0 <= phase["accuracy_after"] <= 1
    seconds = first["summary"]["seconds"]
    assert {"rl", "sft", "start_up", "overhead"} <= set(seconds)
    assert seconds["total"] == pytest.approx(sum(seconds.values()) - seconds["total"])


def test_the_console_ends_with_the_table(first):
    assert "validation accuracy" in first["out"] and "addition/level_3" in first["out"]
    assert "complete intervals" in first["out"] and "SFT interval 1" in first["out"]


def saved(folder: Path, step: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(base weights by the start model's names, the adapter's) of a checkpoint, over both ranks."""
    actor = folder / "checkpoints" / f"global_step_{step}" / "actor"
    files = sorted(actor.glob("model_world_size_2_rank_*.pt"))
    ranks = [torch.load(file, weights_only=False) for file in files]
    whole = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): torch.cat(
            [r[name].to_local() for r in ranks]
        )
        for name in ranks[0]
    }
    return {n: w for n, w in whole.items() if "lora_" not in n}, {n: w for n, w in whole.items() if "lora_" in n}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], weight) for name, weight in other.items())


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """MIFO with LoRA, of another seed than ``first``."""
    folder = tmp_path_factory.mktemp("adapter") / "run"
    return folder, train(folder, "seed=1", "trainer.total_training_steps=2", *LORA)


def test_another_seed_gives_another_run(first, adapter):
    _, other = adapter
    assert "tensorboard" in other["files"]
    keys = ("reward", "entropy", "loss")  # which a new adapter changes by no bit
    assert all(other["metrics"][0][key] != first["metrics"][0][key] for key in keys)


def test_mifos_mask_over_lora_holds_half_of_the_adapter_and_the_base_weights_never_move(adapter):
    folder, run = adapter
    sft = [line for line in run["metrics"] if line["phase"] == "sft"]
    assert sft and all(line["frozen_share"] == pytest.approx(0.5, abs=1e-4) for line in sft)
    assert {line["frozen_drift"] for line in sft if "frozen_drift" in line} == {0.0}
    for line in (folder / "inspection.jsonl").read_text().splitlines():
        table = json.loads(line)["mask"]["by_kind"]
        assert sum(table["coordinates"]) == 40_960 and sum(table["sft_moved"]) > 20_000
        columns = zip(table["sft_moved"], table["frozen"], table["coordinates"], strict=True)
        assert all(moved + frozen <= coordinates for moved, frozen, coordinates in columns)
    base, lora = saved(folder, 2)
    assert same(base, load_file(START_MODEL / "model.safetensors"))
    assert len(lora) > 10 and all(weight.any() for weight in lora.values())
    # the server has the adapter in its weights
    assert all(line["rollout_difference"] < 1e-5 for line in run["metrics"] if line["phase"] == "rl")


@pytest.fixture(scope="module")
def sft_first(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """SFT in an adapter for a step, which the weights take in, then RL for a step."""
    folder = tmp_path_factory.mktemp("sft_then_rl") / "run"
    steps = ["mifo.schedule.sft_steps=1", "trainer.total_training_steps=2", "mifo.sft.batch_size=4"]
    return folder, train(
        folder, "method=sft_then_rl", *steps, "mifo/constraint=lora", "mifo.sft.optimizer=fresh", *LORA
    )


def test_sft_comes_before_rl_on_the_data_set_s_own_demonstrations(sft_first):
    _, run = sft_first
    assert [(line["step"], line["phase"]) for line in run["metrics"]] == [(1, "sft"), (1, "sft"), (2, "rl")]
    assert len(run["ledger"]) == 8 and len({use["prompt_id"] for use in run["ledger"]}) == 8
    for use in run["ledger"]:
        assert (use["step"], use["num_correct"], use["num_rollouts"]) == (1, None, None)
        assert use["kept_tokens"] == use["response_tokens"]
    assert run["summary"]["rl_steps"] == 1 and run["summary"]["sft_updates"] == 2


def test_sft_in_an_adapter_moves_the_base_weights_by_rank_4_at_its_end_and_rl_moves_them_alone(sft_first):
    folder, run = sft_first
    start, (base, lora), (later, unmoved) = (
        load_file(START_MODEL / "model.safetensors"),
        saved(folder, 1),
        saved(folder, 2),
    )
    adapted = {name.partition(".lora_B")[0] + ".weight" for name in lora if ".lora_B" in name}
    assert len(adapted) > 10 and all((".lora_B" in name) is not bool(weight.any()) for name, weight in lora.items())
    for name, weight in start.items():
        spectrum = torch.linalg.svdvals(torch.atleast_2d(base[name] - weight).double())
        assert (spectrum[3] > 1e-6 and spectrum[4] < 1e-2 * spectrum[3]) if name in adapted else not spectrum.any(), (
            name
        )
    assert all(not torch.equal(later[name], base[name]) for name in adapted) and same(unmoved, lora)
    sizes = [sum(weight.numel() for weight in part.values()) for part in (start, lora)]
    shares = [line["frozen_share"] for line in run["metrics"]]
    assert shares == pytest.approx([sizes[0] / sum(sizes)] * 2 + [0.0])
    assert run["metrics"][-1]["rollout_difference"] < 1e-5
