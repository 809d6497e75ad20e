"""The head that makes no logits, against plain torch in float64: values, facts, gradients, however the tokens are cut."""

import math

import pytest
import torch

from mifo_verl.method.head import head_outputs
from mifo_verl.method.token_facts import token_facts

NAMES = ["entropy", "top_entropy:3", "top_mass:2"]
N, H, V = 13, 6, 11
WEIGHT_N = torch.tensor([0.0, 0.5, 0.0, 0.0, -1.25, 0.0, 2.0, 0.0, 0.0, 0.0, 0.25, 0.0, 1.0])
"""What each token counts in the loss: most of them nothing."""


def tensors(has_bias, dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(*shape, generator=draw) for shape in ((N, H), (V, H), (V,)))
    given = [hidden, weight, bias] if has_bias else [hidden, weight]
    return [one.to(dtype).requires_grad_() for one in given], torch.randint(V, (N,), generator=draw)


def reference(has_bias):
    """(log-probs, facts, gradients of the weighed sum) by plain torch in float64."""
    given, labels = tensors(has_bias, torch.float64)
    logits = torch.nn.functional.linear(given[0], given[1], given[2] if has_bias else None)
    log_prob = logits.log_softmax(dim=-1)[torch.arange(N), labels]
    (log_prob * WEIGHT_N).sum().backward()
    return log_prob.detach(), token_facts(logits.detach().float(), NAMES), [one.grad for one in given]


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("chunk_tokens", [1, 3, N, 100])
def test_values_facts_and_gradients_are_those_of_whole_logits(has_bias, chunk_tokens):
    expected_log_prob, expected_facts, expected_gradients = reference(has_bias)
    given, labels = tensors(has_bias)
    bias = given[2] if has_bias else None
    log_prob, *facts = head_outputs(given[0], given[1], bias, labels, NAMES, chunk_tokens * V).unbind(dim=1)
    (log_prob * WEIGHT_N).sum().backward()
    assert torch.allclose(log_prob.double(), expected_log_prob, atol=1e-6)
    for name, fact in zip(NAMES, facts, strict=True):
        assert torch.allclose(fact, expected_facts[name], atol=1e-6)
    for one, expected in zip(given, expected_gradients, strict=True):
        assert float((one.grad - expected).norm()) <= 1e-6 * float(expected.norm())


def test_a_token_by_hand():
    """Logits 0 and log 3: p = (1/4, 3/4), entropy log 4 - 3/4 log 3; d log p_0 / d logits = (3/4, -3/4)."""
    hidden = torch.tensor([[1.0]], requires_grad=True)
    weight = torch.tensor([[0.0], [math.log(3)]], requires_grad=True)
    log_prob, entropy = head_outputs(hidden, weight, None, torch.tensor([0]), ["entropy"])[0]
    log_prob.backward()
    assert log_prob.item() == pytest.approx(-math.log(4), abs=1e-6)
    assert entropy.item() == pytest.approx(math.log(4) - 0.75 * math.log(3), abs=1e-6)
    assert weight.grad.flatten().tolist() == pytest.approx([0.75, -0.75], abs=1e-6)
    assert hidden.grad.item() == pytest.approx(-0.75 * math.log(3), abs=1e-6)


def test_tokens_that_count_nothing_are_passed_over_in_the_second_pass():
    given, labels = tensors(False)
    log_prob = head_outputs(*given, None, labels)[:, 0]
    given[1].data.fill_(math.nan)  # what the second pass makes of a token is nan now
    (log_prob * WEIGHT_N).sum().backward()
    assert given[0].grad.isnan().all(dim=1).tolist() == WEIGHT_N.ne(0).tolist()
    assert given[0].grad[WEIGHT_N == 0].eq(0).all()


def test_facts_have_no_gradient_and_a_frozen_head_is_given_none():
    (hidden, weight), labels = tensors(False)
    made = head_outputs(hidden, weight.detach(), None, labels, NAMES)
    made[:, 0].sum().backward()
    assert weight.grad is None and hidden.grad.abs().sum() > 0
    facts_alone = head_outputs(hidden, weight, None, labels, NAMES)[:, 1:]
    (gradient,) = torch.autograd.grad(facts_alone.sum(), hidden)
    assert gradient.eq(0).all()


def test_half_precision_logits_are_those_of_autocast():
    (hidden, weight), labels = tensors(False)
    with torch.autocast("cpu", torch.bfloat16):
        log_prob = head_outputs(hidden, weight, None, labels)[:, 0]
        logits = torch.nn.functional.linear(hidden, weight)
    assert logits.dtype == torch.bfloat16
    expected = logits.float().log_softmax(dim=-1)[torch.arange(N), labels]
    assert log_prob.dtype == torch.float32 and torch.allclose(log_prob, expected, atol=1e-6)
    (log_prob * WEIGHT_N).sum().backward()
    found = [one.grad.clone() for one in (hidden, weight)]
    (gradients) = torch.autograd.grad((expected * WEIGHT_N).sum(), [hidden, weight])
    for one, plain in zip(found, gradients, strict=True):
        assert float((one - plain).norm()) <= 0.02 * float(plain.norm())  # bfloat16 has 8 bits
