"""What the tools need of every record file: the read side of the schema, tolerant of older runs.

A field that is not listed here is passed on as it is. ``msgspec.convert(line, <type>)`` raises ValueError on a line
that lacks a field or has one of a wrong type; a bool is no number.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from mifo_verl.probes.columns import COUNTS, NORMS

Line = dict[str, Any]
Prompt = tuple[str, int, int]
"""Prompt id, correct rollouts, rollouts."""


class Record(msgspec.Struct, kw_only=True):
    """What every record of ``metrics.jsonl`` has."""

    step: int
    interval: int
    update: int
    buffer_size: int
    seconds: dict[str, float]
    probe: dict[str, float] | None = None


class Staged(msgspec.Struct):
    """Demonstrations that were trained on in the updates of an RL step."""

    demonstrations: int
    response_tokens: int
    kept_tokens: int
    ledger_sha256: str


class RlRecord(Record, kw_only=True, tag_field="phase", tag="rl"):
    """One RL step."""

    rollouts: int
    reward: float | None
    accuracy: float | None
    response_length: float | None
    kl_tokens: float | None = None
    members: int | None = None
    prefix_tokens: int | None = None
    members_sha256: str | None = None
    staged: Staged | None = None


class Mask(msgspec.Struct):
    num_frozen: int
    num_coordinates: int
    threshold: float | None


class SftRecord(Record, kw_only=True, tag_field="phase", tag="sft"):
    """One update of an SFT phase."""

    frozen_share: float
    demonstrations: int
    response_tokens: int
    kept_tokens: int
    loss: float | None
    grad_norm: float | None
    mask: Mask | None = None
    frozen_drift: float | None = None
    kl_to_before: float | None = None

    def __post_init__(self) -> None:
        if "sft" not in self.seconds:
            raise ValueError("seconds.sft is missing")


class LedgerLine(msgspec.Struct, kw_only=True):
    """One use of a demonstration. Older runs name no source, and have no lines of rollouts."""

    interval: int
    step: int
    prompt_id: str
    num_correct: int | None
    num_rollouts: int | None
    demonstration_sha256: str
    source: str = ""
    response_tokens: int
    kept_tokens: int
    kind: Literal["phase", "update", "rollout"] = "phase"


class PromptsLine(msgspec.Struct):
    interval: int
    step: int
    prompts: list[Prompt]


class Validation(msgspec.Struct):
    step: int
    accuracy: dict[str, Any]


class Origin(msgspec.Struct):
    checkpoint: str
    step: int
    interval: int
    prompts: list[Prompt]


class PhaseRow(msgspec.Struct):
    interval: int
    demonstrations: int
    response_tokens: int
    kept_tokens: int


class Seconds(msgspec.Struct):
    total: float


class Summary(msgspec.Struct):
    """Of a finished run; until then the file holds less."""

    sft_phases: list[PhaseRow]
    seconds: Seconds


class Memory(msgspec.Struct):
    step: int


class MaskTables(msgspec.Struct):
    """Columns over the layers and over the kinds of matrix, all of one length; older runs lack one of them."""

    by_layer: dict[str, list[Any]]
    by_kind: dict[str, list[Any]]

    def __post_init__(self) -> None:
        for by, columns in (("layer", self.by_layer), ("kind", self.by_kind)):
            if missing := sorted({by, *COUNTS, *NORMS} - columns.keys() - {"frozen_rl_visible"}):
                raise ValueError(f"by_{by}.{missing[0]} is missing")
            for name, column in columns.items():
                try:
                    msgspec.convert(column, list[str] if name == by else list[float])
                except msgspec.ValidationError as error:
                    raise ValueError(f"by_{by}.{name}: {error}") from None
            _require_length({f"by_{by}.{name}": column for name, column in columns.items()}, len(columns[by]))


class Threshold(msgspec.Struct):
    min: float
    median: float
    max: float


class Example(msgspec.Struct):
    """A demonstration, whole or its beginning: a text, an entropy and whether it is in the loss for every token."""

    prompt_id: str
    prompt: str
    tokens: list[str]
    entropy: list[float]
    kept: list[int]
    num_tokens: int

    def __post_init__(self) -> None:
        _require_length({"entropy": self.entropy, "kept": self.kept}, len(self.tokens))


class Tokens(msgspec.Struct):
    edges: Annotated[list[float], msgspec.Meta(min_length=1)]
    entropy: list[float]
    entropy_kept: list[float]
    position: list[float]
    position_kept: list[float]
    threshold: Threshold | None
    top_tokens: list[tuple[str, float, float]]
    """Text, times kept, times in all."""
    examples: list[Example]

    def __post_init__(self) -> None:
        _require_length({"entropy": self.entropy, "entropy_kept": self.entropy_kept}, len(self.edges) + 1)
        _require_length({"position_kept": self.position_kept}, len(self.position))


class Inspection(msgspec.Struct):
    """What was inspected of one SFT phase: a line of ``inspection.jsonl``."""

    interval: int
    mask: MaskTables | None
    tokens: Tokens | None


def _require_length(columns: Mapping[str, Sequence[Any]], length: int) -> None:
    for name, column in columns.items():
        if len(column) != length:
            raise ValueError(f"{name} has {len(column)} values, not {length}")
