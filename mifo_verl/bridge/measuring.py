"""What a run measures beside its training: validation, accuracy around SFT phases, KL to the interval's start."""

from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.utils.dataset.rl_dataset import collate_fn
from verl.utils.debug import marked_timer
from verl.workers.utils.padding import response_from_nested

from mifo_verl.bridge.faults import reach
from mifo_verl.bridge.saving import SavingTrainer
from mifo_verl.bridge.step_metrics import accuracy_by_source
from mifo_verl.bridge.watchdog import Watchdog, timed
from mifo_verl.config import ProbeConfig


class MeasuringTrainer(SavingTrainer):
    """``SavingTrainer`` with the probes of ``mifo.probe``."""

    probe: ProbeConfig
    watchdog: Watchdog
    val_dataloader: Any
    _validation: dict[str, float] | None = None
    """verl's validation metrics of the weights as they are now."""
    _accuracy_start: dict[str, float]

    def _accuracy_now(self) -> float | None:
        return accuracy_by_source(self._validation).get("mean") if self._validation else None

    def _accuracy_before_sft(self, timing_raw: dict[str, float]) -> dict[str, float] | None:
        if not self.probe.around_sft:
            return None
        with marked_timer("probe", timing_raw):
            self.checkpoint_manager.update_weights(self.global_steps)
            accuracy = self._probe_accuracy()
            self.checkpoint_manager.sleep_replicas()
        return accuracy

    def _probe_accuracy(self) -> dict[str, float]:
        """Validation accuracy on the probe's prompts."""
        number = self.probe.prompts
        if number is None or number >= len(self.val_dataset):
            return accuracy_by_source(self._validate())
        whole = self.val_dataloader
        chosen = [place * len(self.val_dataset) // number for place in range(number)]
        self.val_dataloader = [collate_fn([self.val_dataset[place] for place in chosen])]
        try:
            return accuracy_by_source(super()._validate())
        finally:
            self.val_dataloader = whole

    @timed("RL update")
    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        self._validation = None
        return super()._update_actor(batch, metrics)

    @timed("validation")
    def _validate(self) -> dict[str, float]:
        """verl's validation, made once for the same weights."""
        if self._validation is None:
            reach("validation")
            self._validation = super()._validate()
            self._accuracy_start = self._accuracy_start or accuracy_by_source(self._validation)
        return dict(self._validation)

    @timed("log-probs")
    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        self._stop_here()
        batch = super()._compute_old_log_prob(batch, metrics)
        if "actor/entropy" in metrics:  # verl's is aggregated as the loss is; the record's is the mean over tokens
            metrics["mifo/rl/entropy"] = self._mean_over_tokens(batch, "entropy")
        if self.probe.kl_to_start:
            with marked_timer("kl_to_start", self.timing_raw):
                metrics["mifo/rl/kl_to_start"] = self._kl_to_start(batch)
        return batch

    def _mean_over_tokens(self, batch: KVBatchMeta, field: str) -> float:
        fields = [field, "response_mask"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        mask = data["response_mask"].to_padded_tensor(0).bool()
        return float(data[field].to_padded_tensor(0.0)[mask].double().mean())

    def _kl_to_start(self, batch: KVBatchMeta) -> float:
        """Mean over the rollouts' tokens of r - 1 - log r, r = pi_start / pi: KL(pi || pi_start), never negative."""
        temperature = self.config.actor_rollout_ref.rollout.temperature
        batch.extra_info.update({"calculate_entropy": False, "compute_loss": False, "temperature": temperature})
        self.actor_rollout_wg.compute_start_log_prob(batch)
        fields = ["log_probs", "old_log_probs", "response_mask"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        mask = data["response_mask"].to_padded_tensor(0).bool()
        start = response_from_nested(data["log_probs"], data["response_mask"]).to_padded_tensor(0.0)
        log_ratio = (start - data["old_log_probs"].to_padded_tensor(0.0))[mask].double()
        return float((log_ratio.exp() - 1 - log_ratio).mean()) if log_ratio.numel() else 0.0
