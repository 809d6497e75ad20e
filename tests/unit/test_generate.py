"""Text of a tiny random Qwen2: against transformers' own, and against the exact distribution."""

import random
from collections.abc import Iterator

import pytest
import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from mifo_verl.cpu import generate as generate_module
from mifo_verl.cpu.generate import Completion, Request, generate, sample
from mifo_verl.cpu.kv_cache import ATTENTION

VOCAB = 32
PAD = 0


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["sdpa", ATTENTION])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCAB,
        initializer_range=0.5,
        eos_token_id=1,
        pad_token_id=PAD,
    )
    model = Qwen2ForCausalLM(config).eval()
    model.set_attn_implementation(request.param)
    return model


def prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(2, VOCAB), k=length))


def requests(num: int, **settings: float) -> list[Request]:
    """Three requests a prompt, of mixed lengths."""
    return [
        Request(prompt(place // 3, 3 + place // 3 % 5), 5 + place % 20, seed=place, **settings)  # type: ignore[arg-type]
        for place in range(num)
    ]


def teacher_forced(model: PreTrainedModel, request: Request, answer: Completion) -> torch.Tensor:
    ids = torch.tensor([[*request.prompt_ids, *answer.token_ids]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, len(request.prompt_ids) - 1 : -1]
    log_probs = torch.log_softmax(logits / (request.temperature or 1.0), -1)
    return log_probs.gather(1, torch.tensor(answer.token_ids)[:, None])[:, 0]


def test_greedy_equals_transformers(model: PreTrainedModel) -> None:
    asked = [Request(prompt(seed, 3 + seed), 12, temperature=0.0) for seed in range(6)]
    for request, answer in zip(asked, generate(model, asked, PAD, {1}, max_batch=4), strict=True):
        expected = model.generate(torch.tensor([request.prompt_ids]), max_new_tokens=12, do_sample=False)
        assert answer.token_ids == expected[0, len(request.prompt_ids) :].tolist()


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_log_probs_are_those_of_a_full_forward(model: PreTrainedModel, temperature: float) -> None:
    asked = requests(12, temperature=temperature, top_p=0.9)
    for request, answer in zip(asked, generate(model, asked, PAD, {1}, max_batch=12), strict=True):
        expected = teacher_forced(model, request, answer)
        torch.testing.assert_close(torch.tensor(answer.log_probs), expected, atol=1e-5, rtol=0)


def test_the_order_of_arrival_changes_no_bit(model: PreTrainedModel) -> None:
    asked = requests(30)
    expected = generate(model, asked, PAD, {1}, max_batch=8)
    order = random.Random(1).sample(range(30), 30)
    shuffled = generate(model, [asked[place] for place in order], PAD, {1}, max_batch=8)
    assert [expected[place] for place in order] == shuffled


def test_a_response_does_not_depend_on_its_neighbours_random_draws(model: PreTrainedModel) -> None:
    asked = requests(30)
    together = generate(model, asked, PAD, {1}, max_batch=30)
    for request, answer in zip(asked, together, strict=True):
        assert generate(model, [request], PAD, {1}, max_batch=1)[0].token_ids == answer.token_ids


def test_leaving_the_model_early_changes_no_token(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = generate(model, requests(30), PAD, {1}, max_batch=30)
    monkeypatch.setattr(generate_module, "FINISHED_SHARE", 2.0)  # nothing leaves
    slow = generate(model, requests(30), PAD, {1}, max_batch=30)
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in slow]
    assert len({len(answer.token_ids) for answer in answers}) > 5


def test_a_response_ends_at_an_end_token_or_at_max_tokens(model: PreTrainedModel) -> None:
    asked = requests(60)
    answers = generate(model, asked, PAD, {1, 5}, max_batch=60)
    for request, answer in zip(asked, answers, strict=True):
        ended = answer.token_ids[-1] in (1, 5)
        assert answer.stop_reason == ("completed" if ended else "length")
        assert ended or len(answer.token_ids) == request.max_tokens
        assert not {1, 5} & set(answer.token_ids[:-1])
        assert len(answer.log_probs) == len(answer.token_ids)
    assert {answer.stop_reason for answer in answers} == {"completed", "length"}


def test_no_end_token_is_a_possible_setting(model: PreTrainedModel) -> None:
    answers = generate(model, requests(6), PAD, (), max_batch=6)
    assert [len(answer.token_ids) for answer in answers] == [5, 6, 7, 8, 9, 10]


def test_seeds_that_differ_in_high_bits_alone_give_different_text(model: PreTrainedModel) -> None:
    asked = [Request(prompt(0, 4), 30, seed=seed) for seed in (7, 7 + 2**32, 7 + 2**62)]
    assert len({tuple(answer.token_ids) for answer in generate(model, asked, PAD, (), max_batch=3)}) == 3


def test_top_k_1_is_greedy(model: PreTrainedModel) -> None:
    greedy = generate(model, requests(6, temperature=0.0), PAD, {1}, max_batch=6)
    top_1 = generate(model, requests(6, top_k=1), PAD, {1}, max_batch=6)
    assert [answer.token_ids for answer in greedy] == [answer.token_ids for answer in top_1]


def shares(prob: list[float], temperature: float, top_p: float, top_k: int, num: int = 40_000) -> torch.Tensor:
    """How often each word is drawn, the uniform draws being an even grid."""
    uniform = (torch.arange(num) + 0.5) / num
    rows = torch.tensor(prob).log().expand(num, -1)
    full = (torch.full((num,), temperature), torch.full((num,), top_p), torch.full((num,), top_k))
    return sample(rows, uniform, *full)[0].bincount(minlength=len(prob)) / num


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k", "expected"),
    [
        (1.0, 1.0, -1, [0.1, 0.5, 0.15, 0.25]),
        (0.5, 1.0, 0, [0.01 / 0.345, 0.25 / 0.345, 0.0225 / 0.345, 0.0625 / 0.345]),  # squares
        (1.0, 1.0, 2, [0, 2 / 3, 0, 1 / 3]),
        (1.0, 0.7, -1, [0, 2 / 3, 0, 1 / 3]),  # 0.5 < 0.7 <= 0.75
        (1.0, 0.6, 2, [0, 1, 0, 0]),  # top_p is of what top_k leaves: 2/3 >= 0.6
        (1.0, 1e-6, -1, [0, 1, 0, 0]),
        (0.0, 1.0, -1, [0, 1, 0, 0]),
    ],
)
def test_words_are_drawn_as_often_as_their_probability(
    temperature: float, top_p: float, top_k: int, expected: list[float]
) -> None:
    drawn = shares([0.1, 0.5, 0.15, 0.25], temperature, top_p, top_k)
    torch.testing.assert_close(drawn, torch.tensor(expected, dtype=torch.float32), atol=1e-3, rtol=0)


def test_random_streams_follow_the_exact_softmax(model: PreTrainedModel) -> None:
    asked = [Request(prompt(0, 4), 1, seed=seed) for seed in range(4000)]
    answers = generate(model, asked, PAD, (), max_batch=4000)
    drawn = torch.tensor([answer.token_ids[0] for answer in answers]).bincount(minlength=VOCAB)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([asked[0].prompt_ids])).logits[0, -1].softmax(-1) * 4000
    likely = expected > 5
    chi_squared = ((drawn - expected) ** 2 / expected)[likely].sum()
    freedom = int(likely.sum())
    assert chi_squared < freedom + 4 * (2 * freedom) ** 0.5


def test_the_last_draw_never_falls_on_an_impossible_word() -> None:
    almost_one = torch.tensor([1 - 2**-24]).expand(50)
    logits = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0))
    logits[:, -3:] = -torch.inf
    token, log_prob = sample(logits, almost_one, torch.ones(50), torch.ones(50), torch.full((50,), -1))
    assert token.max() < 997
    assert log_prob.isfinite().all()


@pytest.mark.parametrize("wrong", [{"prompt_ids": ()}, {"max_tokens": 0}, {"top_p": 0.0}, {"temperature": -1.0}])
def test_a_request_refuses_what_makes_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        Request(**{"prompt_ids": (1,), "max_tokens": 1, **wrong})  # type: ignore[arg-type]
