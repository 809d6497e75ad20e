"""An engine whose SFT passes make no logits: the head gives log-probabilities and facts instead (``method/head.py``).

The head's ``forward`` is exchanged, so FSDP2 gathers its weight as ever, tied or not, packed, padded and under Ulysses.
"""

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from verl.utils import tensordict_utils as tu

from mifo_verl.method.head import head_outputs


class _LogitsAreChanged(Exception):
    """The model does something to what its head returns, such as a soft cap."""

    def __init__(self, head: "_Head") -> None:
        self.head = head


class _Head:
    """The ``forward`` of a linear head: logits, unless something else is asked for."""

    def __init__(self, linear: nn.Linear) -> None:
        self._linear = linear
        self._logits = linear.forward
        self.asked: tuple[Tensor, tuple[str, ...]] | None = None
        """(labels of all tokens, names of facts) of the pass that runs; None if it wants logits."""
        self.made: Tensor | None = None
        """What the head returned last in place of logits."""
        linear.forward = self  # type: ignore[method-assign, assignment]

    def give_back(self) -> None:
        """The linear map has its own ``forward`` again."""
        del self._linear.forward

    def __call__(self, hidden: Tensor) -> Tensor:
        """(sequences, tokens, V) logits, or (sequences, tokens, 1 + facts)."""
        if self.asked is None:
            return self._logits(hidden)
        labels, names = self.asked
        labels_N = labels.view(hidden.shape[:-1]).flatten()
        made = head_outputs(hidden.flatten(0, 1), self._linear.weight, self._linear.bias, labels_N, names)
        self.made = made.view(*hidden.shape[:-1], -1).clone()  # FSDP2 warns of views
        return self.made


class ChunkedHeadMixin:
    """An engine of verl that takes log-probabilities without logits wherever ``asked_of_head`` allows it."""

    _head: _Head | None = None

    def chunk_head(self) -> None:
        """Called once after the model is built; a head that is no plain linear map stays as it is."""
        linear = self.module.get_output_embeddings()  # type: ignore[attr-defined]
        self._head = (
            _Head(linear) if isinstance(linear, nn.Linear) and type(linear).forward is nn.Linear.forward else None
        )

    def asked_of_head(self, micro_batch: TensorDict) -> tuple[str, ...] | None:
        """The facts that a pass takes beside log-probabilities at temperature 1; None if it needs logits."""
        return None

    @property
    def has_logits(self) -> bool:
        """Whether the pass that runs makes logits."""
        return self._head is None or self._head.asked is None

    def forward_step(
        self, micro_batch: TensorDict, loss_function: Callable | None, forward_only: bool
    ) -> tuple[Tensor, dict[str, Any]]:
        """verl's forward pass; again, with logits from now on, if the model changes what its head returns."""
        try:
            return super().forward_step(micro_batch, loss_function, forward_only)  # type: ignore[misc]
        except _LogitsAreChanged as changed:
            changed.head.give_back()
            self._head = None
            return super().forward_step(micro_batch, loss_function, forward_only)  # type: ignore[misc]
        finally:
            if self._head is not None:
                self._head.asked = self._head.made = None

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """verl's inputs; the head is told what is asked of it."""
        inputs, arguments = super().prepare_model_inputs(micro_batch)  # type: ignore[misc]
        names = self.asked_of_head(micro_batch)
        if self._head is not None and names is not None:
            labels = arguments["input_ids_rmpad_rolled"]
            if not tu.get_non_tensor_data(micro_batch, "use_remove_padding", default=True):
                nested = torch.nested.nested_tensor_from_jagged(labels, micro_batch["input_ids"].offsets())
                labels = nested.to_padded_tensor(0, output_size=inputs["input_ids"].shape)
            self._head.asked = (labels, names)
        return inputs, arguments

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Callable | None
    ) -> dict[str, Tensor]:
        """verl's log-probs, or those of the head with the facts."""
        if self._head is None or self._head.asked is None:
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)  # type: ignore[misc]
        if self._head.made is None or output.logits is not self._head.made:
            raise _LogitsAreChanged(self._head)
        names = ("log_probs", *self._head.asked[1])
        columns = zip(names, self._head.made.flatten(0, 1).unbind(dim=1), strict=True)
        return {name: self.by_token(values_N, output, output_args, micro_batch) for name, values_N in columns}

    def by_token(self, values_N: Tensor, output: Any, output_args: dict[str, Any], micro_batch: TensorDict) -> Tensor:
        """Nested (sequences, tokens) of what was taken from padded (B, T, ...) or packed (1, tokens, ...) outputs."""
        offsets = micro_batch["input_ids"].offsets()
        if tu.get_non_tensor_data(micro_batch, "use_remove_padding", default=True):
            values_N = self._gather_and_unpad_packed(values_N, output_args["pad_size"])  # type: ignore[attr-defined]
        else:
            shape = output.logits.shape[:2]
            real = torch.arange(shape[1], device=values_N.device) < offsets.diff()[:, None]
            values_N = values_N.view(shape)[real]
        return torch.nested.nested_tensor_from_jagged(values_N, offsets)
