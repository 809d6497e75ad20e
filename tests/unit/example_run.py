"""A run folder as a training leaves it, made of the package's own record functions and small numbers."""

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from mifo_verl.data.demonstrations import demonstration_of, prompt_id_of
from mifo_verl.data.parquet import write_rows
from mifo_verl.loop.events import LedgerLine, RolloutSeen
from mifo_verl.loop.tokens import TokenSummary
from mifo_verl.probes.columns import COUNTS
from mifo_verl.run.journal import (
    CONFIG,
    RunRecords,
    lines_sha256,
)
from mifo_verl.run.summary import finish_summary
from mifo_verl.tools.ledger.audit import audit
from mifo_verl.tools.prepare import addition
from mifo_verl.tools.run_files import read_run
from mifo_verl.types import BufferEntry, PromptGroup, SftExample

ROLLOUTS = 8
PROMPTS = 4
S = 6
UPDATE = 4
MIDDLE = 6
"""The step that is validated beside the last."""
LAYERS = ["embedding", "0", "1", "norm"]


def config(data: Path, seed: int = 0, **mifo: Any) -> dict[str, Any]:
    """The parts of a resolved config that are read."""
    return {
        "name": "example",
        "seed": seed,
        "run_dir": "runs/example",
        "buffer_size": S + 1,  # which the schedule's own size overrides
        "mifo": {
            "gate": {"name": "max_accuracy", "max_accuracy": "1/8"},
            "token_selector": {"name": "top_entropy", "ratio": 0.2},
            "sft_loss": {"name": "nll"},
            "importance": {"name": "abs_change"},
            "schedule": {"name": "when_full", "size": S},
            "constraint": {"name": "strict", "share": 0.5, "history": 0.5, "scope": "global"},
            "sft": {"lr": 1e-4, "passes": 1},
        }
        | mifo,
        "data": {"train_files": str(data), "train_batch_size": PROMPTS},
        "actor_rollout_ref": {
            "rollout": {"n": ROLLOUTS, "temperature": 1.0},
            "actor": {"optim": {"lr": 1e-4}, "ppo_mini_batch_size": 4, "entropy_coeff": 0.001, "use_kl_loss": False},
        },
        "algorithm": {"adv_estimator": "grpo", "norm_adv_by_std_in_grpo": False},
        "trainer": {"total_training_steps": 12, "total_epochs": 3},
    }


def make_data(folder: Path, rows: int = 60) -> Path:
    """An addition data set of two-digit sums."""
    path = folder / "train.parquet"
    write_rows(addition.rows({2: rows}, "train", 0), path)
    return path


class ExampleRun:
    """Writes the records of a run step by step; the numbers come from a seeded stream."""

    def __init__(self, folder: Path, data: Path, seed: int = 0, **mifo: Any) -> None:
        import pyarrow.parquet as pq

        self.folder = folder
        self.records = RunRecords(folder)
        (folder / CONFIG).write_text(yaml.safe_dump(config(data, seed, **mifo)))
        self.rows = pq.read_table(data).to_pylist()
        self.draw = random.Random(seed)
        self.buffer: list[BufferEntry] = []
        self.interval = 1

    def run(self, steps: int, finish: bool = True) -> Path:
        start, end = {"a": 0.25, "mean": 0.25}, {"a": 0.5, "mean": 0.5}
        self.records.validation(0, start)
        for step in range(1, steps + 1):
            accuracy = {steps: 0.5, MIDDLE: 0.375}.get(step)
            self.step(step, None if accuracy is None else {"a": accuracy, "mean": accuracy})
        if finish:
            self.records.validation(steps, end)
            self.records.write_end(accuracy_start=start, accuracy_end=end, weights_sha256="0" * 64)
            finish_summary(self.folder, total_seconds=100.0)
        return self.folder

    def step(self, step: int, validation: dict[str, float] | None) -> None:
        groups = []
        for row in (self.rows[(step * PROMPTS + place) % len(self.rows)] for place in range(PROMPTS)):
            group = PromptGroup(prompt_id_of(row), self.draw.choice([0, 1, 4, 8]), ROLLOUTS, step)
            groups.append(group)
            self.buffer = [entry for entry in self.buffer if entry.example.prompt_id != group.prompt_id]
            if group.num_correct <= 1:
                self.buffer.append(BufferEntry(group, self.example(row)))
        correct = sum(group.num_correct for group in groups) / (PROMPTS * ROLLOUTS)
        full = len(self.buffer) >= S
        prompts = [[group.prompt_id, group.num_correct, group.num_rollouts] for group in groups]
        line = self.rl_line(step, correct, validation)
        if full:
            line |= self.around("cross_entropy")
        self.records.metrics(line | {"prompts": prompts})
        self.records(self.sample(step, groups[0]))
        if validation is not None:
            self.records.validation(step, validation)
        if full:
            self.phase(step)

    def sample(self, step: int, group: PromptGroup) -> RolloutSeen:
        row = next(row for row in self.rows if prompt_id_of(row) == group.prompt_id)
        return RolloutSeen(
            step=step,
            interval=self.interval,
            prompt_id=group.prompt_id,
            prompt=row["prompt"][-1]["content"],
            text=f"<b>{step}</b>",
            answer=row["reward_model"]["ground_truth"],
            correct=group.num_correct > 0,
            method="letters",
            num_correct=group.num_correct,
            num_rollouts=group.num_rollouts,
        )

    def example(self, row: dict[str, Any]) -> SftExample:
        demonstration = demonstration_of(row)
        assert demonstration is not None
        sha256 = hashlib.sha256(demonstration.text.encode()).hexdigest()
        return SftExample(demonstration.prompt_id, (1, 2), tuple(demonstration.text.encode()), sha256)

    def rl_line(self, step: int, accuracy: float, validation: Any) -> dict[str, Any]:
        value = self.draw.random
        return {
            "step": step,
            "phase": "rl",
            "interval": self.interval,
            "update": 0,
            "reward": accuracy,
            "accuracy": accuracy,
            "entropy": value(),
            "kl_to_start": value() / 100,
            "kept_share": None,
            "frozen_share": 0.0,
            "loss": value() / 10,
            "grad_norm": value(),
            "response_length": 20 + value(),
            "rollouts": PROMPTS * ROLLOUTS,
            "rejected_demonstrations": {},
            "memory_gb": {"device_allocated": 1.5, "device_reserved": 2.0, "host_used": 3.0 + value()},
            "seconds": {
                "rollout": 1.0,
                "old_log_prob": 0.5,
                "kl_to_start": 0.25,
                "actor_update": 0.5,
                "weight_sync": 0.25,
                "probe": 0.125,
            },
            "kl_tokens": 100,
            "buffer_size": len(self.buffer),
            "validation": validation,
        }

    def around(self, *names: str) -> dict[str, float]:
        """Some quantities before and after a phase."""
        return {f"{name}_{side}": self.draw.randrange(64) / 64 for name in names for side in ("before", "after")}

    def phase(self, step: int) -> None:
        size, lines, uses = len(self.buffer), [], []
        sums = TokenSummary(num_examples=1, max_tokens=16)
        kind, frozen = self.interval % 3, 50 - self.interval
        parts = [self.buffer[start : start + UPDATE] for start in range(0, size, UPDATE)]
        for number, part in enumerate(parts, start=1):
            ledger = [self.use(entry, step, sums) for entry in part]
            uses += ledger
            tokens, kept = (sum(use[name] for use in ledger) for name in ("response_tokens", "kept_tokens"))
            lines.append(
                {
                    "step": step,
                    "phase": "sft",
                    "interval": self.interval,
                    "update": number,
                    "buffer_size": size,
                    "kept_share": kept / tokens,
                    "frozen_share": frozen / 100,
                    "loss": self.draw.random(),
                    "grad_norm": self.draw.random(),
                    "demonstrations": len(part),
                    "response_tokens": tokens,
                    "kept_tokens": kept,
                    "ledger_sha256": lines_sha256(ledger),
                    "seconds": {"sft": 0.25},
                }
            )
        before = 0.25 + self.draw.randrange(8) / 32
        after = before + (0.03125, -0.0625, 0.09375)[kind]
        lines[-1] |= {
            "mask": {
                "frozen_share": frozen / 100,
                "positive_share": 1.0,
                "threshold": 1e-4 * self.interval,
                "num_frozen": frozen,
                "num_coordinates": 100,
            },
            "frozen_drift": (1e-9, 3e-9, 0.0)[kind],
            "accuracy_before": {"a": before, "mean": before},
            "accuracy_after": {"a": after, "mean": after},
            **self.around("cross_entropy", "solved_accuracy", "hard_accuracy", "policy_entropy", "reward_margin"),
            "kl_to_before": self.draw.random() / 10,
            "probe": {"generated_tokens": 30, "forward_tokens": 20, "held_out": 32, "solved": 64, "hard": 64},
        }
        lines[-1]["inspection"] = {"mask": self.mask(), "tokens": sums.table(chr)}
        for line in lines:
            self.records.metrics(line)
        self.records.ledger(uses)
        self.buffer, self.interval = [], self.interval + 1

    def use(self, entry: BufferEntry, step: int, sums: TokenSummary) -> dict[str, Any]:
        length = len(entry.example.response_ids)
        entropy = [self.draw.random() ** 4 for _ in range(length)]
        keep = sorted(range(length), key=lambda place: -entropy[place])[: -(-length // 5)]
        sums.add(entry.example, entropy, [place in keep for place in range(length)])
        return LedgerLine.of(entry, self.interval, step, len(keep)).line()

    def mask(self) -> dict[str, Any]:
        def table(title: str, names: list[str]) -> dict[str, Any]:
            columns: dict[str, Any] = {title: names}
            for name in COUNTS:
                columns[name] = [25 if name == "coordinates" else self.draw.randrange(26) for _ in names]
            parts = columns["rl_visible"], columns["frozen"]
            columns["frozen_rl_visible"] = [max(0, rl + frozen - 25) for rl, frozen in zip(*parts, strict=True)]
            columns |= {name: [self.draw.random() for _ in names] for name in ("rl_norm", "sft_norm")}
            return columns

        return {"by_layer": table("layer", LAYERS), "by_kind": table("kind", ["embedding", "q", "down", "norm"])}


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, read here by itself."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def faults_after(run: Path, change: Callable[[list[dict[str, Any]]], Any], name: str) -> list[str]:
    """The ledger's faults after ``change`` was made to the lines of one file: in place, or by what it returns."""
    lines = lines_of(run / name)
    write_lines(run / name, change(lines) or lines)
    return audit(read_run(run))
