"""One forward-only batch of the probes: what goes out to the ranks, and the sums by row that come back.

No tensor with the vocabulary in its shape leaves a micro-batch, and no tensor at all leaves a rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import no_padding_2_padding

from mifo_verl.types import SftExample
from mifo_verl.verl.engine import POLICY_SHIFT, TOKEN_FACTS
from mifo_verl.verl.sft_step import ROWS, BatchCut, rows_of, sft_batch

COLUMNS = ("log_probs", "entropy", "start_log_probs", "start_entropy", "kl")
"""What a forward pass gives of every token; all but the first with ``POLICY_SHIFT`` alone."""


@dataclass(frozen=True)
class RowSums:
    """Sums over the response tokens of one row."""

    tokens: int
    log_probs: float
    entropy: float = 0.0
    start_log_probs: float = 0.0
    start_entropy: float = 0.0
    kl: float = 0.0


def probe_batch(rows: Sequence[tuple[Sequence[int], Sequence[int]]], cut: BatchCut, with_shift: bool) -> TensorDict:
    """The batch of (prompt, response) token ids, cut over the ranks as an SFT update is."""
    examples = [SftExample("", tuple(prompt), tuple(response), "") for prompt, response in rows]
    data = sft_batch(examples, [0] * len(examples), cut)
    tu.assign_non_tensor(data, **{TOKEN_FACTS: with_shift, POLICY_SHIFT: with_shift})
    return data


class SumsOfBatch:
    """The loss function that verl's engine calls for every micro-batch of a probe; its loss is 0."""

    def __call__(
        self, model_output: dict[str, Tensor], data: TensorDict, dp_group: Any = None
    ) -> tuple[Tensor, dict[str, Any]]:
        mask_BT = data["loss_mask"].to_padded_tensor(0).bool()
        columns = [
            torch.where(mask_BT, no_padding_2_padding(model_output[name], data), 0.0).double().sum(dim=1).tolist()
            for name in COLUMNS
            if name in model_output
        ]
        found = zip(data["row"].tolist(), mask_BT.sum(dim=1).tolist(), *columns, strict=True)
        return mask_BT.new_zeros((), dtype=torch.float32), {ROWS: [row for row in found if row[0] >= 0]}


def sums_of(metrics: dict[str, Any], num_rows: int) -> list[RowSums]:
    """The sums of every row of a batch, in its order. Raises RuntimeError where one did not come back."""
    rows = rows_of(metrics)
    if [row[0] for row in rows] != list(range(num_rows)):
        raise RuntimeError(f"a probe of {num_rows} rows came back with rows {[row[0] for row in rows]}")
    return [RowSums(*row[1:]) for row in rows]
