"""H_t over the full vocabulary: method.md part 1, token selection."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mifo_verl.method.token_facts import token_facts


def direct(logits: torch.Tensor) -> torch.Tensor:
    """-sum p log p in float64, all tokens at once; 0 where p is 0."""
    log_prob = torch.log_softmax(logits.double(), dim=-1)
    p = log_prob.exp()
    return -torch.where(p > 0, p * log_prob, 0.0).sum(dim=-1)


def token_entropy(logits: torch.Tensor, chunk_tokens: int = 1024) -> torch.Tensor:
    return token_facts(logits, ("entropy",), chunk_tokens)["entropy"]


def logits_of(num_tokens: int, vocabulary: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(num_tokens, 1, generator=generator) * 12  # from uniform to nearly certain
    return torch.randn(num_tokens, vocabulary, generator=generator) * spread


def test_hand_computed_entropies():
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 1e-30, 1e-30]]).log()
    expected = torch.tensor([1.75 * math.log(2), math.log(4), math.log(2)])
    torch.testing.assert_close(token_entropy(logits), expected, rtol=0, atol=1e-6)


def test_agrees_with_the_float64_formula():
    logits = logits_of(37, 5000)
    torch.testing.assert_close(token_entropy(logits).double(), direct(logits), rtol=0, atol=3e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(dtype):
    logits = logits_of(16, 20_000).to(dtype)
    entropy = token_entropy(logits)
    assert entropy.dtype is torch.float32
    torch.testing.assert_close(entropy.double(), direct(logits), rtol=0, atol=3e-6)


@pytest.mark.parametrize("chunk_tokens", [1, 2, 7, 10, 11, 1024])
def test_the_chunk_size_does_not_change_the_result(chunk_tokens):
    logits = logits_of(10, 300)
    torch.testing.assert_close(token_entropy(logits, chunk_tokens), token_entropy(logits), rtol=0, atol=1e-6)


def test_a_shift_of_all_logits_does_not_change_the_entropy():
    logits = logits_of(8, 100)
    torch.testing.assert_close(token_entropy(logits + 50), token_entropy(logits), rtol=1e-4, atol=1e-5)


def test_the_order_of_the_vocabulary_does_not_change_the_entropy():
    logits = logits_of(8, 100)
    torch.testing.assert_close(token_entropy(logits.flip(1)), token_entropy(logits), rtol=0, atol=1e-6)


def test_a_logit_of_minus_infinity_is_a_token_of_probability_0():
    logits = torch.tensor([[1.0, 2.0, 3.0, -math.inf], [0.0, -math.inf, -math.inf, -math.inf]])
    entropy = token_entropy(logits)
    torch.testing.assert_close(entropy[0], token_entropy(logits[:1, :3])[0])
    assert entropy[1] == 0


def test_huge_logits_stay_finite_and_a_certain_token_has_entropy_0():
    entropy = token_entropy(torch.tensor([[1e30, 0.0, -1e30], [88.0, 88.0, -1e4]]))
    torch.testing.assert_close(entropy, torch.tensor([0.0, math.log(2)]))


def test_entropy_is_never_negative_nor_above_the_logarithm_of_the_vocabulary():
    entropy = token_entropy(logits_of(64, 1000))
    assert (entropy >= 0).all() and (entropy <= math.log(1000) + 1e-5).all()
    assert token_entropy(torch.zeros(1, 1)).item() == 0


def test_no_tokens_give_no_entropies():
    assert token_entropy(torch.zeros(0, 9)).shape == (0,)


def test_entropy_carries_no_gradient():
    logits = logits_of(3, 9).requires_grad_()
    assert not token_entropy(logits).requires_grad


def test_float32_logits_are_not_written_to():
    logits = logits_of(3, 9)
    before = logits.clone()
    token_entropy(logits)
    assert torch.equal(logits, before)


class LargestFloat32(TorchDispatchMode):
    """The number of elements of the largest float32 tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype is torch.float32:
            self.elements = max(self.elements, result.numel())
        return result


def test_no_float32_tensor_is_larger_than_one_chunk():
    logits = logits_of(64, 500).to(torch.bfloat16)
    with LargestFloat32() as largest:
        token_entropy(logits, chunk_tokens=8)
    assert largest.elements == 8 * 500


def test_the_mass_and_the_entropy_of_the_likeliest_tokens_by_hand():
    # p = 1/2, 1/4, 1/8, 1/8: the top 2 hold 3/4, and renormalised to 2/3 and 1/3 have ln 3 - 2/3 ln 2 nats
    logits = torch.tensor([[0.5, 0.125, 0.25, 0.125]]).log()
    facts = token_facts(logits, ["top_mass:2", "top_entropy:2", "top_mass:9", "entropy"])
    assert facts["top_mass:2"].tolist() == pytest.approx([0.75])
    assert facts["top_entropy:2"].tolist() == pytest.approx([math.log(3) - 2 / 3 * math.log(2)])
    assert facts["top_mass:9"].tolist() == pytest.approx([1.0])
    assert torch.equal(facts["entropy"], token_entropy(logits))


@pytest.mark.parametrize("chunk_tokens", [1, 3, 64])
def test_facts_do_not_depend_on_the_chunks(chunk_tokens):
    logits = torch.randn(7, 50, generator=torch.Generator().manual_seed(3))
    names = ("entropy", "top_mass:5", "top_entropy:5")
    whole, cut = token_facts(logits, names), token_facts(logits, names, chunk_tokens)
    assert all(torch.equal(whole[name], cut[name]) for name in names)
