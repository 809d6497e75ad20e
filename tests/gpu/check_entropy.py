"""Entropy selection at a vocabulary of 152k: no float32 copy of the logits, and the tokens that float64 keeps."""

import torch
from measure import Row, copy_seconds, median_seconds, peak_bytes
from torch import Tensor

from mifo_verl.method.token_facts import token_facts
from mifo_verl.method.token_selection import keep_top


def slow_entropy(logits_NV: Tensor) -> Tensor:
    """float64, 64 tokens at a time."""
    parts = []
    for part in logits_NV.split(64):
        log_prob = torch.log_softmax(part.double(), dim=-1)
        parts.append(-(log_prob.exp() * log_prob).sum(dim=-1))
    return torch.cat(parts)


def check_entropy(scale: float, device: torch.device) -> list[Row]:
    num_tokens, vocabulary = max(64, int(8192 * scale) // 64 * 64), max(1000, int(151_936 * scale**0.5))
    generator = torch.Generator(device).manual_seed(0)
    logits = torch.empty(num_tokens, vocabulary, dtype=torch.bfloat16, device=device)
    for part in logits.split(64):
        spread = torch.rand(len(part), 1, device=device, generator=generator) * 8  # from uniform to nearly certain
        part.copy_(torch.randn(len(part), vocabulary, device=device, generator=generator) * spread)

    results: list[Tensor] = []
    peak = peak_bytes(lambda: results.append(token_facts(logits, ("entropy",))["entropy"]), device)
    full_copy = 4 * logits.numel()
    assert peak is None or scale < 1 or peak < full_copy / 2, f"{peak} bytes, above half of a float32 copy, {full_copy}"
    entropy, reference = results[0], slow_entropy(logits)
    worst = float((entropy - reference).abs().max())
    assert worst < 5e-6, f"an entropy is off by {worst}"

    shape = (8, num_tokens // 8)
    mask = torch.ones(shape, dtype=torch.bool, device=device)
    keep = keep_top(entropy.view(shape), mask, 0.2)
    num_keep = -(-shape[1] // 5)
    assert keep.sum(dim=1).tolist() == [num_keep] * 8
    ranked = reference.view(shape).sort(dim=1, descending=True, stable=True)
    expected = torch.zeros_like(mask).scatter_(1, ranked.indices[:, :num_keep], True)
    cut = ranked.values[:, num_keep - 1 : num_keep]
    doubtful = (reference.view(shape) - cut).abs() < 1e-5
    assert torch.equal(keep | doubtful, expected | doubtful), "another token is kept than the float64 entropy says"

    seconds = median_seconds(lambda: token_facts(logits, ("entropy",)), device)
    copied = copy_seconds(2 * logits.numel(), device)
    return [Row("token entropy", f"{num_tokens} x {vocabulary} bf16", seconds, copied, peak)]
