"""The controller: verl's synchronous trainer, with an SFT phase inside a step if the loop asks for one.

Data flows one way: rollouts -> rewards -> groups -> verl's RL update -> schedule -> mask -> SFT updates -> the next
interval. What a run decides is in ``loop``; here verl is told, and observers hear what has happened.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer

from mifo_verl.config import build_config
from mifo_verl.cpu import rollout
from mifo_verl.data.demonstrations import TARGET, prompt_id_of
from mifo_verl.loop.events import StepEnded, Validated
from mifo_verl.run.journal import RunRecords
from mifo_verl.run.watchdog import timed
from mifo_verl.types import Phase
from mifo_verl.verl.agent_loop import GIVEN
from mifo_verl.verl.build import assemble, keep_validation, prepare_workers
from mifo_verl.verl.mixed import mark_correct, mixed_updates
from mifo_verl.verl.records import (
    Metrics,
    Timers,
    accuracy_by_source,
    end_of_run,
    require_one_policy,
    rl_record,
    sft_metrics,
    step_events,
)
from mifo_verl.verl.replay import OrderedReplayBuffer, has_rollouts, rollouts_of, rows_of, tokens_of, without_rollouts
from mifo_verl.verl.samples import log_table, seen, table_rows
from mifo_verl.verl.sampling import SAMPLING
from mifo_verl.verl.saving import Saver, Stopped
from mifo_verl.verl.skipped_updates import require_updates
from mifo_verl.verl.watched import START, STARTS, start_seconds, timed_verl, watchdog_of, watched


@register_trainer("mifo")
class MifoTrainer(PPOTrainerSync):
    """``trainer.v1.trainer_mode=mifo``."""

    _validation: dict[str, float] | None = None  # verl's metrics of the weights as they are now
    _start: Timers | None = None  # seconds of what came before the first step, until they are in a record

    def __init__(self, config: DictConfig) -> None:
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # verl compares this word in many places
        self.mifo = build_config(OmegaConf.to_container(config.mifo, resolve=True))  # type: ignore[arg-type]
        self.records = RunRecords(config.run_dir)
        self.records.lock()
        self.watchdog = watchdog_of(self, self.mifo.watchdog, self.records)
        self.saver = Saver(config, self.mifo.checkpoint, self.records)
        self.stopping = self.saver.stopping
        self._recorded = self.saver.began
        super().__init__(config)

    on_init_end = timed_verl("on_init_end", "first weight sync")
    _compute_ref_log_prob = timed_verl("_compute_ref_log_prob", "reference log-probs")
    _compute_values = timed_verl("_compute_values", "values")

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in STARTS:
            self.watchdog.begins(START + STARTS[name])

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        prepare_workers(self, self.mifo)

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        keep_validation(self)

    def _build_replay_buffer(self) -> ReplayBuffer:
        settle = self.config.actor_rollout_ref.rollout.name == "transformers"
        return OrderedReplayBuffer(super()._build_replay_buffer(), settle, self._count, self._on_poll, self.watchdog)

    def _setup(self) -> None:
        """verl's; then the loop, from its start or from a checkpoint, and what works for it."""
        rollout.register()
        super()._setup()
        made = assemble(self, self.mifo, self.saver, self.records)
        self.actor, self.loop, self.demonstrations, self.sft = made.actor, made.loop, made.demonstrations, made.sft
        self.probes, self.rollout_probe = made.probes, made.rollout_probe
        self.emit, self.cost, self.budget = made.emit, made.cost, made.budget
        if self.budget.is_spent and self.loop.state.sft is None:
            self.total_training_steps = self.global_steps
        self.watchdog.begins(f"{START}agent loop workers")

    def _load_checkpoint(self) -> None:
        with self.saver.found():
            super()._load_checkpoint()

    def on_train_begin(self) -> None:
        if self.saver.resumed is None:  # a checkpoint brings its interval along
            self._begin_interval()

    def _begin_interval(self) -> None:
        self.actor.begin_interval()
        self.rollout_probe.has_start = self.mifo.keeps_start

    def fit(self, agent_loop_manager: Any) -> None:
        """verl's training loop, then the end's records. Raises Stopped or NotSaved if the run was asked to stop."""
        self.agent_loop_manager = agent_loop_manager
        with watched(self, self.watchdog):
            try:
                super().fit(agent_loop_manager)
            except Stopped:
                self._save(self.saver.write_stopped)
                raise
            self._write_end()

    def on_step_begin(self) -> None:
        self.watchdog.step_begins()
        if self._start is None:
            now = time.time()
            self._start = start_seconds(self.watchdog, now - self._recorded, self.records.event)
            self._recorded = now
        super().on_step_begin()
        if self.config.algorithm.use_kl_in_reward:
            self.loop.state.kl_in_reward = float(self.kl_ctrl_in_reward.value)
        self.saver.step_begins(self.loop.state)

    def step(self, metrics: Metrics, timing_raw: Timers) -> KVBatchMeta:
        """One RL step of verl, then an SFT phase if one is due; SFT alone if it comes first or was stopped inside."""
        loop, state = self.loop, self.loop.state
        loop.begin_step()
        if "temperature" in loop.sampling:  # from here verl takes what log-probs and updates are computed at
            self.config.actor_rollout_ref.rollout.temperature = loop.sampling["temperature"]
        self.replay_buffer.discarded_rollouts = 0
        if state.sft is not None:
            self.saver.weights_change(state)
            batch = without_rollouts(self.checkpoint_manager)
            self.actor.enter_sft()
        elif loop.next_phase() is Phase.SFT:
            batch = without_rollouts(self.checkpoint_manager)
            if not len(state.buffer):
                self._next_train_batch()
                loop.take_all(self.demonstrations.render)
        else:
            batch = super().step(metrics, timing_raw)
            loop.rl_ended(metrics.get("actor/grad_norm"), metrics.get("mifo/rl/entropy"))
        if state.sft is None and loop.next_phase() is Phase.SFT and loop.has_demonstrations():
            self.saver.weights_change(state)
            self.sft.begin(timing_raw)
        if state.sft is not None:
            self._run_sft(batch, metrics, timing_raw)
        return batch

    def _fetch_one_gen_batch(self) -> TensorDict:
        """verl's next prompts, under uids that are the same in every run; their demonstrations stay here."""
        batch = super()._fetch_one_gen_batch()
        uids = self.loop.draw((prompt_id_of(row), row) for row in rows_of(batch))
        batch = batch.exclude(*({"uid", *TARGET} & set(batch.keys())))
        tu.assign_non_tensor_stack(batch, "uid", uids)
        if (given := self.loop.plan(uids, self.demonstrations.render, self.demonstrations.step_ends)) is not None:
            tu.assign_non_tensor_stack(batch, GIVEN, given)
        if self.loop.sampling:
            tu.assign_non_tensor_stack(batch, SAMPLING, [self.loop.sampling] * len(uids))
        return batch

    def _on_poll(self) -> None:
        self.watchdog.raise_if_failed()
        self.saver.stop_here(self.loop.state)

    def _balance_batch(self, batch: KVBatchMeta, *args: Any, **kwargs: Any) -> KVBatchMeta:
        """verl's; here rollouts are scored, their servers sleep, and the weights are still the step's first."""
        self.sft.before_rl(self.timing_raw)
        batch = super()._balance_batch(batch, *args, **kwargs)
        with marked_timer("hard_prompts", self.timing_raw):
            self._count(batch)
        return batch

    @timed("hard prompts")
    def _count(self, batch: KVBatchMeta) -> None:
        """Rollouts that are trained on, or that a filter is about to drop."""
        self.loop.count(*rollouts_of(batch), partial(tokens_of, batch.partition_id))

    @timed("log-probs")
    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: Metrics) -> KVBatchMeta:
        self.saver.stop_here(self.loop.state)
        batch = super()._compute_old_log_prob(batch, metrics)
        if not self.loop.members:  # given tokens were drawn by nobody
            require_one_policy(metrics, self.mifo.watchdog.max_rollout_difference)
        self.rollout_probe.measure(batch, metrics, self.timing_raw)
        return batch

    @timed("critic update")
    def _update_critic(self, batch: KVBatchMeta, metrics: Metrics) -> KVBatchMeta:
        self.saver.weights_change(self.loop.state)
        return super()._update_critic(batch, metrics)

    @timed("RL update")
    def _update_actor(self, batch: KVBatchMeta, metrics: Metrics) -> KVBatchMeta:
        self.saver.weights_change(self.loop.state)
        self._validation = None
        if "correct" in self.mifo.on_policy.needs:
            mark_correct(batch, self.loop)
        with mixed_updates(self.actor, batch, self.loop, self.config):
            return super()._update_actor(batch, metrics)

    @timed("SFT phase")
    def _run_sft(self, batch: KVBatchMeta, metrics: Metrics, timing_raw: Timers) -> None:
        phase = self.sft.run(self.stopping.is_set, timing_raw)
        if self.loop.state.sft is not None:
            phase.rl_line = self._rl_record(batch, metrics, timing_raw) or phase.rl_line
            phase.rl_ledger = self.loop.rl_lines or phase.rl_ledger
            phase.rl_samples = self.loop.samples or phase.rl_samples
            raise Stopped
        self._validation = None
        self._begin_interval()
        metrics.update(sft_metrics(phase))

    @timed("weight sync")
    def on_step_end(self) -> None:
        """verl's weight sync; then the accuracies just after an SFT phase."""
        super().on_step_end()
        self.sft.synced(self.timing_raw)

    def _rl_record(self, batch: KVBatchMeta, metrics: Metrics, timing_raw: Timers) -> StepEnded | None:
        """verl's metrics of an RL step, and its record; None if the step made no rollouts."""
        if not has_rollouts(batch):
            return None
        self.loop.samples = seen(batch, self.loop, self.tokenizer, self.mifo.inspect.rollouts)
        epoch = (self.global_steps - 1) // self.steps_per_epoch
        timers = {"step": sum(timing_raw.values()), **timing_raw}  # verl's own is there at a step's end only
        super()._compute_metrics(batch, metrics, timers, global_steps=self.global_steps, epoch=epoch)
        return rl_record(metrics, timing_raw, self.loop, batch, self.cost, self.replay_buffer.discarded_rollouts)

    def _compute_metrics(self, batch: KVBatchMeta, metrics: Metrics, timing_raw: Timers, **where: Any) -> None:
        """verl's metrics, then this step's records, then its checkpoint; the run ends if its budget is spent."""
        rl = self._rl_record(batch, metrics, timing_raw)
        self.watchdog.require_alive()
        wall, now = time.time() - self._recorded, time.time()
        events = step_events(rl, self.loop, timing_raw, metrics, self.saver.take_seconds, wall, self._start or {})
        for event in events:
            self.emit(event)
        if (trackers := getattr(self, "logger", None)) is not None:
            log_table(trackers.logger, table_rows(events), self.global_steps)
        if events:
            self._recorded, self._start = now, {}
        self.loop.end_step()
        require_updates(metrics, self.mifo.watchdog.max_skipped_updates)
        if self.budget.is_spent:
            self.total_training_steps = self.global_steps
        if self.saver.due:
            self._save(self.saver.write_due)

    def _log_rollout_data(self, batch: KVBatchMeta, timing_raw: Timers, rollout_data_dir: str) -> None:
        if has_rollouts(batch):
            super()._log_rollout_data(batch, timing_raw, rollout_data_dir)

    def _save_checkpoint(self) -> None:
        """verl asks here, before the step is recorded; it is saved after."""
        self.saver.due = True

    @timed("checkpoint")
    def _save(self, write: Callable[..., Path | None]) -> None:
        if folder := write(self.loop.state, accuracy_by_source(self._validation or {}).get("mean")):
            where = {"global_step": self.loop.state.step, "checkpoint_dir": str(folder)}
            self.checkpoint_callback.on_save(trainer=self, async_save=False, **where)

    @timed("validation")
    def _validate(self) -> dict[str, float]:
        """verl's validation, made once for the same weights."""
        if self._validation is None:
            self._validation = super()._validate()
            if self.global_steps == 0:  # before the first step
                self.loop.state.accuracy_start = accuracy_by_source(self._validation)
                self.emit(Validated(step=0, accuracy=self.loop.state.accuracy_start))
        return dict(self._validation)

    def _write_end(self) -> None:
        self.watchdog.begins("the end")
        self._init_dump_executor()  # verl's loop has closed what writes the answers
        try:
            accuracy = accuracy_by_source(self._validate())
        finally:
            self._shutdown_dump_executor()
        self._save(self.saver.write_final)
        self.emit(Validated(step=self.loop.state.step, accuracy=accuracy))
        self.records.write_end(**end_of_run(self.loop.state, accuracy, self.actor, self.cost))
