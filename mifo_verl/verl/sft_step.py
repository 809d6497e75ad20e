"""One SFT update on verl's engine: the batch that goes out, and the loss that runs on every rank.

The loss is the mean over the sequences of the update (or over its tokens: ``mifo.sft.normalise``), over all ranks and
micro-batches: a rank's share is divided by the global number of sequences and multiplied by the number of data-parallel
ranks, because FSDP averages gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensordict import NonTensorData, TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.seqlen_balancing import get_seqlen_balanced_partitions
from verl.workers.utils.padding import no_padding_2_padding

from mifo_verl.config import MifoConfig
from mifo_verl.method.token_facts import PROGRESS, TEACHER
from mifo_verl.types import SftExample
from mifo_verl.verl.engine import TOKEN_FACTS

ROWS = "mifo_rows"
"""Metric of a batch: (row, tokens kept, sum of the entropy) of every real sequence."""
SFT_LR = "mifo_sft_lr"
"""Non-tensor datum of a batch: the learning rate of its update."""
TOKENS_A_SEQUENCE = "mifo_tokens_a_sequence"
"""Non-tensor datum of a batch: response tokens of the whole update, over all ranks, a sequence."""
TOKENS = "mifo_tokens"
"""Metric of a batch with ``mifo.inspect.tokens``: (row, entropies, flags kept) of every real sequence, as arrays."""


@dataclass(frozen=True)
class BatchCut:
    """How a batch is cut over the data-parallel ranks."""

    num_ranks: int
    rows_a_rank: int
    """Of which the rows of every rank are a multiple."""
    pad_token_id: int


def sft_batch(examples: Sequence[SftExample], seeds: Sequence[int], cut: BatchCut, progress: float = 0.0) -> TensorDict:
    """The batch of one update, cut evenly over the ranks by length; ``progress`` is the share of the run that is done.

    Rows added to fill up repeat the shortest example with an empty loss mask: they count in no loss and no metric.
    """
    multiple = cut.num_ranks * cut.rows_a_rank
    shortest = min(range(len(examples)), key=lambda row: len(examples[row].prompt_ids + examples[row].response_ids))
    rows = list(range(len(examples))) + [shortest] * (-len(examples) % multiple)
    lengths = [len(examples[row].prompt_ids) + len(examples[row].response_ids) for row in rows]
    parts = get_seqlen_balanced_partitions(lengths, k_partitions=cut.num_ranks, equal_size=True)
    order = [place for part in parts for place in part]
    chosen = [examples[rows[place]] for place in order]
    real = [place < len(examples) for place in order]

    ids = [torch.tensor(example.prompt_ids + example.response_ids) for example in chosen]
    masks = [torch.full((len(e.response_ids),), int(is_real)) for e, is_real in zip(chosen, real, strict=True)]
    batch = tu.get_tensordict(
        {
            "input_ids": _jagged(ids),
            "position_ids": _jagged([torch.arange(len(row)) for row in ids]),
            "prompts": _jagged([torch.tensor(example.prompt_ids) for example in chosen]),
            "responses": _jagged([torch.tensor(example.response_ids) for example in chosen]),
            "loss_mask": _jagged(masks),
            "row": torch.tensor([rows[place] if is_real else -1 for place, is_real in zip(order, real, strict=True)]),
            "seed": torch.tensor([seeds[rows[place]] for place in order]),
        },
        non_tensor_dict={
            "temperature": 1.0,
            "global_batch_size": len(examples),
            "pad_mode": "no_padding",
            "pad_token_id": cut.pad_token_id,
            TOKEN_FACTS: True,
            PROGRESS: progress,
            TOKENS_A_SEQUENCE: sum(len(example.response_ids) for example in examples) / len(examples),
        },
    )
    if all(example.teacher_log_probs for example in chosen):
        batch[TEACHER] = _jagged([torch.tensor(example.teacher_log_probs) for example in chosen])
    tu.assign_non_tensor(batch, global_token_num=NonTensorData(lengths))
    return batch


def _jagged(rows: list[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


class SftLossOfBatch:
    """The loss function that verl's engine calls for every micro-batch of an SFT update."""

    def __init__(self, mifo: MifoConfig) -> None:
        self._mifo = mifo

    def __call__(
        self, model_output: dict[str, Tensor], data: TensorDict, dp_group: Any = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """(this micro-batch's share of the loss, metrics of its rows)."""
        log_prob_BT = no_padding_2_padding(model_output["log_probs"], data)
        of_pass = {*self._mifo.token_facts, *(self._mifo.before_facts & model_output.keys())}
        facts = {name: no_padding_2_padding(model_output[name], data) for name in of_pass}
        if TEACHER in data.keys():
            facts[TEACHER] = data[TEACHER].to_padded_tensor(0.0)
        facts[PROGRESS] = torch.tensor(tu.get_non_tensor_data(data, PROGRESS, default=0.0))
        entropy_BT = facts["entropy"]
        response_mask_BT = data["loss_mask"].to_padded_tensor(0).bool()
        selector, sft_loss = self._mifo.token_selector, self._mifo.sft_loss
        keep_BT = selector({name: facts[name] for name in selector.needs}, response_mask_BT, data["seed"])
        needed = {name: facts[name] for name in sft_loss.needs}
        loss_B = sft_loss(log_prob_BT, keep_BT, response_mask_BT, needed)
        if held := self._mifo.constraint.needs & self._mifo.before_facts & facts.keys():
            of_before = {name: facts[name] for name in held} | {"log_prob": log_prob_BT}
            loss_B = loss_B + self._mifo.constraint.penalty(of_before, response_mask_BT)
        loss = per_update(loss_B, response_mask_BT, data, self._mifo.sft.normalise)
        metrics: dict[str, Any] = {ROWS: row_sums(data["row"], keep_BT, entropy_BT * response_mask_BT)}
        if self._mifo.inspect.tokens:
            metrics[TOKENS] = _tokens(data["row"], entropy_BT, keep_BT, response_mask_BT)
        return loss, metrics


def per_update(loss_B: Tensor, response_mask_BT: Tensor, data: TensorDict, normalise: str) -> Tensor:
    """A micro-batch's share of the mean over the sequences of the update, or over its tokens, for FSDP to average."""
    if normalise == "token":
        loss_B = loss_B * response_mask_BT.sum(dim=1) / data[TOKENS_A_SEQUENCE]
    return loss_B.sum() / data["global_batch_size"] * data["dp_size"]


def row_sums(row_B: Tensor, keep_BT: Tensor, entropy_BT: Tensor) -> list[tuple[int, int, float]]:
    """(row, tokens kept, sum of the entropy) of every real sequence."""
    columns = (row_B.tolist(), keep_BT.sum(dim=1).tolist(), entropy_BT.sum(dim=1).tolist())
    return [(row, kept, entropy) for row, kept, entropy in zip(*columns, strict=True) if row >= 0]


def _tokens(
    row_B: Tensor, entropy_BT: Tensor, keep_BT: Tensor, mask_BT: Tensor
) -> list[tuple[int, np.ndarray, np.ndarray]]:
    columns = zip(row_B.tolist(), entropy_BT.detach().float(), keep_BT, mask_BT, strict=True)
    return [
        (row, entropy[mask].cpu().numpy(), keep[mask].cpu().numpy()) for row, entropy, keep, mask in columns if row >= 0
    ]


def tokens_of(metrics: dict[str, Any]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """(entropies, flags kept) of one update by row number; empty where tokens are not inspected."""
    return {row: (entropy, keep) for rank in metrics.pop(TOKENS, []) for row, entropy, keep in rank}


def rows_of(metrics: dict[str, Any]) -> list[tuple[Any, ...]]:
    """All ranks' and micro-batches' rows of one update, by row number. Takes them out of ``metrics``."""
    return sorted(row for rank in metrics.pop(ROWS) for row in rank)
