"""verl's RL loss on sampled tokens, and ``mifo/off_policy`` on given ones: the loss where rollouts have prefixes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.trainer.ppo.core_algos import agg_loss
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.padding import no_padding_2_padding

from mifo_verl.method.off_policy import OffPolicy

PREFIX = "mifo_prefix"
"""Column of a rollout: how many of its response tokens were given, from the first on; 0 for a rollout as ever."""


class RlLoss:
    """``verl_loss`` with the given tokens masked out, plus the off-policy loss of these alone.

    Both are aggregated with the mode and the constants of the RL loss, so the sum does not depend on how an update is
    cut. A micro-batch without given tokens has verl's loss, to the bit.
    """

    def __init__(self, verl_loss: partial, off_policy: OffPolicy) -> None:
        self._verl_loss = verl_loss
        self._config = verl_loss.keywords["config"]
        self._off_policy = off_policy

    def __call__(
        self, model_output: dict[str, Tensor], data: TensorDict, dp_group: Any = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """(this micro-batch's share of the loss, verl's metrics)."""
        prefix_B = torch.as_tensor(list(tu.get(data, PREFIX)))
        mask_BT = data["response_mask"].to_padded_tensor(0).bool()
        given_BT = mask_BT & (torch.arange(mask_BT.shape[1]) < prefix_B[:, None]).to(mask_BT.device)
        if not given_BT.any():
            return self._verl_loss(model_output=model_output, data=data, dp_group=dp_group)
        sampled = data.copy()
        sampled["response_mask"] = _without_first(data["response_mask"], prefix_B)
        loss, metrics = self._verl_loss(model_output=model_output, data=sampled, dp_group=dp_group)
        off_policy = self._of_given(model_output, data, given_BT)
        metrics["actor/off_policy_loss"] = Metric(value=off_policy.detach(), aggregation=AggregationType.SUM)
        return loss + off_policy, metrics

    def _of_given(self, model_output: dict[str, Tensor], data: TensorDict, given_BT: Tensor) -> Tensor:
        facts = {"given": given_BT}
        if "entropy" in data.keys():
            facts["entropy"] = data["entropy"].to_padded_tensor(0).float()
        loss_BT = self._off_policy(
            no_padding_2_padding(model_output["log_probs"], data),
            data["old_log_probs"].to_padded_tensor(0),
            data["advantages"].to_padded_tensor(0),
            facts,
        )
        return agg_loss(
            loss_mat=torch.where(given_BT, loss_BT, 0.0),
            loss_mask=given_BT,
            loss_agg_mode=self._config.loss_agg_mode,
            dp_size=data["dp_size"],
            batch_num_tokens=data["batch_num_tokens"],
            global_batch_size=data["global_batch_size"],
            loss_scale_factor=self._config.loss_scale_factor,
        )


def rl_loss(verl_loss: Callable, off_policy: OffPolicy, has_prefixes: bool) -> Callable:
    """The RL loss of a run: verl's own unless some rollout may begin with given tokens."""
    return RlLoss(verl_loss, off_policy) if has_prefixes else verl_loss  # type: ignore[arg-type]  # verl's is a partial


def _without_first(mask: Tensor, prefix_B: Tensor) -> Tensor:
    """The nested mask with 0 on the first ``prefix_B`` positions of each row."""
    rows = [row.clone() for row in mask.unbind()]
    for row, prefix in zip(rows, prefix_B.tolist(), strict=True):
        row[:prefix] = 0
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)
