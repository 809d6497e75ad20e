"""What is measured on the rollouts of an RL step, where they lie: in TransferQueue."""

from collections.abc import Callable
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig
from torch import Tensor
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer
from verl.workers.utils.padding import response_from_nested

from mifo_verl.probes.held_out import spread
from mifo_verl.settings import ProbeConfig
from mifo_verl.verl.rl_loss import PREFIX


def mean_over_tokens(batch: KVBatchMeta, field: str) -> float:
    """The mean of a field over all sampled tokens of a batch."""
    fields = [field, "response_mask", PREFIX]
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
    return float(data[field].to_padded_tensor(0.0)[sampled(data)].double().mean())


def sampled(data: Any) -> Tensor:
    """Mask (B, T) of the response tokens that the policy has sampled: all of them but those that were given to it."""
    mask_BT = data["response_mask"].to_padded_tensor(0).bool()
    if PREFIX not in data.keys():
        return mask_BT
    prefix_B = torch.as_tensor(list(tu.get(data, PREFIX)))
    return mask_BT & (torch.arange(mask_BT.shape[1]) >= prefix_B[:, None])


class RolloutProbe:
    """The policy's entropy on each RL batch, and its KL to the start of its interval (``mifo.probe.kl_to_start``)."""

    def __init__(
        self,
        settings: ProbeConfig,
        actor: Any,
        rollout: DictConfig,
        is_resumed: bool,
        say: Callable[[str, str], None],
    ) -> None:
        self.has_start = actor.has_start()
        """Whether the ranks keep the interval's start; if a resume has switched the probe on, they do not yet."""
        if is_resumed and settings.kl_to_start and not self.has_start:
            text = "the checkpoint has no start of its interval: kl_to_start is null until the next interval begins"
            say("probe", text)
        self._settings = settings
        self._actor = actor
        self._rollout = rollout
        rows = 1 if rollout.log_prob_use_dynamic_bsz else rollout.log_prob_micro_batch_size_per_gpu
        self._multiple = actor.cut.num_ranks * rows

    def measure(self, batch: KVBatchMeta, metrics: dict[str, Any], timing_raw: dict[str, float]) -> None:
        """Add to verl's metrics of a step, whose log-probs have been computed."""
        if "actor/entropy" in metrics:  # verl's is aggregated as the loss is; this is the mean over tokens
            metrics["mifo/rl/entropy"] = mean_over_tokens(batch, "entropy")
        if self._settings.kl_to_start and self.has_start:
            with marked_timer("kl_to_start", timing_raw):
                metrics["mifo/rl/kl_to_start"], metrics["mifo/rl/kl_tokens"] = self.kl_to_start(batch)

    def kl_to_start(self, batch: KVBatchMeta) -> tuple[float, int]:
        """(mean over tokens of r - 1 - log r, r = pi_start / pi: KL(pi || pi_start), never negative; the tokens)."""
        batch = self._some_of(batch)
        extra = {"calculate_entropy": False, "compute_loss": False, "temperature": self._rollout.temperature}
        batch.extra_info.update(extra)
        self._actor.compute_start_log_prob(batch)
        fields = ["log_probs", "old_log_probs", "response_mask", PREFIX]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        start = response_from_nested(data["log_probs"], data["response_mask"]).to_padded_tensor(0.0)
        log_ratio = (start - data["old_log_probs"].to_padded_tensor(0.0))[sampled(data)].double()
        kl = float((log_ratio.exp() - 1 - log_ratio).mean()) if log_ratio.numel() else 0.0
        return kl, log_ratio.numel()

    def _some_of(self, batch: KVBatchMeta) -> KVBatchMeta:
        """``kl_rollouts`` of a batch, evenly spaced, or a few more: every rank gets as many."""
        asked, multiple = self._settings.kl_rollouts, self._multiple
        if asked is None or asked + multiple > len(batch):
            return batch
        return batch.select_keys(spread(batch.keys, -(-asked // multiple) * multiple))
