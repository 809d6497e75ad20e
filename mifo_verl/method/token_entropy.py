"""H_t = -sum_v p_v log p_v, the entropy of the next token (MIFO section 3, token selection).

Shapes: N tokens, V vocabulary.
"""

import torch
from torch import Tensor


@torch.no_grad()
def token_entropy(logits_NV: Tensor, chunk_tokens: int = 1024) -> Tensor:
    """entropy_N in nats, float32, over the full vocabulary at temperature 1, without gradient.

    The logits may be half precision: sums are float32, taken ``chunk_tokens`` tokens at a time, so that no full
    float32 copy of the logits exists (at V = 152k a chunk of 1,024 tokens is 0.6 GB, and two live at once).
    """
    entropy_N = torch.empty(logits_NV.shape[0], dtype=torch.float32, device=logits_NV.device)
    for start in range(0, logits_NV.shape[0], chunk_tokens):
        logits = logits_NV[start : start + chunk_tokens]
        # H = log Z + sum(-w log w) / Z for w = exp(logit - max) and Z = sum w: no term is negative, entr(0) is 0
        weight = (logits - logits.amax(dim=-1, keepdim=True).float()).exp_()
        total = weight.sum(dim=-1)
        entropy_N[start : start + chunk_tokens] = total.log() + torch.special.entr(weight).sum(dim=-1) / total
    return entropy_N
