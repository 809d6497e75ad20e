"""Stands for ``python -m mifo_verl.train`` in tests of the sweep: writes the records of a run, and can fail or wait."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from mifo_verl.compose import compose_config
from mifo_verl.run.journal import CONFIG, SUMMARY, RunRecords


def main(overrides: list[str]) -> int:
    composed = compose_config(overrides)
    node = composed.node
    folder = Path(node.run_dir)
    with open(os.environ["FAKE_LOG"], "a") as log:
        log.write(f"{node.name} {node.trainer.resume_mode}\n")
    records = RunRecords(folder)
    (folder / CONFIG).write_text(composed.to_yaml())
    if node.name == os.environ.get("FAKE_FAIL"):
        print("error: it was asked to fail")
        return 1
    if node.name == os.environ.get("FAKE_WAIT"):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        (folder / "waits").touch()
        time.sleep(60)
    line = {"step": 1, "phase": "rl", "interval": 1, "rollouts": 8, "seconds": {"rollout": 1.0}}
    line |= dict.fromkeys(("accuracy", "reward", "entropy", "kl_to_start", "response_length", "grad_norm", "loss"), 0.5)
    line |= {"buffer_size": 0, "validation": None, "rejected_demonstrations": {}, "update": 0}
    records.metrics(line | {"prompt_tokens": 10, "response_tokens": 20, "generated_tokens": 20, "flops": 100})
    accuracy = {"addition/level_1": 0.5 + node.seed / 100 + (0.1 if node.mifo.schedule.name == "when_full" else 0.0)}
    accuracy["mean"] = accuracy["addition/level_1"]
    summary = {"accuracy_start": {"mean": 0.25}, "accuracy_end": accuracy, "sft_phases": [], "seconds": {"total": 9.0}}
    (folder / SUMMARY).write_text(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
