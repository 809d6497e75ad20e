"""From a demonstration to the tokens that SFT trains on (MIFO section 3: (q, demonstration) joins B if it verifies)."""

import hashlib
from collections.abc import Callable, Sequence
from enum import Enum

from mifo_verl.types import Demonstration, SftExample


class Rejection(Enum):
    """Why a prompt has nothing to train on. The value is the word for logs and metrics."""

    MISSING = "missing"
    """The row has no demonstration."""
    WRONG = "wrong"
    """The demonstration's answer is not the ground truth."""
    TOO_LONG = "too_long"
    """The response does not fit; a demonstration is never cut."""


def build_example(
    prompt_ids: Sequence[int],
    demonstration: Demonstration | None,
    encode: Callable[[str], Sequence[int]],
    end_token_id: int,
    is_correct: Callable[[str, str], bool],
    max_response_tokens: int,
) -> SftExample | Rejection:
    """The verified demonstration as tokens, or the first reason against it, in the order missing, wrong, too long.

    ``prompt_ids`` are the rollout's own prompt tokens, taken as they are and not rendered again. The response is
    ``encode(text)``, which must add no special tokens, and ``end_token_id``; the end token counts towards
    ``max_response_tokens``. ``is_correct`` takes (text, ground truth).
    """
    if demonstration is None:
        return Rejection.MISSING
    if not is_correct(demonstration.text, demonstration.answer):
        return Rejection.WRONG
    response_ids = (*encode(demonstration.text), end_token_id)
    if len(response_ids) > max_response_tokens:
        return Rejection.TOO_LONG
    sha256 = hashlib.sha256(demonstration.text.encode()).hexdigest()
    return SftExample(demonstration.prompt_id, tuple(prompt_ids), response_ids, sha256, demonstration.source)
