"""What the SFT phase's optimizer does to RL: ``python -m tests.benchmarks.measure_sft_optimizers [out=] [seeds=] [steps=]``.

The quick start with ``mifo.sft.optimizer`` shared, separate and fresh. The three runs of a seed are the same to the bit
until their first SFT phase, which is checked, so they go on from one RL checkpoint. A run that is there is not made again.
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

OPTIMIZERS = ("shared", "separate", "fresh")
QUIET = ("trainer.val_before_train=false", "mifo.probe.around_sft=false", "mifo.probe.kl_to_start=false")


def run(folder: Path, optimizer: str, seed: int, steps: int) -> list[dict[str, Any]]:
    """The records of one run."""
    if not (folder / "summary.json").exists():
        settings = [f"mifo.sft.optimizer={optimizer}", f"seed={seed}", f"run_dir={folder}", *QUIET]
        command = [sys.executable, "-m", "mifo_verl.train", "experiment=quickstart", *settings]
        log = folder.with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            subprocess.run(
                [*command, f"trainer.total_training_steps={steps}"], check=True, stdout=file, stderr=subprocess.STDOUT
            )
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def until_sft(lines: list[dict[str, Any]]) -> list[Any]:
    """What the RL steps before the first SFT phase have computed."""
    first = next(place for place, line in enumerate(lines) if line["phase"] == "sft")
    return [[line[name] for name in ("reward", "loss", "grad_norm", "entropy")] for line in lines[:first]]


def ends(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last record of every SFT phase."""
    return [line for line in lines if line["phase"] == "sft" and "rl_step_factor" in line]


def overlaps(folder: Path) -> list[float]:
    """The share of each mask, but the first, that the mask before has held too."""
    tables = [json.loads(line)["mask"]["by_layer"] for line in (folder / "inspection.jsonl").read_text().splitlines()]
    return [sum(table["frozen_and_previous"]) / sum(table["frozen"]) for table in tables[1:]]


def main(out: Path, seeds: list[int], steps: int) -> None:
    """Print, by optimizer: means over the seeds' phases, and the accuracy at the end."""
    found = {name: [run(out / f"{name}-{seed}", name, seed, steps) for seed in seeds] for name in OPTIMIZERS}
    for place, seed in enumerate(seeds):
        starts = [until_sft(runs[place]) for runs in found.values()]
        assert starts[0] == starts[1] == starts[2], f"seed {seed}: the runs differ before their first SFT phase"
    print("| optimizer | SFT/RL gradient norm | step factor | change of held/others | mask held before | accuracy |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, runs in found.items():
        phases = [line for lines in runs for line in ends(lines)]
        held = [value for line in phases if (value := line["mask"]["change_of_held"]) is not None]
        ratio, factor = (fmean(line[key] for line in phases) for key in ("grad_norm_ratio", "rl_step_factor"))
        folders = [out / f"{name}-{seed}" for seed in seeds]
        accuracy = [json.loads((one / "summary.json").read_text())["accuracy_end"]["mean"] for one in folders]
        shares = [100 * share for one in folders for share in overlaps(one)]
        both = [f"{fmean(each):.{n}f} ({min(each):.{n}f} to {max(each):.{n}f})" for each, n in ((held, 2), (shares, 0))]
        print(f"| `{name}` | {ratio:.1f} | {factor:.2f} | {both[0]} | {both[1]} % | {100 * fmean(accuracy):.1f} % |")


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    main(
        Path(given.get("out", "runs/sft-optimizers")).resolve(),
        [int(seed) for seed in given.get("seeds", "0,1,2").split(",")],
        int(given.get("steps", "18")),
    )
