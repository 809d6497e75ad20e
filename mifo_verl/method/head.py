"""The language model head in two passes: log-probabilities and facts of all tokens, gradients of those that count.

The logits of a batch are its largest tensor: N tokens times V words of the vocabulary, and several copies of it in a
loss. Here no more than a chunk of them exists. The first pass goes over all tokens without a graph. The second, in the
backward pass, makes the logits again of the tokens whose log-probability has a gradient that is not 0, which are those
that a selector has kept. Shapes: N tokens, H hidden units, V vocabulary, F facts.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from mifo_verl.method.token_facts import facts_of

CHUNK_LOGITS = 1 << 25
"""Logits that exist at a time: 128 MiB in float32."""


def head_outputs(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor | None,
    labels_N: Tensor,
    names: Sequence[str] = (),
    chunk_logits: int = CHUNK_LOGITS,
) -> Tensor:
    """(log p of each token's label, then its facts of these names) at temperature 1, (N, 1 + F) in float32.

    Logits are taken in the dtype of autocast, if that is on, else in that of the weight; what is made of them is
    float32. The log-probabilities have a gradient, the facts (``token_facts``) have none.
    """
    device = hidden_NH.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VH.dtype
    chunk = max(1, chunk_logits // len(weight_VH))
    with torch.autocast(device, enabled=False):
        log_prob_N, facts_NF = _Head.apply(hidden_NH, weight_VH, bias_V, labels_N, tuple(names), dtype, chunk)
    return torch.cat([log_prob_N[:, None], facts_NF], dim=1)


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        labels_N: Tensor,
        names: tuple[str, ...],
        dtype: torch.dtype,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        log_prob_N, log_total_N = (hidden_NH.new_empty(len(hidden_NH), dtype=torch.float32) for _ in range(2))
        facts_NF = log_prob_N.new_empty(len(hidden_NH), len(names))
        every = torch.arange(len(hidden_NH), device=hidden_NH.device)
        for rows, logits_CV in _logits(hidden_NH, weight_VH, bias_V, every, dtype, chunk):
            label_C = logits_CV.gather(1, labels_N[rows, None])[:, 0]
            facts, log_total_N[rows] = facts_of(logits_CV, names, overwrites=True)
            log_prob_N[rows] = label_C - log_total_N[rows]
            for column, name in enumerate(names):
                facts_NF[rows, column] = facts[name]
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, labels_N, log_total_N)  # type: ignore[arg-type]
        ctx.cut = dtype, chunk  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(facts_NF)
        return log_prob_N, facts_NF

    @staticmethod
    def backward(ctx: FunctionCtx, grad_N: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, bias_V, labels_N, log_total_N = ctx.saved_tensors  # type: ignore[attr-defined]
        dtype, chunk = ctx.cut  # type: ignore[attr-defined]
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]  # type: ignore[attr-defined]
        d_hidden_NH = torch.zeros_like(hidden_NH) if to_hidden else None
        d_weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32) if to_weight else None
        d_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if to_bias else None
        kept = grad_N.nonzero()[:, 0]
        for rows, logits_CV in _logits(hidden_NH, weight_VH, bias_V, kept, dtype, chunk):
            d_logits_CV = logits_CV.sub_(log_total_N[rows, None]).exp_().mul_(-grad_N[rows, None])
            d_logits_CV[torch.arange(len(rows), device=rows.device), labels_N[rows]] += grad_N[rows]
            if d_bias_V is not None:
                d_bias_V += d_logits_CV.sum(dim=0)
            d_logits_CV = d_logits_CV.to(dtype)
            if d_hidden_NH is not None:
                d_hidden_NH[rows] = (d_logits_CV @ weight_VH.to(dtype)).to(hidden_NH.dtype)
            if d_weight_VH is not None:
                d_weight_VH += d_logits_CV.t() @ hidden_NH[rows].to(dtype)
        of_weight = None if d_weight_VH is None else d_weight_VH.to(weight_VH.dtype)
        of_bias = None if d_bias_V is None else d_bias_V.to(bias_V.dtype)
        return d_hidden_NH, of_weight, of_bias, None, None, None, None


def _logits(
    hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, rows: Tensor, dtype: torch.dtype, chunk: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows, their logits in float32, which may be written to), so many rows at a time."""
    weight_VH = weight_VH.to(dtype)
    bias_V = None if bias_V is None else bias_V.to(dtype)
    for here in rows.split(chunk):
        yield here, torch.nn.functional.linear(hidden_NH[here].to(dtype), weight_VH, bias_V).float()
