"""How far a phase moved the policy on rollouts that stay the same.

Shapes: N tokens, V vocabulary.
"""

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def token_kl(after_NV: Tensor, before_NV: Tensor, chunk_tokens: int = 1024) -> Tensor:
    """kl_N: KL(after || before) of the next token in nats, float32, exact over the vocabulary, from logits.

    The sum over the vocabulary has no sampling noise, unlike log p_after - log p_before of the token drawn. The logits
    may be half precision: ``chunk_tokens`` tokens at a time are float32, in the backward pass too.
    """
    chunks = zip(after_NV.split(chunk_tokens), before_NV.split(chunk_tokens), strict=True)
    return torch.cat([checkpoint(_kl, after, before, use_reentrant=False) for after, before in chunks])


def _kl(after_NV: Tensor, before_NV: Tensor) -> Tensor:
    after, before = (logits.float().log_softmax(dim=-1) for logits in (after_NV, before_NV))
    share = after.exp()
    return torch.where(share > 0, share * (after - before), 0.0).sum(dim=-1).clamp(min=0.0)  # less is rounding


def k3(log_prob: Tensor, before: Tensor) -> Tensor:
    """r - 1 - log r, r = p_before / p of one token: an estimate of KL(p || p_before), at least 0, float32."""
    log_r = (before - log_prob).float().clamp(-20, 20)
    return log_r.expm1() - log_r


def reward_margin(mean_log_prob: Sequence[float], is_correct: Sequence[bool]) -> float | None:
    """Mean over the correct rollouts of log pi(y | x) / |y|, minus the same over the wrong ones; None without both.

    SimPO's length-normalised reward with beta = 1 (arXiv 2405.14734, eq. 4), between right and wrong answers instead
    of chosen and rejected ones. After minus before a phase it is DPO's reward margin (arXiv 2305.18290), each
    log-ratio divided by the length, with the policy before as the reference.
    """
    sides = [
        [value for value, own in zip(mean_log_prob, is_correct, strict=True) if own is side] for side in (True, False)
    ]
    return fmean(sides[0]) - fmean(sides[1]) if all(sides) else None
