"""Own correct rollouts on the ranks: the batch that goes out, its loss beside SFT's, and its log-probs."""

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import no_padding_2_padding

from mifo_verl.config import MifoConfig
from mifo_verl.method.part import OWN_KL, OWN_LOG_PROB
from mifo_verl.method.token_facts import TEACHER
from mifo_verl.types import SftExample
from mifo_verl.verl.engine import COMPARED, KL_FROM_BEFORE
from mifo_verl.verl.sft_step import ROWS, BatchCut, per_update, row_sums, rows_of, sft_batch


def own_batch(examples: Sequence[SftExample], cut: BatchCut, compares: bool = False) -> TensorDict:
    """Rollouts as an SFT update's batch, without a learning rate; ``compares`` with the policy before the phase."""
    batch = sft_batch(examples, [0] * len(examples), cut)
    tu.assign_non_tensor(batch, **{COMPARED: KL_FROM_BEFORE if compares else ""})
    return batch


class OwnLossOfBatch:
    """The loss function that verl's engine calls for every micro-batch of own rollouts, which is not weighted."""

    def __init__(self, mifo: MifoConfig) -> None:
        self._mifo = mifo

    def __call__(
        self, model_output: dict[str, Tensor], data: TensorDict, dp_group: Any = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """(this micro-batch's share of the loss, tokens by row)."""
        mask_BT = data["loss_mask"].to_padded_tensor(0).bool()
        facts = {"log_prob": no_padding_2_padding(model_output["log_probs"], data)}
        if TEACHER in data.keys():  # the policy that wrote them is the one before the phase
            facts[OWN_LOG_PROB] = data[TEACHER].to_padded_tensor(0.0)
        if KL_FROM_BEFORE in model_output:
            facts[OWN_KL] = no_padding_2_padding(model_output[KL_FROM_BEFORE], data)
        loss = per_update(self._mifo.constraint.own_loss(facts, mask_BT), mask_BT, data, self._mifo.sft.normalise)
        return loss, {ROWS: row_sums(data["row"], mask_BT, torch.zeros(mask_BT.shape))}


class LogProbsOfBatch:
    """The loss function of a forward pass for the log-probs of all response tokens; its loss is 0."""

    def __call__(
        self, model_output: dict[str, Tensor], data: TensorDict, dp_group: Any = None
    ) -> tuple[Tensor, dict[str, Any]]:
        mask_BT = data["loss_mask"].to_padded_tensor(0).bool()
        log_prob_BT = no_padding_2_padding(model_output["log_probs"], data).detach().float()
        rows = zip(data["row"].tolist(), log_prob_BT, mask_BT, strict=True)
        found = [(row, log_prob[mask].tolist()) for row, log_prob, mask in rows if row >= 0]
        return mask_BT.new_zeros((), dtype=torch.float32), {ROWS: found}


def log_probs_of(metrics: dict[str, Any], examples: Sequence[SftExample]) -> list[tuple[float, ...]]:
    """log p of every response token of each example. Raises RuntimeError where one did not come back."""
    rows = rows_of(metrics)
    if [(row, len(found)) for row, found in rows] != [(n, len(one.response_ids)) for n, one in enumerate(examples)]:
        raise RuntimeError(f"{len(examples)} own rollouts came back as {[(row, len(found)) for row, found in rows]}")
    return [tuple(found) for _, found in rows]
