"""What a step leaves in the run's records, in this order: verl's metrics, the lines of RL and SFT, the checkpoint."""

import hashlib
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta

from mifo_verl.run.budget import Spending
from mifo_verl.run.watchdog import CannotGoOn
from mifo_verl.verl.checkpoint import SftProgress
from mifo_verl.verl.hard_prompts import HardPrompts
from mifo_verl.verl.measuring import MeasuringTrainer
from mifo_verl.verl.sft_phase import sft_lines
from mifo_verl.verl.skipped_updates import MAX_SKIPPED
from mifo_verl.verl.step_metrics import accuracy_by_source, rl_line

NO_ROLLOUTS = "no_rollouts"
"""The one key of the batch of a step that made no rollouts."""


class RecordingTrainer(MeasuringTrainer):
    """``MeasuringTrainer`` that writes down what its subclass does in a step."""

    spending: Spending
    hard_prompts: HardPrompts
    _sft: SftProgress | None
    """The SFT phase of this step."""
    _sft_report: dict[str, Any] | None
    """What came of it, once it has ended."""

    def _rl_line(self, batch: KVBatchMeta, metrics: dict[str, Any], timing_raw: dict[str, float]) -> dict[str, Any]:
        """verl's metrics of an RL step, and its record."""
        epoch = (self.global_steps - 1) // self.steps_per_epoch
        timers = {"step": sum(timing_raw.values()), **timing_raw}  # verl's own is there at a step's end only
        super()._compute_metrics(batch, metrics, timers, global_steps=self.global_steps, epoch=epoch)
        interval = self.interval - 1 if self._sft_report is not None else self.interval
        rows = sum(not tag.get("is_padding", False) for tag in batch.tags)
        line = rl_line(metrics, timing_raw, self.hard_prompts, interval, self.global_steps, rows)
        line["discarded_rollouts"] = self.replay_buffer.discarded_rollouts
        line |= self.spending.of_rl(line, rows)
        line["buffer_size"] = self._sft.buffer_size if self._sft is not None else len(self.buffer)
        if self._sft is not None and self._sft.before is not None:  # the RL phase ends here
            line |= self._sft.before.of_rl()
        return line

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict[str, Any], timing_raw: dict[str, float], **where: Any
    ) -> None:
        """verl's metrics, then this step's lines in the records, then the checkpoint of this step.

        verl's loop ends after the step that spends the budget.
        """
        written, accuracy = [], accuracy_by_source(metrics)
        rl = self._sft.rl_line if self._sft is not None else None
        if rl is not None:  # of the process that was stopped inside the SFT phase
            rl["seconds"]["probe"] = rl["seconds"].get("probe", 0.0) + timing_raw.get("probe", 0.0)
        if has_rollouts(batch):
            rl = self._rl_line(batch, metrics, timing_raw)
            metrics["mifo/rl/buffer_size"] = len(self.buffer)
        if rl is not None:
            self.watchdog.require_alive()
            rl["validation"] = accuracy or None
            rl["seconds"]["checkpoint"], self._save_seconds = self._save_seconds, 0.0
            self.records.metrics(rl)
            written.append(rl)
        if self._sft_report is not None:
            lines = sft_lines(self._sft_report, timing_raw["sft"])
            if rl is None and "probe" in timing_raw:
                lines[-1]["seconds"]["probe"] = timing_raw["probe"]
            for line in lines:
                line |= self.spending.of_sft(line)
                self.records.metrics(line)
                written.append(line)
            self.records.ledger(self._sft_report["ledger"])
        if accuracy:
            self.records.validation(self.global_steps, accuracy)
        self._sft = None
        self._require_updates(metrics)
        if self._end_if_spent(written):
            self._save_due = self.config.trainer.save_freq > 0
        self._save_if_due()

    def _end_if_spent(self, written: list[dict[str, Any]]) -> bool:
        """Make this step the last where the budget is spent with its records; whether it is."""
        is_over = self.spending.is_over(written)
        if is_over:
            self.total_training_steps = self.global_steps
        return is_over

    def _require_updates(self, metrics: dict[str, Any]) -> None:
        """verl skips an update whose gradient is not finite. Raises CannotGoOn where too many in a row were."""
        skipped = max(metrics.get(f"{part}/{MAX_SKIPPED}", 0) for part in ("actor", "critic", "mifo/sft"))
        limit = self.mifo.watchdog.max_skipped_updates
        if skipped > limit:
            raise CannotGoOn(
                f"the gradients of {skipped:g} updates in a row were not finite, and all were skipped "
                f"(mifo.watchdog.max_skipped_updates={limit}); "
                "resume from a checkpoint before, with a lower learning rate"
            )

    def _log_rollout_data(self, batch: KVBatchMeta, timing_raw: dict[str, float], rollout_data_dir: str) -> None:
        if has_rollouts(batch):
            super()._log_rollout_data(batch, timing_raw, rollout_data_dir)

    def _write_end(self) -> None:
        self.watchdog.begins("the end")
        last = accuracy_by_source(self._validation or self._validate_at_end())
        self.records.validation(max(self.global_steps - 1, 0), last)  # verl has counted one further
        shards = "".join(self.actor_rollout_wg.weights_sha256())
        self.records.write_end(
            accuracy_start=self._accuracy_start,
            accuracy_end=last,
            weights_sha256=hashlib.sha256(shards.encode()).hexdigest(),
            num_weights=self.spending.rl.num_weights,
            seconds_before=self._seconds_before,
        )

    def _validate_at_end(self) -> dict[str, float]:
        """verl's loop has closed what writes the answers (``trainer.validation_data_dir``): it is opened once more."""
        self._init_dump_executor()
        try:
            return self._validate()
        finally:
            self._shutdown_dump_executor()


def without_rollouts() -> KVBatchMeta:
    """What a step without rollouts hands to verl, which clears its batch from the queue and takes no empty one."""
    tq.kv_put(key=NO_ROLLOUTS, partition_id="train", tag={"is_padding": True})
    return KVBatchMeta(partition_id="train", keys=[NO_ROLLOUTS], tags=[{"is_padding": True}])


def has_rollouts(batch: KVBatchMeta) -> bool:
    """Whether the batch of a step is more than ``NO_ROLLOUTS``."""
    return batch.keys != [NO_ROLLOUTS]
