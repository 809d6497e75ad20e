"""What a run measures beside its training: validation, the probes, KL to the interval's start."""

from collections.abc import Callable
from typing import Any

import transfer_queue as tq
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer
from verl.workers.utils.padding import response_from_nested

from mifo_verl.config import MifoConfig, ProbeConfig
from mifo_verl.method.buffer import DemonstrationBuffer
from mifo_verl.probes.asking import ask
from mifo_verl.probes.data import held_out, measured_on
from mifo_verl.probes.held_out import spread
from mifo_verl.probes.probes import Probes, TokenIds
from mifo_verl.probes.step import RowSums, probe_batch, sums_of
from mifo_verl.probes.types import Before
from mifo_verl.run.faults import reach
from mifo_verl.run.watchdog import Watchdog, timed
from mifo_verl.verl.checkpoint import ControllerState
from mifo_verl.verl.hard_prompts import HardPrompts
from mifo_verl.verl.saving import SavingTrainer
from mifo_verl.verl.sft_step import BatchCut
from mifo_verl.verl.step_metrics import accuracy_by_source


class MeasuringTrainer(SavingTrainer):
    """``SavingTrainer`` with the probes of ``mifo.probe``."""

    mifo: MifoConfig
    probe: ProbeConfig
    watchdog: Watchdog
    val_dataloader: Any
    _validation: dict[str, float] | None = None
    """verl's validation metrics of the weights as they are now."""
    _accuracy_start: dict[str, float]
    """Of the validation before the first step; empty where there was none."""
    probes: Probes
    interval: int
    rl_steps: int
    buffer: DemonstrationBuffer
    _cut: BatchCut
    _measured_on: str
    _has_start: bool
    """Whether the workers keep the interval's start; where ``kl_to_start`` is switched on by a resume, they do not."""

    def _accuracy_now(self) -> float | None:
        return accuracy_by_source(self._validation).get("mean") if self._validation else None

    def _build_probes(self, prompts: HardPrompts, cut: BatchCut) -> Probes:
        def forward(rows: list[TokenIds], with_shift: bool) -> list[RowSums]:
            output = self.actor_rollout_wg.probe(probe_batch(rows, cut, with_shift))
            return sums_of(tu.get(output, "metrics"), len(rows))

        longest = self.config.data.max_prompt_length
        data = held_out(self.probe, self.train_dataset, self.val_dataset, prompts, longest, self.records.event)
        self._measured_on = measured_on(data, self._asked_with())
        return Probes(self.probe, data, forward, lambda rows: ask(self, rows))

    def _asked_with(self) -> dict[str, Any]:
        """The settings that the probes' values depend on, beside their data."""
        rollout, data = self.config.actor_rollout_ref.rollout, self.config.data
        sizes = ("around_sft", "solved", "solved_accuracy", "hard", "rollouts")
        sampling = OmegaConf.to_container(rollout.val_kwargs, resolve=True)
        lengths = {"max_response_length": data.max_response_length, "seed": rollout.get("seed")}
        return {name: getattr(self.probe, name) for name in sizes} | {"sampling": sampling} | lengths

    def _take_up(self, state: ControllerState) -> None:
        """What the probes remember of the borders before a resume, as far as it was measured as this run measures."""
        self.probes.solved.ids, self.probes.cross_entropy_start = state.solved, state.cross_entropy_start
        self.probes.uncounted_tokens = state.uncounted_tokens
        if state.measured_on == self._measured_on:
            return
        has_before = state.sft is not None and state.sft.before is not None
        if has_before or state.cross_entropy_start is not None:
            text = "the probes measure on other data or settings than before the resume: what they measured there at "
            self.records.event("probe", text + "the last border is dropped, and what needs it is null")
        self.probes.cross_entropy_start = None
        if state.sft is not None:
            state.sft.before = None

    def _balance_batch(self, batch: KVBatchMeta, *args: Any, **kwargs: Any) -> KVBatchMeta:
        """verl's; here the rollout servers sleep, the weights are still the step's first, and no stage is timed."""
        if self.rl_steps == 0 and self.probes.is_start_missing(self.interval):
            self._measure(self.probes.before_rl)
        return super()._balance_batch(batch, *args, **kwargs)

    @timed("probe")
    def _measure(self, probe: Callable[..., Any], *args: Any) -> Any:
        """What a probe returns; its seconds are the record's."""
        with marked_timer("probe", self.timing_raw):
            return probe(*args)

    def _before_sft(self) -> Before | None:
        """What the probes measure before an SFT phase; the rollout servers get the weights for it and sleep again."""
        if not self.probe.is_due(self.interval):
            return None

        def measure() -> Before:
            before = self.probes.before_sft(self.buffer.oldest(self.mifo.sft_limit))
            self.checkpoint_manager.update_weights(self.global_steps)
            self.probes.ask_before(before)
            self.checkpoint_manager.sleep_replicas()
            return before

        return self._measure(measure)

    @timed("reference log-probs")
    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        return super()._compute_ref_log_prob(batch, metrics)

    @timed("values")
    def _compute_values(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        return super()._compute_values(batch, metrics)

    @timed("critic update")
    def _update_critic(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        return super()._update_critic(batch, metrics)

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
            if self.global_steps == 0:  # before the first step
                self._accuracy_start = accuracy_by_source(self._validation)
                self.records.validation(self.global_steps, self._accuracy_start)
        return dict(self._validation)

    @timed("log-probs")
    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        self._stop_here()
        batch = super()._compute_old_log_prob(batch, metrics)
        if "actor/entropy" in metrics:  # verl's is aggregated as the loss is; the record's is the mean over tokens
            metrics["mifo/rl/entropy"] = self._mean_over_tokens(batch, "entropy")
        if self.probe.kl_to_start and self._has_start:
            with marked_timer("kl_to_start", self.timing_raw):
                metrics["mifo/rl/kl_to_start"], metrics["mifo/rl/kl_tokens"] = self._kl_to_start(batch)
        return batch

    def _some_of(self, batch: KVBatchMeta) -> KVBatchMeta:
        """``mifo.probe.kl_rollouts`` of a batch, evenly spaced, or a few more: every rank gets as many."""
        asked, rollout = self.probe.kl_rollouts, self.config.actor_rollout_ref.rollout
        rows = 1 if rollout.log_prob_use_dynamic_bsz else rollout.log_prob_micro_batch_size_per_gpu
        multiple = self._cut.num_ranks * rows
        if asked is None or asked + multiple > len(batch):
            return batch
        return batch.select_keys(spread(batch.keys, -(-asked // multiple) * multiple))

    def _mean_over_tokens(self, batch: KVBatchMeta, field: str) -> float:
        fields = [field, "response_mask"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        mask = data["response_mask"].to_padded_tensor(0).bool()
        return float(data[field].to_padded_tensor(0.0)[mask].double().mean())

    def _kl_to_start(self, batch: KVBatchMeta) -> tuple[float, int]:
        """(mean over tokens of r - 1 - log r, r = pi_start / pi: KL(pi || pi_start), never negative; the tokens)."""
        batch = self._some_of(batch)
        temperature = self.config.actor_rollout_ref.rollout.temperature
        batch.extra_info.update({"calculate_entropy": False, "compute_loss": False, "temperature": temperature})
        self.actor_rollout_wg.compute_start_log_prob(batch)
        fields = ["log_probs", "old_log_probs", "response_mask"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        mask = data["response_mask"].to_padded_tensor(0).bool()
        start = response_from_nested(data["log_probs"], data["response_mask"]).to_padded_tensor(0.0)
        log_ratio = (start - data["old_log_probs"].to_padded_tensor(0.0))[mask].double()
        kl = float((log_ratio.exp() - 1 - log_ratio).mean()) if log_ratio.numel() else 0.0
        return kl, log_ratio.numel()
