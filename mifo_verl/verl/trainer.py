"""The central controller: verl's synchronous trainer, with an SFT phase inside a step where the schedule asks for one.

Data flows one way: rollouts -> rewards -> verl's RL update -> accuracy -> hard prompts -> buffer -> schedule -> mask
-> SFT updates -> the next interval.
"""

import logging
from dataclasses import replace
from typing import Any

import ray
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer
from verl.utils.reward_score import default_compute_score

from mifo_verl.config import build_config
from mifo_verl.cpu import rollout
from mifo_verl.method.buffer import DemonstrationBuffer
from mifo_verl.run.budget import Spending
from mifo_verl.run.faults import reach
from mifo_verl.run.journal import RunRecords
from mifo_verl.run.processes import free_resources
from mifo_verl.run.stacks import write_stacks
from mifo_verl.run.watchdog import START_SECONDS, Watchdog, timed
from mifo_verl.types import Phase, Progress
from mifo_verl.verl.checkpoint import ControllerState, SftProgress
from mifo_verl.verl.hard_prompts import HardPrompts
from mifo_verl.verl.recording import RecordingTrainer, has_rollouts, without_rollouts
from mifo_verl.verl.replay import OrderedReplayBuffer
from mifo_verl.verl.saving import NotSaved, Stopped
from mifo_verl.verl.sft_phase import SftPhase, sft_metrics
from mifo_verl.verl.sft_step import batch_cut
from mifo_verl.verl.worker import MifoTrainingWorker, MifoWorker

logger = logging.getLogger(__name__)

TARGET = ("target", "target_source")
"""The columns of the demonstrations. They stay on the controller."""


@register_trainer("mifo")
class MifoTrainer(RecordingTrainer):
    """``trainer.v1.trainer_mode=mifo``."""

    def __init__(self, config: DictConfig) -> None:
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # verl compares this word in many places
        self.mifo_node: dict[str, Any] = OmegaConf.to_container(config.mifo, resolve=True)  # type: ignore[assignment]
        self.mifo = build_config(self.mifo_node)
        rl_alone = not self.mifo.schedule.has_sft_phases
        self.probe = replace(self.mifo.probe, around_sft=False) if rl_alone else self.mifo.probe
        self.interval = 1
        self.rl_steps = 0
        self.buffer = DemonstrationBuffer()
        self._drawn = 0
        self._accuracy_start = {}
        self._sft: SftProgress | None = None
        self._sft_entered = False
        self._sft_report: dict[str, Any] | None = None
        records = RunRecords(config.run_dir)
        records.lock()
        self.watchdog = Watchdog(
            self.mifo.watchdog, records.event, self._waiting_for, lambda: write_stacks(records.folder)
        )
        self.watchdog.begins("start-up", at_least=START_SECONDS)
        super().__init__(config, self.mifo.checkpoint, records)

    # ------------------------------------------------------------------ building

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in self.role_worker_mapping:
            self.role_worker_mapping[role] = ray.remote(MifoTrainingWorker if role == Role.Critic else MifoWorker)

    def _build_replay_buffer(self) -> ReplayBuffer:
        settle = self.config.actor_rollout_ref.rollout.name == "transformers"
        return OrderedReplayBuffer(
            super()._build_replay_buffer(),
            settle,
            on_evict=lambda batch: self._collect(batch),
            on_poll=self._on_poll,
            stage=lambda: self.watchdog.stage("rollout"),
        )

    def _setup(self) -> None:
        rollout.register()
        super()._setup()
        self.actor_rollout_wg.configure_mifo(self.mifo_node)
        self.spending = Spending(self.config, self.actor_rollout_wg.num_weights()[0], self.mifo.budget.flops)
        self.hard_prompts = HardPrompts(
            gate=self.mifo.gate,
            buffer=self.buffer,
            tokenizer=self.tokenizer,
            score=get_custom_reward_fn(self.config) or default_compute_score,
            max_response_tokens=self.config.data.max_response_length,
            num_rollouts=self.config.actor_rollout_ref.rollout.n,
            template=self.config.data.get("apply_chat_template_kwargs", {}),
        )
        actor, pad = self.config.actor_rollout_ref.actor, self.tokenizer.pad_token_id
        self._cut = batch_cut(self.actor_rollout_wg, actor, pad)
        self.probes = self._build_probes(self.hard_prompts, self._cut)
        self.sft_phase = SftPhase(
            config=self.config,
            mifo=self.mifo,
            workers=self.actor_rollout_wg,
            cut=self._cut,
            decode=lambda token: self.tokenizer.decode([token]),
        )
        self._load_interval()
        self._has_start = all(self.actor_rollout_wg.has_start())
        if self._resumed is not None and self.probe.kl_to_start and not self._has_start:
            text = "the checkpoint has no start of its interval: kl_to_start is null until the next interval begins"
            self.records.event("probe", text)

    def _load_interval(self) -> None:
        """Where the budget is spent already, no further step is made."""
        super()._load_interval()
        if self._resumed is not None and self._sft is None:
            self._end_if_spent([])

    @timed("first weight sync", at_least=START_SECONDS)
    def on_init_end(self) -> None:
        super().on_init_end()

    def _on_poll(self) -> None:
        self.watchdog.raise_if_failed()
        self._stop_here()

    def _waiting_for(self, stage: str) -> str:
        """The prompts whose rollouts are not there yet; what Ray has to give while the run starts."""
        if stage == "start-up":
            return f"what Ray has: {free_resources()}"
        return self.replay_buffer.waiting_for() if stage in ("rollout", "validation") else ""

    def _actors(self) -> dict[str, Any]:
        """Every actor that this run waits for, by name."""
        groups = {"rank": self.actor_rollout_wg.workers, "reward worker": self.reward_loop_manager.reward_loop_workers}
        groups["agent loop worker"] = self.agent_loop_manager.agent_loop_workers
        groups["rollout server"] = [
            server for replica in self.llm_server_manager.get_replicas() for server in replica.servers
        ]
        units = sorted(name for name in ray.util.list_named_actors() if name.startswith("TransferQueueStorageUnit"))
        groups["TransferQueue controller"] = [ray.get_actor("TransferQueueController", "transfer_queue")]
        groups["TransferQueue storage"] = [ray.get_actor(name) for name in units]
        return {f"{role} {number}": actor for role, group in groups.items() for number, actor in enumerate(group)}

    def on_step_begin(self) -> None:
        self.watchdog.step_begins()
        super().on_step_begin()

    def on_train_begin(self) -> None:
        """The first interval begins, unless a checkpoint brought one along."""
        super().on_train_begin()
        if self._resumed is None:
            self._begin_interval()

    def _begin_interval(self) -> None:
        self.actor_rollout_wg.begin_interval()
        self._has_start = self.mifo.keeps_start

    def _state(self) -> ControllerState:
        return ControllerState(
            interval=self.interval,
            rl_steps=self.rl_steps,
            drawn=self._drawn,
            elapsed_seconds=self._elapsed(),
            buffer=list(self.buffer),
            accuracy_start=self._accuracy_start,
            sft=self._sft,
            solved=list(self.probes.solved.ids),
            cross_entropy_start=self.probes.cross_entropy_start,
            kl_in_reward=float(self.kl_ctrl_in_reward.value) if self.config.algorithm.use_kl_in_reward else None,
            measured_on=self._measured_on,
            uncounted_tokens=self.probes.uncounted_tokens,
        )

    def _restore(self, state: ControllerState) -> None:
        self.interval, self.rl_steps, self._drawn = state.interval, state.rl_steps, state.drawn
        self._accuracy_start, self._sft = state.accuracy_start, state.sft
        if state.kl_in_reward is not None:
            self.kl_ctrl_in_reward.value = state.kl_in_reward
        self._take_up(state)
        for entry in state.buffer:
            self.buffer.put(entry)

    def _fetch_one_gen_batch(self) -> TensorDict:
        """verl's next prompts, under uids that are the same in every run; their demonstrations stay here."""
        batch = super()._fetch_one_gen_batch()
        rows = _rows(batch)
        uids = [f"t{self._drawn + place:010d}" for place in range(len(rows))]
        self._drawn += len(rows)
        for uid, row in zip(uids, rows, strict=True):
            self.hard_prompts.remember(uid, row)
        batch = batch.exclude(*({"uid", *TARGET} & set(batch.keys())))
        tu.assign_non_tensor_stack(batch, "uid", uids)
        return batch

    # ------------------------------------------------------------------ one step

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> KVBatchMeta:
        """One RL step of verl, then an SFT phase if one is due; or an SFT phase alone, where SFT comes first or a
        checkpoint was made inside it.
        """
        self._sft_report = None
        self.hard_prompts.begin_step()
        self.replay_buffer.discarded_rollouts = 0
        if self._sft is not None:
            self._weights_change()
            batch = self._no_rollouts()
            self.actor_rollout_wg.enter_sft()
        elif self._next_phase() is Phase.SFT:
            batch = self._no_rollouts()
            if not len(self.buffer):
                self._next_train_batch()
                self.hard_prompts.take_all()
            self._begin_sft_phase(timing_raw)
        else:
            batch = super().step(metrics, timing_raw)
            self.rl_steps += 1
            with marked_timer("hard_prompts", timing_raw):
                self._collect(batch)
            if self._next_phase() is Phase.SFT:
                self._begin_sft_phase(timing_raw)
        if self._sft is not None:
            self._run_sft_phase(batch, metrics, timing_raw)
        return batch

    def _no_rollouts(self) -> KVBatchMeta:
        self.checkpoint_manager.sleep_replicas()  # no rollout of this step does it
        return without_rollouts()

    def _next_phase(self) -> Phase:
        finished = self.global_steps - 1
        return self.mifo.schedule(Progress(finished, self.interval, self.rl_steps), len(self.buffer))

    @timed("hard prompts")
    def _collect(self, batch: KVBatchMeta) -> None:
        self.probes.solved.see(self.hard_prompts.collect(batch, self.global_steps))
        reach("hard_prompts")

    # ------------------------------------------------------------------ the SFT phase

    def _begin_sft_phase(self, timing_raw: dict[str, float]) -> None:
        rejected = dict(sorted(self.hard_prompts.rejected.items()))
        if not len(self.buffer):
            logger.warning(f"step {self.global_steps}: no prompt has a usable demonstration {rejected}")
            return
        self._weights_change()
        before = self._before_sft()
        with self.watchdog.stage("mask selection"), marked_timer("sft", timing_raw):
            self._sft = self.sft_phase.begin(self.buffer, self.interval, rejected, before)

    @timed("SFT phase")
    def _run_sft_phase(self, batch: KVBatchMeta, metrics: dict[str, Any], timing_raw: dict[str, float]) -> None:
        assert self._sft is not None
        self._sft_entered = True
        with marked_timer("sft", timing_raw):
            self._sft_report = self.sft_phase.run(self._sft, self.interval, self.global_steps, self.stopping.is_set)
        if self._sft_report is None:
            if has_rollouts(batch):
                self._sft.rl_line = self._rl_line(batch, metrics, timing_raw)
            self._stop_here()
        assert self._sft_report is not None
        self._sft_entered = False
        self._validation = None
        if self.probe.around_sft:
            measured = self._measure(self.probes.after_sft, self.interval, self._sft.before)
            self._sft_report["probes"] |= measured
        self.interval += 1
        self.rl_steps = 0
        self._begin_interval()
        metrics.update(sft_metrics(self._sft_report))

    @timed("weight sync")
    def on_step_end(self) -> None:
        """verl's weight sync; then the accuracies just after an SFT phase."""
        super().on_step_end()
        if self._sft is not None and self._sft.before is not None:
            assert self._sft_report is not None
            self._sft_report["probes"] |= self._measure(self.probes.ask_after, self._sft.before)

    def fit(self, agent_loop_manager: Any) -> None:
        """verl's training loop; then the final table. Raises CannotGoOn where an error is what came of a lost actor."""
        self.agent_loop_manager = agent_loop_manager
        self.watchdog.watch(self._actors())
        try:
            super().fit(agent_loop_manager)
            self._write_end()
        except (Stopped, NotSaved):
            raise
        except Exception:
            self.watchdog.require_alive()
            raise
        finally:
            self.watchdog.end()  # what dies from here on was ended on purpose
        reach("exit")


def _rows(batch: TensorDict) -> list[dict[str, Any]]:
    """The rows of a batch of prompts as plain dicts."""
    columns = {key: list(batch[key]) for key in batch.keys() if isinstance(batch[key], list)}
    return [{key: value[place] for key, value in columns.items()} for place in range(len(batch))]
