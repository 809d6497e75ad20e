"""The loop through verl's own vLLM server, and an evaluation by vLLM, on a CPU: ``make vllm-run``, a few minutes.

``python -m tests.vllm [out=runs/vllm] [run="actor_rollout_ref.model.lora_rank=4 ..."]``; ``run`` are further overrides.
Two intervals at least, with a weight sync after each. Exit code 1 if the server's probabilities are not the actor's, or
if the answers of vLLM are not those of the transformers engine, greedily.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.faults.__main__ import REPOSITORY

SIZE = ["data.train_batch_size=8", "actor_rollout_ref.actor.ppo_mini_batch_size=8", "trainer.total_training_steps=4"]
SIZE += ["buffer_size=2", "mifo.probe.around_sft=false", "data.val_max_samples=20"]
SETTINGS = ["samples=1", "temperature=0", "max_tokens=64", "limit=40", "dtype=float32"]


def mifo(*arguments: str) -> None:
    print("mifo", *arguments, flush=True)
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCH_COMPILE_DISABLE": "1"}
    subprocess.run([sys.executable, "-m", "mifo_verl.cli", *arguments], cwd=REPOSITORY, env=environment, check=True)


def main(arguments: list[str]) -> int:
    settings = {"out": "runs/vllm", "run": ""} | dict(argument.split("=", 1) for argument in arguments)
    out = Path(settings["out"]).absolute()
    shutil.rmtree(out, ignore_errors=True)
    overrides = [*SIZE, *settings["run"].split()]
    mifo("train", "experiment=quickstart", "hardware=cpu_vllm", f"run_dir={out / 'run'}", *overrides)
    lines = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    found = [line["rollout_difference"] for line in lines if line["phase"] == "rl"]
    intervals = 1 + len({line["interval"] for line in lines if line["phase"] == "sft"})
    print(f"{intervals} intervals; |p_rollout - p_actor| of every RL step: {', '.join(f'{one:.1e}' for one in found)}")
    accuracies = {}
    for engine in ("vllm", "transformers"):
        asked = [f"model={out / 'run'}", "benchmarks=[data/addition/validation.parquet]", f"engine={engine}"]
        mifo("evaluate", *asked, f"out={out / engine}", *SETTINGS)
        (table,) = json.loads((out / engine / "results.json").read_text())["models"]
        accuracies[engine] = {name: one["metrics"]["avg"]["mean"] for name, one in table["benchmarks"].items()}
    print(accuracies)
    same = accuracies["vllm"] == accuracies["transformers"]
    return 0 if intervals > 2 and max(found) < 1e-4 and same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
