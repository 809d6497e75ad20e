"""A generation, and the name under which it is kept: what it depends on and nothing else."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

FIELDS = ("text", "num_tokens", "stop_reason")


@dataclass(frozen=True)
class Generation:
    """One response as text. Its stop reason is ``length`` where it was cut at the most tokens allowed."""

    text: str
    num_tokens: int
    stop_reason: Literal["completed", "length"]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Generation":
        """The generation of a line that was kept."""
        return cls(*(record[name] for name in FIELDS))


def generation_key(
    model_digest: str,
    benchmark: str,
    question_id: str,
    sample: int,
    prompt_ids: Sequence[int],
    sampling: Mapping[str, Any],
) -> str:
    """The key, 32 hex digits.

    ``sampling`` holds the settings that change the text: engine, dtype, temperature, top_p, max_tokens, seed. The
    template and the question's text are in ``prompt_ids``.
    """
    parts = [model_digest, benchmark, question_id, sample, list(prompt_ids), dict(sorted(sampling.items()))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
