"""The central controller: verl's synchronous trainer, with an SFT phase inside a step where the schedule asks for one.

Data flows one way: rollouts -> rewards -> verl's RL update -> accuracy -> hard prompts -> buffer -> schedule -> mask
-> SFT updates -> the next interval.
"""

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import ray
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import normalize_token_ids
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import collate_fn
from verl.utils.debug import marked_timer
from verl.utils.reward_score import default_compute_score
from verl.workers.utils.padding import response_from_nested

from mifo_verl.bridge import rollout
from mifo_verl.bridge.checkpoint import FOLDER, load_controller, save_controller
from mifo_verl.bridge.hard_prompts import HardPrompts
from mifo_verl.bridge.records import RunRecords
from mifo_verl.bridge.replay import OrderedReplayBuffer
from mifo_verl.bridge.sft_phase import SftPhase, sft_lines, sft_metrics
from mifo_verl.bridge.step_metrics import accuracy_by_source, rl_line
from mifo_verl.bridge.worker import MifoTrainingWorker, MifoWorker
from mifo_verl.config import build_config
from mifo_verl.method.buffer import DemonstrationBuffer
from mifo_verl.types import BufferEntry, Phase, Progress

logger = logging.getLogger(__name__)

TARGET = "target"
"""The column of the demonstrations. It stays on the controller."""


@register_trainer("mifo")
class MifoTrainer(PPOTrainerSync):
    """``trainer.v1.trainer_mode=mifo``."""

    val_dataloader: Any

    def __init__(self, config: DictConfig) -> None:
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # verl compares this word in many places
        self.mifo_node: dict[str, Any] = OmegaConf.to_container(config.mifo, resolve=True)  # type: ignore[assignment]
        self.mifo = build_config(self.mifo_node)
        self.interval = 1
        self.rl_steps = 0
        self.buffer = DemonstrationBuffer()
        self.records = RunRecords(config.run_dir)
        self._drawn = 0
        self._resumed = False
        self._validation: dict[str, float] | None = None  # of the weights as they are now
        self._accuracy_start: dict[str, float] = {}
        self._sft_report: dict[str, Any] | None = None
        super().__init__(config)

    # ------------------------------------------------------------------ building

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in self.role_worker_mapping:
            self.role_worker_mapping[role] = ray.remote(MifoTrainingWorker if role == Role.Critic else MifoWorker)

    def _build_replay_buffer(self) -> ReplayBuffer:
        settle = self.config.actor_rollout_ref.rollout.name == "transformers"
        return OrderedReplayBuffer(super()._build_replay_buffer(), settle, lambda batch: self._collect(batch))

    def _setup(self) -> None:
        rollout.register()
        super()._setup()
        self.actor_rollout_wg.configure_mifo(self.mifo_node)
        self.hard_prompts = HardPrompts(
            selector=self.mifo.prompt_selector,
            buffer=self.buffer,
            tokenizer=self.tokenizer,
            score=get_custom_reward_fn(self.config) or default_compute_score,
            max_response_tokens=self.config.data.max_response_length,
            num_rollouts=self.config.actor_rollout_ref.rollout.n,
        )
        self.sft_phase = SftPhase(
            config=self.config, mifo=self.mifo, workers=self.actor_rollout_wg, pad_token_id=self.tokenizer.pad_token_id
        )

        if self.global_steps:
            self._load_interval()
        else:
            self.records.rewind(0)

    def on_train_begin(self) -> None:
        """The first interval begins, unless a checkpoint brought one along."""
        super().on_train_begin()
        if not self._resumed:
            self.actor_rollout_wg.begin_interval()

    def _save_checkpoint(self) -> None:
        """The interval state first: verl's own part ends with the mark that makes the checkpoint count."""
        folder = self._checkpoint_folder()
        counts = {"interval": self.interval, "rl_steps": self.rl_steps, "drawn": self._drawn}
        save_controller(folder, counts, self.buffer, self._accuracy_start)
        self.actor_rollout_wg.save_interval(str(folder))
        super()._save_checkpoint()
        for old in folder.parent.parent.glob(f"global_step_*/{FOLDER}"):
            if not (old.parent / "actor").exists():  # verl keeps only its newest
                shutil.rmtree(old)

    def _load_interval(self) -> None:
        elsewhere = self.config.trainer.resume_mode == "resume_path"
        folder = Path(self.config.trainer.resume_from_path) / FOLDER if elsewhere else self._checkpoint_folder()
        counts, entries, self._accuracy_start = load_controller(folder)
        self.interval, self.rl_steps, self._drawn = counts["interval"], counts["rl_steps"], counts["drawn"]
        for entry in entries:
            self.buffer.put(entry)
        self.actor_rollout_wg.load_interval(str(folder))
        self.records.rewind(self.global_steps)
        self._resumed = True
        logger.info(f"resumed interval {self.interval} with {len(self.buffer)} prompts in the buffer from {folder}")

    def _checkpoint_folder(self) -> Path:
        return Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}" / FOLDER

    def _fetch_one_gen_batch(self) -> TensorDict:
        """verl's next prompts, under uids that are the same in every run; their demonstrations stay here."""
        batch = super()._fetch_one_gen_batch()
        rows = _rows(batch)
        uids = [f"t{self._drawn + place:010d}" for place in range(len(rows))]
        self._drawn += len(rows)
        for uid, row in zip(uids, rows, strict=True):
            self.hard_prompts.remember(uid, row)
        batch = batch.exclude(TARGET, "uid") if TARGET in batch.keys() else batch.exclude("uid")
        tu.assign_non_tensor_stack(batch, "uid", uids)
        return batch

    # ------------------------------------------------------------------ one step

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> KVBatchMeta:
        """One RL step of verl, then an SFT phase if one is due; or, where SFT comes first, an SFT phase alone."""
        self._sft_report = None
        self.hard_prompts.begin_step()
        if self._next_phase() is Phase.SFT:
            self.checkpoint_manager.sleep_replicas()  # no rollout of this step does it
            if not len(self.buffer):
                self._fill_from_dataset()
            batch = KVBatchMeta(partition_id="train")
        else:
            batch = super().step(metrics, timing_raw)
            self.rl_steps += 1
            with marked_timer("hard_prompts", timing_raw):
                self._collect(batch)
            if self._next_phase() is Phase.RL:
                return batch
        if len(self.buffer):
            self._run_sft_phase(metrics, timing_raw)
        else:
            logger.warning(
                f"step {self.global_steps}: no prompt has a usable demonstration {self.hard_prompts.rejected}"
            )
        return batch

    def _next_phase(self) -> Phase:
        finished = self.global_steps - 1
        return self.mifo.schedule(Progress(finished, self.interval, self.rl_steps), len(self.buffer))

    def _collect(self, batch: KVBatchMeta) -> None:
        self.hard_prompts.collect(batch, self.global_steps)

    def _fill_from_dataset(self) -> None:
        """One batch of prompts straight from the data set, tokenised as the rollouts would be."""
        kwargs = {**self.config.data.get("apply_chat_template_kwargs", {}), "add_generation_prompt": True}
        self._next_train_batch()
        for row in self.hard_prompts.rows():
            prompt_ids = self.tokenizer.apply_chat_template(list(row["raw_prompt"]), tokenize=True, **kwargs)
            example = self.hard_prompts.example(row, normalize_token_ids(prompt_ids))
            if example is not None:
                self.buffer.put(BufferEntry(None, example))

    def _run_sft_phase(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> None:
        before = self._accuracy_before_sft(timing_raw)
        buffer_size = len(self.buffer)
        with marked_timer("sft", timing_raw):
            self._sft_report = self.sft_phase.run(self.buffer, self.interval, self.global_steps)
        self._validation = None
        rejected = dict(sorted(self.hard_prompts.rejected.items()))
        self._sft_report |= {"accuracy_before": before, "buffer_size": buffer_size, "rejected": rejected}
        self.records.ledger(self._sft_report.pop("ledger"))
        self.interval += 1
        self.rl_steps = 0
        self.actor_rollout_wg.begin_interval()
        metrics.update(sft_metrics(self._sft_report))

    def on_step_end(self) -> None:
        """verl's weight sync; then the accuracy just after an SFT phase."""
        super().on_step_end()
        if self._sft_report is not None and self.mifo.probe.around_sft:
            with marked_timer("probe", self.timing_raw):
                self._sft_report["accuracy_after"] = self._probe_accuracy()

    def _accuracy_before_sft(self, timing_raw: dict[str, float]) -> dict[str, float] | None:
        if not self.mifo.probe.around_sft:
            return None
        with marked_timer("probe", timing_raw):
            self.checkpoint_manager.update_weights(self.global_steps)
            accuracy = self._probe_accuracy()
            self.checkpoint_manager.sleep_replicas()
        return accuracy

    def _probe_accuracy(self) -> dict[str, float]:
        """Validation accuracy on the probe's prompts."""
        number = self.mifo.probe.prompts
        if number is None or number >= len(self.val_dataset):
            return accuracy_by_source(self._validate())
        whole = self.val_dataloader
        chosen = [place * len(self.val_dataset) // number for place in range(number)]
        self.val_dataloader = [collate_fn([self.val_dataset[place] for place in chosen])]
        try:
            return accuracy_by_source(super()._validate())
        finally:
            self.val_dataloader = whole

    # ------------------------------------------------------------------ measuring

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        self._validation = None
        return super()._update_actor(batch, metrics)

    def _validate(self) -> dict[str, float]:
        """verl's validation, made once for the same weights."""
        if self._validation is None:
            self._validation = super()._validate()
            self._accuracy_start = self._accuracy_start or accuracy_by_source(self._validation)
        return dict(self._validation)

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch = super()._compute_old_log_prob(batch, metrics)
        if "actor/entropy" in metrics:  # verl's is aggregated as the loss is; the record's is the mean over tokens
            metrics["mifo/rl/entropy"] = self._mean_over_tokens(batch, "entropy")
        if self.mifo.probe.kl_to_start:
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

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict[str, Any], timing_raw: dict[str, float], **where: Any
    ) -> None:
        """verl's metrics, then this step's lines in the records."""
        if batch.keys:
            super()._compute_metrics(batch, metrics, timing_raw, **where)
            metrics["mifo/rl/buffer_size"] = len(self.buffer)
            line = rl_line(metrics, timing_raw, self.hard_prompts, self._rl_interval(), self.global_steps)
            line["buffer_size"] = len(self.buffer) if self._sft_report is None else self._sft_report["buffer_size"]
            line["validation"] = accuracy_by_source(metrics) or None
            self.records.metrics(line)
        if self._sft_report is not None:
            for line in sft_lines(self._sft_report, timing_raw["sft"]):
                self.records.metrics(line)

    def _rl_interval(self) -> int:
        return self.interval if self._sft_report is None else self.interval - 1

    def fit(self, agent_loop_manager: Any) -> None:
        """verl's training loop; then the final table."""
        super().fit(agent_loop_manager)
        last = self._validation or self._validate()
        shards = "".join(self.actor_rollout_wg.weights_sha256())
        self.records.write_end(
            accuracy_start=self._accuracy_start,
            accuracy_end=accuracy_by_source(last),
            weights_sha256=hashlib.sha256(shards.encode()).hexdigest(),
        )


def _rows(batch: TensorDict) -> list[dict[str, Any]]:
    """The rows of a batch of prompts as plain dicts."""
    columns = {key: list(batch[key]) for key in batch.keys() if isinstance(batch[key], list)}
    return [{key: value[place] for key, value in columns.items()} for place in range(len(batch))]
