"""From a demonstration to the tokens that SFT trains on (MIFO section 3: (q, demonstration) joins B if it verifies)."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mifo_verl.types import Demonstration, Rejection, SftExample

_OPENED = re.compile(r"<think>(\s*)\Z")
_OPENING = re.compile(r"\s*<think>")
_TAIL_TOKENS = 32
"""Enough for an opening tag and the blanks behind it, even where a token is one byte."""


def build_example(
    prompt_ids: Sequence[int],
    demonstration: Demonstration | None,
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[Sequence[int]], str],
    end_token_id: int,
    is_correct: Callable[[str, str], bool],
    max_response_tokens: int,
) -> SftExample | Rejection:
    """The verified demonstration as tokens, or the first reason against it, in the order missing, wrong, too long.

    ``prompt_ids`` are the rollout's own prompt tokens, taken as they are and not rendered again. The response is
    ``encode(continuation(...))``, which must add no special tokens, and ``end_token_id``; the end token counts towards
    ``max_response_tokens``. ``decode`` must keep special tokens. ``is_correct`` takes (text, ground truth) and reads
    the whole text, as the hash does.
    """
    if demonstration is None:
        return Rejection.MISSING
    if not is_correct(demonstration.text, demonstration.answer):
        return Rejection.WRONG
    text = continuation(demonstration.text, decode(prompt_ids[-_TAIL_TOKENS:]))
    response_ids = (*encode(text), end_token_id)
    if len(response_ids) > max_response_tokens:
        return Rejection.TOO_LONG
    sha256 = hashlib.sha256(demonstration.text.encode()).hexdigest()
    return SftExample(demonstration.prompt_id, tuple(prompt_ids), response_ids, sha256, demonstration.source)


def with_teacher(example: SftExample, found: Mapping[str, Any] | None) -> SftExample | Rejection:
    """The example with those of a row's ``target_log_probs``; NO_TEACHER if they are of other tokens."""
    if not found or found["tokens_sha256"] != tokens_sha256(example.response_ids):
        return Rejection.NO_TEACHER
    return replace(example, teacher_log_probs=tuple(map(float, found["values"])))


def tokens_sha256(ids: Sequence[int]) -> str:
    """A digest of token ids: another tokenizer, template or text gives another one."""
    return hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()


def continuation(text: str, prompt: str) -> str:
    """The demonstration as it goes on after a rendered prompt, of which the end is enough.

    A chat template may open ``<think>`` itself. A demonstration that opens it too loses its own tag, and the blanks
    behind it where the prompt has blanks there. A prompt that ends in any other way, an empty block
    ``<think></think>`` for instance, leaves the text as it is.
    """
    opened, opening = _OPENED.search(prompt), _OPENING.match(text)
    if opened is None or opening is None:
        return text
    rest = text[opening.end() :]
    return rest.lstrip() if opened[1] else rest
