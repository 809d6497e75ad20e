"""A second loss in the same update: SFT batches are staged on the ranks, and verl's RL updates take them up in order.

verl zeroes the gradients before ``forward_backward_batch`` and clips and steps once behind it, so two passes in it are
one update of the sum of two losses. Each loss keeps its own denominators. Hangs on ``BaseEngine.train_batch``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tensordict import TensorDict
from torch import Tensor
from verl.single_controller.base.decorator import collect_all_to_all, dispatch_lazy_compute_data_proto
from verl.utils import tensordict_utils as tu

RL_WEIGHT = "mifo_rl_weight"
"""Non-tensor value of an RL batch: what multiplies its loss; 1 where it is absent."""
SFT_WEIGHT = "mifo_sft_weight"
"""Non-tensor value of a staged batch: what multiplies its loss."""
TO_EVERY_RANK = {
    "dispatch_fn": partial(dispatch_lazy_compute_data_proto, "actor"),
    "collect_fn": collect_all_to_all,
}
"""Each data-parallel rank gets its part of a batch; what every rank returns comes back as a list."""


def weighted(batch: TensorDict, weight: float, denominator: int | None) -> TensorDict:
    """An SFT batch as it is staged: its weight, and the number that its sum is divided by (its sequences if None)."""
    tu.assign_non_tensor(batch, **{SFT_WEIGHT: weight})
    if denominator is not None:
        tu.assign_non_tensor(batch, global_batch_size=denominator)
    return batch


@dataclass(frozen=True)
class Taken:
    """What one rank has made of a staged batch."""

    loss: float
    """This rank's part of the loss, not weighted, times the number of ranks: the mean over ranks is the loss."""
    metrics: dict[str, Any]
    """The metrics of the loss function, a list of the micro-batches' values each."""


class StagedSftMixin:
    """An engine of verl that runs a staged SFT batch first in each update, with gradients that add up."""

    _staged: tuple[tuple[TensorDict, Callable], ...] = ()
    _taken: tuple[Taken, ...] = ()
    _weight: float = 1.0
    """What multiplies the loss of the pass that runs; the loss that is reported is not multiplied."""

    def stage_sft(self, data: TensorDict, loss_function: Callable) -> None:
        """Keep a batch for the next update that has none yet, complete as ``TrainingWorker.train_batch`` would it."""
        config = self.engine_config  # type: ignore[attr-defined]
        tu.assign_non_tensor(data, **{key: getattr(config, key) for key in COMPLETED if key not in data.keys()})
        self._staged += ((data, loss_function),)

    def take_staged(self) -> list[Taken]:
        """What came of the staged batches, in order. Raises RuntimeError if no update has taken one of them up."""
        left, taken = len(self._staged), list(self._taken)
        self._staged, self._taken = (), ()
        if left:
            raise RuntimeError(f"{left} staged SFT batches were left over by {len(taken)} updates")
        return taken

    def forward_backward_batch(self, data: TensorDict, loss_function: Callable, forward_only: bool = False) -> Any:
        """verl's passes; in an update, those of the staged batch before them."""
        weight = tu.get_non_tensor_data(data, RL_WEIGHT, default=1.0)
        if forward_only:
            return self.one_pass(data, loss_function, weight, forward_only)
        if self._staged:
            (sft, sft_loss), *rest = self._staged
            output = self.one_pass(sft, sft_loss, tu.get_non_tensor_data(sft, SFT_WEIGHT, default=1.0))
            self._staged = tuple(rest)
            self._taken += (Taken(float(sum(output["loss"])), output["metrics"]),)
        # at weight 0 this loss adds no gradients to the other's, rather than 0 times what may be infinite
        output = self.one_pass(data, loss_function, weight, forward_only=weight == 0)
        return output | {"model_output": {}} if weight == 0 else output

    def one_pass(self, data: TensorDict, loss_function: Callable, weight: float, forward_only: bool = False) -> Any:
        """verl's pass over one batch, its loss multiplied by ``weight``; nothing that is staged is taken up."""
        self._weight = weight
        try:
            return super().forward_backward_batch(data, loss_function, forward_only)  # type: ignore[misc]
        finally:
            self._weight = 1.0

    def forward_step(
        self, micro_batch: TensorDict, loss_function: Callable | None, forward_only: bool
    ) -> tuple[Tensor, dict[str, Any]]:
        """verl's forward pass; its loss is multiplied by the weight of the batch, unless that is exactly 1."""
        loss, output = super().forward_step(micro_batch, loss_function, forward_only)  # type: ignore[misc]
        return (loss if self._weight == 1 else loss * self._weight), output


COMPLETED = (
    "use_remove_padding",
    "use_dynamic_bsz",
    "max_token_len_per_gpu",
    "micro_batch_size_per_gpu",
    "use_fused_kernels",
)
