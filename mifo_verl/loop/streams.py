"""The names and seeds of random streams: the same parts, the same draws, in training, validation and evaluation.

A stream is named by the training step and the uid of the prompt; in validation and evaluation by the prompt itself, so
that two models are asked with the same draws and their difference is the weights' alone.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any


def stable_seed(*parts: object) -> int:
    """A seed in [0, 2**63) that depends on the parts alone, and is the same in every process."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def training_streams(global_steps: int, uids: Sequence[str]) -> list[str]:
    """The name of each prompt's stream in training."""
    return [f"train/{global_steps}/{uid}" for uid in uids]


def validation_streams(prompts: Sequence[Any], indices: Sequence[Any]) -> list[str]:
    """The name of each prompt's stream in validation: its messages, its ``index`` in the data set and, for rows that
    agree in both, which of them it is. Raises TypeError on messages that are not text."""
    seen: Counter[str] = Counter()
    streams = []
    for prompt, index in zip(prompts, indices, strict=True):
        name = f"val/{stable_seed(prompt, str(index))}"
        streams.append(f"{name}/{seen[name]}")
        seen[name] += 1
    return streams
