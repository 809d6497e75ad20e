"""Log-probabilities of whole logits: those of verl, which takes one token after the other, to the bit."""

import torch
from verl.utils.torch_functional import logprobs_from_logits_v2

from mifo_verl.verl.head import log_probs_of


def test_log_probs_of_logits_are_verls_to_the_bit_and_so_are_their_gradients():
    draw = torch.Generator().manual_seed(0)
    logits_NV, labels_N = 5 * torch.randn(300, 265, generator=draw), torch.randint(265, (300,), generator=draw)
    ours, verls = (logits_NV.clone().requires_grad_() for _ in range(2))
    found_N, expected_N = log_probs_of(ours, labels_N), logprobs_from_logits_v2(verls, labels_N)
    assert torch.equal(found_N, expected_N)
    found_N.sum().backward()
    expected_N.sum().backward()
    assert torch.equal(ours.grad, verls.grad)
    by_hand = torch.tensor([[0.0, 0.0]])
    assert log_probs_of(by_hand, torch.tensor([1])).exp().item() == 0.5
