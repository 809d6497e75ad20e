"""verl's RL loss with ``mifo/off_policy`` on given tokens, or ``mifo/on_policy`` on sampled ones."""

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
from mifo_verl.method.on_policy import OnPolicy
from mifo_verl.method.part import Part

PREFIX = "mifo_prefix"
"""Column of a rollout: how many of its response tokens were given, from the first on; 0 for a rollout as ever."""
CORRECT = "mifo_correct"
"""Column of a rollout: 1 if its answer is right, 0 if not; there if ``mifo/on_policy`` needs it."""
FIRST = "mifo_first"
"""Column of a rollout: 1 if it is the first of those that begin by the same rule, else 0."""


class RlLoss:
    """``verl_loss`` with the given tokens masked out, plus the off-policy loss of these alone.

    If ``on_policy`` is not verl's, the sampled tokens have advantage 0 in verl's loss, so that its entropy and KL terms
    stay, and the rule's loss is added. All parts are aggregated with the constants of the RL loss,
    and in its mode unless the rule for given tokens has its own: the sum does not depend on how an update is cut. A
    micro-batch without given tokens has verl's loss, to the bit.
    """

    def __init__(self, verl_loss: partial, off_policy: OffPolicy, on_policy: OnPolicy) -> None:
        self._verl_loss = verl_loss
        self._config = verl_loss.keywords["config"]
        self._off_policy = off_policy
        self._on_policy = on_policy

    def __call__(
        self, model_output: dict[str, Tensor], data: TensorDict, dp_group: Any = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """(this micro-batch's share of the loss, verl's metrics)."""
        mask_BT = data["response_mask"].to_padded_tensor(0).bool()
        prefix_B = torch.as_tensor(list(tu.get(data, PREFIX, [0] * len(mask_BT))))
        given_BT = mask_BT & (torch.arange(mask_BT.shape[1]) < prefix_B[:, None]).to(mask_BT.device)
        sampled = data.copy()
        if given_BT.any():
            sampled["response_mask"] = _without_first(data["response_mask"], prefix_B)
        if not self._on_policy.is_verls:
            sampled["advantages"] = data["advantages"] * 0
        loss, metrics = self._verl_loss(model_output=model_output, data=sampled, dp_group=dp_group)
        log_prob_BT = no_padding_2_padding(model_output["log_probs"], data)
        if not self._on_policy.is_verls:
            sampled_BT = mask_BT & ~given_BT
            loss_BT = self._on_policy(log_prob_BT, sampled_BT, _facts(self._on_policy, data, given_BT))
            loss = loss + self._add(metrics, "actor/on_policy_loss", loss_BT, sampled_BT, data)
        if given_BT.any():
            old_BT, advantage_BT = (data[name].to_padded_tensor(0) for name in ("old_log_probs", "advantages"))
            loss_BT = self._off_policy(log_prob_BT, old_BT, advantage_BT, _facts(self._off_policy, data, given_BT))
            mode = self._off_policy.aggregation
            loss = loss + self._add(metrics, "actor/off_policy_loss", loss_BT, given_BT, data, mode)
        return loss, metrics

    def _add(
        self,
        metrics: dict[str, Any],
        name: str,
        loss_BT: Tensor,
        mask_BT: Tensor,
        data: TensorDict,
        mode: str | None = None,
    ) -> Tensor:
        """The loss of these tokens, and its metric."""
        loss = agg_loss(
            loss_mat=torch.where(mask_BT, loss_BT, 0.0),
            loss_mask=mask_BT,
            loss_agg_mode=mode or self._config.loss_agg_mode,
            dp_size=data["dp_size"],
            batch_num_tokens=data["batch_num_tokens"],
            global_batch_size=data["global_batch_size"],
            loss_scale_factor=self._config.loss_scale_factor,
        )
        metrics[name] = Metric(value=loss.detach(), aggregation=AggregationType.SUM)
        return loss


def _facts(rule: Part, data: TensorDict, given_BT: Tensor) -> dict[str, Tensor]:
    """What the rule needs of a micro-batch, and nothing else."""
    known: dict[str, Callable[[], Tensor]] = {
        "given": lambda: given_BT,
        "entropy": lambda: data["entropy"].to_padded_tensor(0).float(),
        "correct": lambda: data[CORRECT].bool(),
        "first": lambda: torch.as_tensor(list(tu.get(data, FIRST)), device=given_BT.device).bool()[:, None],
    }
    return {name: known[name]() for name in rule.needs}


def rl_loss(verl_loss: Callable, off_policy: OffPolicy, on_policy: OnPolicy, has_prefixes: bool) -> Callable:
    """The RL loss of a run: verl's own unless a rollout may begin with given tokens or a rule takes its place."""
    if not has_prefixes and on_policy.is_verls:
        return verl_loss
    return RlLoss(verl_loss, off_policy, on_policy)  # type: ignore[arg-type]  # verl's is a partial


def _without_first(mask: Tensor, prefix_B: Tensor) -> Tensor:
    """The nested mask with 0 on the first ``prefix_B`` positions of each row."""
    rows = [row.clone() for row in mask.unbind()]
    for row, prefix in zip(rows, prefix_B.tolist(), strict=True):
        row[:prefix] = 0
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)
