"""Text of a causal language model for many prompts at once, on a CPU. torch and transformers only.

The result is a function of the set of requests: each draws from its own random stream, made of its seed alone, and
batches are cut from one order, that of the requests' contents. The order in which they arrive changes no bit.
Shapes: B requests of a batch, b those of them still in the model, T response positions, P prompt positions, V words.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from mifo_verl.cpu.kv_cache import new_cache

FINISHED_SHARE = 1 / 8
"""Finished rows leave the model as soon as they are this share of its rows."""


@dataclass(frozen=True, order=True)
class Request:
    """One response to sample. Temperature 0 is greedy; ``top_k`` below 1 keeps every word."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1

    def __post_init__(self) -> None:
        _require(len(self.prompt_ids) > 0, "prompt_ids", self.prompt_ids, "at least one token")
        _require(self.max_tokens >= 1, "max_tokens", self.max_tokens, "at least 1")
        _require(self.seed >= 0, "seed", self.seed, "at least 0")
        _require(self.temperature >= 0, "temperature", self.temperature, "at least 0")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "in (0, 1]")


def _require(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise ValueError(f"sampling: {name}={value} must be {rule}")


@dataclass(frozen=True)
class Completion:
    """A response with the log-probability of each token in the whole distribution at the request's temperature
    (1 where it is 0). ``completed`` ends with an end token, ``length`` at ``max_tokens``; ``aborted`` never began."""

    token_ids: list[int]
    log_probs: list[float]
    stop_reason: Literal["completed", "length", "aborted"]


def batches(requests: Sequence[Request], max_batch: int) -> list[list[int]]:
    """Places in ``requests``, cut into batches: like lengths together, and equal prompts side by side."""
    order = sorted(range(len(requests)), key=lambda place: (len(requests[place].prompt_ids), requests[place]))
    return [order[first : first + max_batch] for first in range(0, len(order), max_batch)]


def generate(
    model: PreTrainedModel,
    requests: Sequence[Request],
    pad_token_id: int,
    eos_token_ids: Collection[int],
    max_batch: int,
) -> list[Completion]:
    """A completion for each request, in their order; at most ``max_batch`` rows are in the model at a time."""
    completions: dict[int, Completion] = {}
    for places in batches(requests, max_batch):
        batch = [requests[place] for place in places]
        completions.update(zip(places, generate_batch(model, batch, pad_token_id, eos_token_ids), strict=True))
    return [completions[place] for place in range(len(requests))]


@torch.inference_mode()
def generate_batch(
    model: PreTrainedModel,
    requests: Sequence[Request],
    pad_token_id: int,
    eos_token_ids: Collection[int],
    on_end: Callable[[int, Completion], None] | None = None,
) -> list[Completion]:
    """A completion for each request of one batch, in their order; ``on_end(place, completion)`` gets each at once."""
    responses = _Responses(requests, eos_token_ids)
    uniform_BT = _random_streams(requests)
    temperature_B = torch.tensor([request.temperature for request in requests])
    top_p_B = torch.tensor([request.top_p for request in requests])
    top_k_B = torch.tensor([request.top_k for request in requests])
    prompt_tokens_B = torch.tensor([len(request.prompt_ids) for request in requests])

    logits_bV, cache, prompt_mask_BP = _read_prompts(model, requests, pad_token_id)
    mask_bL = torch.cat([prompt_mask_BP, torch.ones(uniform_BT.shape, dtype=torch.bool)], dim=1)
    rows_b = torch.arange(len(requests))
    for step in range(uniform_BT.shape[1]):
        settings = (temperature_B[rows_b], top_p_B[rows_b], top_k_B[rows_b])
        token_b, log_prob_b = sample(logits_bV, uniform_BT[rows_b, step], *settings)
        going_on_b = responses.append(rows_b, step, token_b, log_prob_b)
        if on_end is not None:
            for row in responses.ended_at(step):
                on_end(row, responses.completion(row))
        kept = going_on_b.nonzero()[:, 0]
        if len(kept) == 0:
            break
        if len(kept) <= (1 - FINISHED_SHARE) * len(rows_b):
            rows_b, token_b, mask_bL = rows_b[kept], token_b[kept], mask_bL[kept]
            cache.batch_select_indices(kept)
        logits_bV = model(
            input_ids=token_b[:, None],
            attention_mask=mask_bL[:, : prompt_mask_BP.shape[1] + step + 1],
            position_ids=(prompt_tokens_B[rows_b] + step)[:, None],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    return responses.completions()


class _Responses:
    """The responses of a batch, as far as they have come."""

    def __init__(self, requests: Sequence[Request], eos_token_ids: Collection[int]) -> None:
        self.max_tokens_B = torch.tensor([request.max_tokens for request in requests])
        self.eos = torch.tensor(sorted(eos_token_ids), dtype=torch.long)
        self.token_BT = torch.zeros(len(requests), int(self.max_tokens_B.max()), dtype=torch.long)
        self.log_prob_BT = torch.zeros(self.token_BT.shape)
        self.num_tokens_B = torch.zeros(len(requests), dtype=torch.long)  # 0 while the response goes on
        self.completed_B = torch.zeros(len(requests), dtype=torch.bool)

    def append(self, rows_b: Tensor, step: int, token_b: Tensor, log_prob_b: Tensor) -> Tensor:
        """going_on_b after one more token in each of the rows; of rows that have ended it is ignored."""
        self.token_BT[rows_b, step], self.log_prob_BT[rows_b, step] = token_b, log_prob_b
        going_on_b = self.num_tokens_B[rows_b] == 0
        at_eos_b = torch.isin(token_b, self.eos)
        ends_b = going_on_b & (at_eos_b | (self.max_tokens_B[rows_b] == step + 1))
        self.num_tokens_B[rows_b[ends_b]] = step + 1
        self.completed_B[rows_b[ends_b & at_eos_b]] = True
        return going_on_b & ~ends_b

    def ended_at(self, step: int) -> list[int]:
        """The rows whose last token is that of this step."""
        return (self.num_tokens_B == step + 1).nonzero()[:, 0].tolist()

    def completion(self, row: int) -> Completion:
        """The response of a row that has ended."""
        end, completed = int(self.num_tokens_B[row]), bool(self.completed_B[row])
        tokens, log_probs = self.token_BT[row, :end].tolist(), self.log_prob_BT[row, :end].tolist()
        return Completion(tokens, log_probs, "completed" if completed else "length")

    def completions(self) -> list[Completion]:
        return [self.completion(row) for row in range(len(self.num_tokens_B))]


def _random_streams(requests: Sequence[Request]) -> Tensor:
    """uniform_BT in [0, 1), float32. Not torch's generator: it drops all but the lowest 32 bits of a seed."""
    uniform_BT = torch.zeros(len(requests), max(request.max_tokens for request in requests))
    for uniform_T, request in zip(uniform_BT, requests, strict=True):
        if request.temperature > 0:
            draws = np.random.Generator(np.random.Philox(request.seed)).random(request.max_tokens, dtype=np.float32)
            uniform_T[: request.max_tokens] = torch.from_numpy(draws)
    return uniform_BT


def _read_prompts(
    model: PreTrainedModel, requests: Sequence[Request], pad_token_id: int
) -> tuple[Tensor, Cache, Tensor]:
    """logits_BV after each prompt, the cache, and mask_BP of the prompts, padded on the left. Equal prompts are
    read once."""
    place_of = {prompt: place for place, prompt in enumerate(dict.fromkeys(r.prompt_ids for r in requests))}
    longest = max(map(len, place_of))
    ids = torch.tensor([[pad_token_id] * (longest - len(prompt)) + list(prompt) for prompt in place_of])
    lengths = torch.tensor([len(prompt) for prompt in place_of])
    mask = torch.arange(longest) >= longest - lengths[:, None]
    cache = new_cache(model)
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.long().cumsum(1) - 1).clamp_(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    places_B = torch.tensor([place_of[request.prompt_ids] for request in requests])
    cache.batch_select_indices(places_B)
    return logits[places_B], cache, mask[places_B]


def sample(
    logits_BV: Tensor, uniform_B: Tensor, temperature_B: Tensor, top_p_B: Tensor, top_k_B: Tensor
) -> tuple[Tensor, Tensor]:
    """token_B and its log_prob_B, float32: the inverse of the cumulative distribution at ``uniform_B`` in [0, 1).

    Of the distribution at the row's temperature the ``top_k`` likeliest words stay, and of these the fewest whose
    probability reaches ``top_p``. Where the temperature is 0, the likeliest word.
    """
    greedy_B = temperature_B == 0
    log_prob_BV = torch.log_softmax(logits_BV.float() / torch.where(greedy_B, 1.0, temperature_B)[:, None], dim=-1)
    if bool(greedy_B.all()):
        token_B1 = logits_BV.argmax(-1, keepdim=True)
        return token_B1[:, 0], log_prob_BV.gather(1, token_B1)[:, 0]
    prob_BV = log_prob_BV.exp()
    word_BV = None
    if bool(((top_p_B < 1) | (top_k_B > 0)).any()):
        prob_BV, word_BV = prob_BV.sort(dim=-1, descending=True, stable=True)
        rank_V = torch.arange(prob_BV.shape[1])
        prob_BV[(top_k_B > 0)[:, None] & (rank_V >= top_k_B[:, None])] = 0.0
        before_BV = prob_BV.cumsum(-1) - prob_BV
        prob_BV[(top_p_B < 1)[:, None] & (before_BV >= top_p_B[:, None] * prob_BV.sum(-1, keepdim=True))] = 0.0
    cumulative_BV = prob_BV.cumsum(-1)
    total_B1 = cumulative_BV[:, -1:]
    # rounding must not carry the point up to the total, past the last word of a probability above 0
    point_B1 = torch.minimum(uniform_B[:, None] * total_B1, torch.nextafter(total_B1, torch.zeros(1)))
    place_B1 = torch.searchsorted(cumulative_BV, point_B1, right=True)
    token_B1 = place_B1 if word_BV is None else word_BV.gather(1, place_B1)
    token_B1 = torch.where(greedy_B[:, None], logits_BV.argmax(-1, keepdim=True), token_B1)
    return token_B1[:, 0], log_prob_BV.gather(1, token_B1)[:, 0]
