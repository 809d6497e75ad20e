"""The tokens of one SFT phase: their entropies, where the kept ones stand, which they are, and a few whole texts."""

import bisect
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mifo_verl.types import SftExample

PER_DECADE = 8
LOW_DECADE, HIGH_DECADE = -4, 1
EDGES = tuple(10 ** (LOW_DECADE + step / PER_DECADE) for step in range((HIGH_DECADE - LOW_DECADE) * PER_DECADE + 1))
"""Upper edges (nats) of the histogram's bins but the last, which has none: from 0.0001 to 10, eight to a decade."""
POSITIONS = 20
"""Bins of the position in the response, from its first to its last token."""
_TOP = 30


@dataclass
class TokenSummary:
    """Grows demonstration by demonstration; the sums are over every pass of the phase."""

    num_examples: int
    """Demonstrations to keep whole: the first of the phase."""
    max_tokens: int
    """Tokens of a whole demonstration that are kept."""
    entropy: list[int] = field(default_factory=lambda: [0] * (len(EDGES) + 1))
    entropy_kept: list[int] = field(default_factory=lambda: [0] * (len(EDGES) + 1))
    position: list[int] = field(default_factory=lambda: [0] * POSITIONS)
    position_kept: list[int] = field(default_factory=lambda: [0] * POSITIONS)
    thresholds: list[float] = field(default_factory=list)
    tokens: dict[int, int] = field(default_factory=dict)
    """How often every token came."""
    kept: dict[int, int] = field(default_factory=dict)
    """How often it was kept."""
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, example: SftExample, entropy: Sequence[float], keep: Sequence[bool]) -> None:
        """Count one demonstration; one entropy (nats) and one flag a response token."""
        ids = example.response_ids
        for place, (token, value, kept) in enumerate(zip(ids, entropy, keep, strict=True)):
            bin_ = bisect.bisect_right(EDGES, value)
            where = place * POSITIONS // len(ids)
            self.entropy[bin_] += 1
            self.position[where] += 1
            self.tokens[token] = self.tokens.get(token, 0) + 1
            if kept:
                self.entropy_kept[bin_] += 1
                self.position_kept[where] += 1
                self.kept[token] = self.kept.get(token, 0) + 1
        self.thresholds.append(min((value for value, kept in zip(entropy, keep, strict=True) if kept), default=0.0))
        if len(self.examples) < self.num_examples:
            self.examples.append(
                {
                    "prompt_id": example.prompt_id,
                    "prompt": list(example.prompt_ids[-self.max_tokens :]),
                    "tokens": list(ids[: self.max_tokens]),
                    "entropy": [round(value, 4) for value in entropy[: self.max_tokens]],
                    "kept": [int(kept) for kept in keep[: self.max_tokens]],
                    "num_tokens": len(ids),
                }
            )

    def table(self, decode: Callable[[int], str]) -> dict[str, Any]:
        """What the report reads. ``threshold`` is the smallest entropy kept of a demonstration, over demonstrations."""
        top = sorted(self.kept.items(), key=lambda pair: (-pair[1], pair[0]))[:_TOP]
        return {
            "edges": list(EDGES),
            "entropy": self.entropy,
            "entropy_kept": self.entropy_kept,
            "position": self.position,
            "position_kept": self.position_kept,
            "threshold": _spread(self.thresholds),
            "top_tokens": [[decode(token), kept, self.tokens[token]] for token, kept in top],
            "examples": [
                example
                | {
                    "prompt": "".join(decode(token) for token in example["prompt"]),
                    "tokens": [decode(token) for token in example["tokens"]],
                }
                for example in self.examples
            ],
        }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}
