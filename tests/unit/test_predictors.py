"""Numbers before RL against the accuracy after it, by hand; and the whole command on three small models."""

import json
from pathlib import Path

import msgspec
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mifo_verl.data.parquet import write_rows
from mifo_verl.run.journal import CONFIG, VALIDATION
from mifo_verl.tools.analyze.__main__ import main
from mifo_verl.tools.analyze.predictors import numbers_before, rank_correlations
from mifo_verl.tools.evaluate.results import QuestionResult, cross_entropy
from mifo_verl.tools.prepare import addition
from mifo_verl.tools.prepare.tiny_model import START_MODEL
from mifo_verl.tools.sweep.store import SWEEP, StoredRun, StoredSweep
from tests.unit.example_run import ExampleRun, make_data


def test_rank_correlations_by_hand():
    before = {
        "loss": [0.1, 0.3, 0.2, 0.9],
        "pass@64": [4.0, 3.0, 2.0, 1.0],
        "avg": [0.5, 0.5, 1.0, 2.0],
        "same": [1.0] * 4,
    }
    found = rank_correlations(before, [10.0, 20.0, 30.0, 40.0])
    assert found["loss"]["spearman"] == pytest.approx(1 - 6 * (0 + 1 + 1 + 0) / (4 * 15))  # ranks 1 3 2 4
    assert found["pass@64"] | {"p": 0.0} == {"spearman": -1.0, "p": 0.0, "r2": pytest.approx(1.0), "n": 4}
    # mean ranks 1.5 1.5 3 4: their covariance with 1 2 3 4 is 4.5, their own is 4.5, that of 1 2 3 4 is 5
    assert found["avg"]["spearman"] == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    # sums of squares around the means: 0.3875 and 500; of products: 11.5
    assert found["loss"]["r2"] == pytest.approx(11.5**2 / (0.3875 * 500))
    assert found["same"] == {"spearman": None, "p": None, "r2": None, "n": 4}


def question(**more: object) -> QuestionResult:
    return QuestionResult("q", 1, 0, {1: 0.0}, 1.0, 0, **more)


def test_the_cross_entropy_is_a_mean_over_tokens_and_not_over_demonstrations():
    own = [
        question(log_likelihood=-3.0, demonstration_tokens=2),
        question(),
        question(log_likelihood=-5.0, demonstration_tokens=6),
    ]
    assert cross_entropy(own) == (3 + 5) / (2 + 6)
    assert cross_entropy([question()]) is None


def test_numbers_before_are_means_over_benchmarks_without_votes():
    table = {
        "average": {name: {"mean": value} for name, value in {"avg": 0.5, "pass@4": 0.75, "maj@4": 0.25}.items()},
        "benchmarks": {"a": {"cross_entropy": 1.0}, "b": {"cross_entropy": None}, "c": {"cross_entropy": 2.0}},
    }
    assert numbers_before(table) == {"avg": 0.5, "pass@4": 0.75, "cross_entropy": 1.5}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Runs from three start models, one of them twice: the start model and two that noise has made worse."""
    folder, data = tmp_path / "sweep", make_data(tmp_path)
    weights = load_file(START_MODEL / "model.safetensors")
    runs, ends = [], {"a": 0.5, "a2": 0.75, "b": 0.25, "c": 0.125}
    for place, (name, end) in enumerate(ends.items()):
        start = tmp_path / name[0]
        if not start.exists():
            start.mkdir()
            for file in START_MODEL.iterdir():
                (start / file.name).write_bytes(file.read_bytes())
            noise = torch.Generator().manual_seed(place)
            noisy = {key: one + 0.02 * place * torch.randn(one.shape, generator=noise) for key, one in weights.items()}
            save_file(noisy, start / "model.safetensors", metadata={"format": "pt"})
        run = ExampleRun(folder / name, data).run(2)
        config = yaml.safe_load((run / CONFIG).read_text())
        config["actor_rollout_ref"]["model"] = {"path": str(start)}
        (run / CONFIG).write_text(yaml.safe_dump(config))
        lines = [json.loads(line) for line in (run / VALIDATION).read_text().splitlines()]
        lines[-1]["accuracy"] = {"a": end, "mean": end}
        (run / VALIDATION).write_text("".join(json.dumps(line) + "\n" for line in lines))
        runs.append(StoredRun(name, name[0], place))
    (folder / SWEEP).write_bytes(msgspec.json.encode(StoredSweep(baseline=False, command="", runs=runs)))
    return folder


def test_one_command_asks_every_start_model_once_and_ranks_them_by_what_rl_made_of_them(sweep, tmp_path, capsys):
    rows = addition.rows({1: 3, 2: 3}, "validation", 0)
    write_rows(rows, tmp_path / "validation.parquet")
    asked = [
        "samples=4",
        "temperature=1",
        "max_tokens=32",
        "threads=1",
        "engine=transformers",
        f"out={tmp_path / 'out'}",
    ]
    benchmarks = f"benchmarks=[{tmp_path / 'validation.parquet'}]"
    assert main(["predictors", str(sweep), benchmarks, *asked]) == 0
    found = json.loads((tmp_path / "out" / "predictors.json").read_text())
    assert [(one["after_rl"], one["runs"]) for one in found["models"]] == [(0.625, 2), (0.25, 1), (0.125, 1)]
    assert set(found["correlations"]) == {"avg", "pass@1", "pass@2", "pass@4", "cross_entropy"}
    assert found["correlations"]["cross_entropy"]["spearman"] == -1.0  # the more noise, the worse both
    assert found["models"][0]["cross_entropy"] == pytest.approx(slow_cross_entropy(rows), abs=1e-6)
    assert "rank correlation with the accuracy after RL" in capsys.readouterr().out


def slow_cross_entropy(rows: list[dict]) -> float:
    """The mean over benchmarks of -log p a token, of each whole text in a forward pass of its own."""
    tokenizer, model = (
        AutoTokenizer.from_pretrained(START_MODEL),
        AutoModelForCausalLM.from_pretrained(START_MODEL, dtype=torch.float32),
    )
    nats: dict[str, list[float]] = {}
    for row in rows:
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
        text = row["target"][0]["content"]
        ids = [*prompt_ids, *tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
        with torch.no_grad():
            log_prob = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        own = [-float(log_prob[place - 1, ids[place]]) for place in range(len(prompt_ids), len(ids))]
        nats.setdefault(row["data_source"], []).extend(own)
    return sum(sum(own) / len(own) for own in nats.values()) / len(nats)


def test_two_start_models_are_refused_before_anything_is_loaded(sweep, capsys):
    stored = json.loads((sweep / SWEEP).read_text())
    stored["runs"] = stored["runs"][:3]
    (sweep / SWEEP).write_text(json.dumps(stored))
    assert main(["predictors", str(sweep), "benchmarks=[gsm8k]"]) == 2
    assert "must hold finished runs from at least 3 start models" in capsys.readouterr().err
