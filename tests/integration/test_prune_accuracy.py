"""``analyze prune`` with benchmarks: accuracy falls with the rate, and at rate 0 it is that of the model itself."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mifo_verl.data.parquet import write_rows
from mifo_verl.tools.analyze.__main__ import main
from mifo_verl.tools.evaluate.__main__ import evaluate
from mifo_verl.tools.evaluate.settings import Settings
from mifo_verl.tools.prepare import addition
from mifo_verl.tools.prepare.tiny_model import START_MODEL


def test_every_pruned_model_is_evaluated_and_shown_by_its_rate(tmp_path: Path, capsys):
    start, out = tmp_path / "start", tmp_path / "out"
    start.mkdir()
    weights = {name: torch.zeros_like(tensor) for name, tensor in load_file(START_MODEL / "model.safetensors").items()}
    save_file(weights, start / "model.safetensors")
    (start / "config.json").write_text((START_MODEL / "config.json").read_text())
    rows = tmp_path / "validation.parquet"
    write_rows(addition.rows({1: 4}, "validation", 0), rows)
    asked = ["samples=1", "temperature=0", "max_tokens=48", "threads=1", "engine=transformers"]
    rates = ["rates=0,0.9", f"benchmarks=[{rows}]"]
    assert main(["prune", str(start), str(START_MODEL), f"out={out}", *rates, *asked]) == 0
    models = json.loads((out / "evaluation" / "results.json").read_text())["models"]
    assert [model["path"] for model in models] == [str(out / "rate_0"), str(out / "rate_0.9")]
    whole, pruned = (model["average"]["avg"]["mean"] for model in models)
    settings = Settings(
        (str(START_MODEL),),
        (str(rows),),
        out=tmp_path / "alone",
        temperature=0,
        max_tokens=48,
        threads=1,
        engine="transformers",
    )
    [alone] = evaluate(settings)
    assert whole == alone["average"]["avg"]["mean"] > pruned == 0.0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│ 0")]
    assert len(shown) == 2 and f"{100 * whole:.1f} [" in shown[0] and "0.0 [" in shown[1]
