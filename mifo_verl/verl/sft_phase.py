"""One SFT phase, as the controller drives it (MIFO section 3, steps 3 to 7)."""

import random
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm
from verl.utils import tensordict_utils as tu

from mifo_verl.config import MifoConfig
from mifo_verl.loop.streams import stable_seed
from mifo_verl.method.buffer import DemonstrationBuffer
from mifo_verl.probes.tokens import TokenSummary
from mifo_verl.probes.types import Before
from mifo_verl.run.journal import ledger_line, lines_sha256
from mifo_verl.types import BufferEntry
from mifo_verl.verl.checkpoint import SftProgress
from mifo_verl.verl.sft_step import BatchCut, rows_of, sft_batch, tokens_of
from mifo_verl.verl.skipped_updates import MAX_SKIPPED


class SftPhase:
    """Runs SFT phases on the actor's workers."""

    def __init__(
        self,
        config: DictConfig,
        mifo: MifoConfig,
        workers: Any,
        cut: BatchCut,
        decode: Callable[[int], str],
    ) -> None:
        self._decode = decode
        self._mifo = mifo
        self._workers = workers
        self._cut = cut
        self._seed = int(config.seed)

    def begin(
        self,
        buffer: DemonstrationBuffer,
        interval: int,
        rejected: dict[str, int],
        before: Before | None,
    ) -> SftProgress:
        """Take out of the buffer what the phase trains on, and let every shard make its mask."""
        buffer_size = len(buffer)
        entries = buffer.take(self._mifo.sft_limit)
        mask = self._workers.begin_sft(interval)[0]
        return SftProgress(entries, buffer_size, mask, rejected, before, tokens=self._token_summary())

    def run(self, phase: SftProgress, interval: int, step: int, stopping: Callable[[], bool]) -> dict[str, Any] | None:
        """Make the updates that are left. Returns the report of the whole phase, None where it was stopped inside."""
        batches = list(self._batches(phase.entries, interval))
        for batch in tqdm(batches[len(phase.updates) :], desc=f"SFT phase of interval {interval}", leave=False):
            if stopping():
                return None
            update, ledger = self._update(batch, interval, step, phase.tokens)
            phase.updates.append(update)
            phase.ledger += ledger
        inspection = self._inspection(phase.tokens)
        drifts = [drift for drift in self._workers.end_sft() if drift is not None]
        return {
            "interval": interval,
            "step": step,
            "mask": phase.mask,
            "updates": phase.updates,
            "ledger": phase.ledger,
            "drift": max(drifts) if drifts else None,
            "examples": len(phase.entries),
            "buffer_size": phase.buffer_size,
            "rejected": phase.rejected,
            "probes": dict(NOT_PROBED),
            "inspection": inspection,
        }

    def _token_summary(self) -> TokenSummary | None:
        inspect = self._mifo.inspect
        return TokenSummary(inspect.examples, inspect.example_tokens) if inspect.tokens else None

    def _inspection(self, tokens: TokenSummary | None) -> dict[str, Any]:
        """What inspection.jsonl keeps of the phase, before the mask is released."""
        return {
            "mask": self._workers.inspect_sft()[0] if self._mifo.inspect.mask else None,
            "tokens": None if tokens is None else tokens.table(self._decode),
        }

    def _batches(self, entries: list[BufferEntry], interval: int) -> Iterator[list[BufferEntry]]:
        """The updates of a phase: every pass in an order of its own that the seed fixes."""
        size = self._mifo.sft.batch_size
        for number in range(self._mifo.sft.passes):
            order = entries[:]
            random.Random(f"{self._seed}/{interval}/{number}").shuffle(order)
            yield from (order[start : start + size] for start in range(0, len(order), size))

    def _update(
        self, entries: list[BufferEntry], interval: int, step: int, tokens: TokenSummary | None
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        examples = [entry.example for entry in entries]
        seeds = [stable_seed(self._seed, interval, example.prompt_id) for example in examples]
        data = sft_batch(examples, seeds, self._cut)
        metrics = tu.get(self._workers.update_sft(data), "metrics")
        rows = rows_of(metrics)
        if [row for row, _, _ in rows] != list(range(len(entries))):
            raise RuntimeError(f"an SFT update of {len(entries)} demonstrations came back with rows {rows}")
        if tokens is not None:
            for row, (entropy, keep) in sorted(tokens_of(metrics).items()):
                tokens.add(examples[row], entropy.tolist(), keep.tolist())
        num_tokens = sum(len(example.response_ids) for example in examples)
        kept = [kept for _, kept, _ in rows]
        ledger = [ledger_line(entry, interval, step, k) for entry, k in zip(entries, kept, strict=True)]
        update = {
            "loss": metrics["loss"],
            "grad_norm": metrics["grad_norm"],
            "skipped": max(skipped for rank in metrics[MAX_SKIPPED] for skipped in rank),
            "entropy": sum(entropy for _, _, entropy in rows) / num_tokens,
            "demonstrations": len(entries),
            "prompt_tokens": sum(len(example.prompt_ids) for example in examples),
            "response_tokens": num_tokens,
            "kept_tokens": sum(kept),
            "ledger_sha256": lines_sha256(ledger),
        }
        return update, ledger


NOT_PROBED: dict[str, Any] = {"accuracy_before": None, "accuracy_after": None}
"""What the last record of a phase says of the probes where there were none."""


def sft_lines(report: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    """One record an update; the last of a phase carries what was measured around it."""
    mask = report["mask"] or {}
    lines = [
        {
            "step": report["step"],
            "phase": "sft",
            "interval": report["interval"],
            "update": number,
            "reward": None,
            "accuracy": None,
            "entropy": update["entropy"],
            "kl_to_start": None,
            "buffer_size": report["buffer_size"],
            "kept_share": update["kept_tokens"] / update["response_tokens"],
            "frozen_share": mask.get("frozen_share", 0.0),
            "loss": update["loss"],
            "grad_norm": update["grad_norm"],
            "demonstrations": update["demonstrations"],
            "prompt_tokens": update["prompt_tokens"],
            "response_tokens": update["response_tokens"],
            "kept_tokens": update["kept_tokens"],
            "ledger_sha256": update["ledger_sha256"],
            "seconds": {"sft": seconds / len(report["updates"])},
        }
        for number, update in enumerate(report["updates"], start=1)
    ]
    lines[-1] |= {
        "mask": report["mask"],
        "rejected_demonstrations": report["rejected"],
        "frozen_drift": report["drift"],
        "inspection": report["inspection"],
        **report["probes"],
    }
    return lines


def sft_metrics(report: dict[str, Any]) -> dict[str, float]:
    """The phase as verl's trackers see it."""
    updates = report["updates"]
    tokens = sum(update["response_tokens"] for update in updates)
    metrics = {
        "mifo/sft/loss": fmean(update["loss"] for update in updates),
        "mifo/sft/grad_norm": fmean(update["grad_norm"] for update in updates),
        f"mifo/sft/{MAX_SKIPPED}": max(update.get("skipped", 0) for update in updates),
        "mifo/sft/kept_share": sum(update["kept_tokens"] for update in updates) / tokens,
        "mifo/sft/demonstrations": report["examples"],
        "mifo/sft/interval": report["interval"],
    }
    if report["mask"] is not None:
        metrics["mifo/sft/frozen_share"] = report["mask"]["frozen_share"]
        if report["mask"]["threshold"] is not None:
            metrics["mifo/sft/threshold"] = report["mask"]["threshold"]
    return metrics
