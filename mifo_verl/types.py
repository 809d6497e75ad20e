"""The nouns that every part of mifo_verl shares. Standard library only."""

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

Share = float | str
"""A share in [0, 1] as the user typed it: ``0.125`` or ``"1/8"``."""


class Phase(str, Enum):
    """What a training step does."""

    RL = "rl"
    SFT = "sft"


@dataclass(frozen=True)
class Progress:
    """Where a run stands. All counts start at 0 except ``interval``, which starts at 1 (MIFO section 3)."""

    step: int
    """Training steps finished."""
    interval: int
    """The current interval i: one RL phase and the SFT phase that ends it."""
    rl_steps: int
    """RL steps finished in this interval."""


@dataclass(frozen=True)
class PromptGroup:
    """The rollouts of one prompt in one RL step, as integer counts."""

    prompt_id: str
    num_correct: int
    num_rollouts: int
    step: int


@dataclass(frozen=True)
class Demonstration:
    """A worked solution of one prompt, before verification."""

    prompt_id: str
    text: str
    answer: str
    source: str = "dataset"
    """Where it comes from: the data set, or the model that wrote it."""


@dataclass(frozen=True)
class SftExample:
    """A verified demonstration as token ids: the rollout's own prompt tokens, then the response with its end token."""

    prompt_id: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    demonstration_sha256: str
    source: str = "dataset"


@dataclass(frozen=True)
class BufferEntry:
    """One hard prompt in the SFT buffer, with where it came from."""

    group: PromptGroup | None
    """The rollouts that made the prompt hard; None where the prompt came from the data set without rollouts."""
    example: SftExample


def exact_share(name: str, value: Share) -> Fraction:
    """The share as the exact rational that the user typed (0.1 is 1/10, not the nearest float).

    Raises ValueError, naming the setting, where it is no number in [0, 1].
    """
    try:
        share = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name}={value} must be a share in [0, 1]; write it as 0.125 or '1/8'") from None
    if not 0 <= share <= 1:
        raise ValueError(f"{name}={value} must be a share in [0, 1]; write it as 0.125 or '1/8'")
    return share


def require_count(name: str, value: object, cure: str) -> None:
    """Raise ValueError where the value is no whole number of at least 1."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    require(whole and value >= 1, name, value, "a whole number of at least 1", cure)  # type: ignore[operator]


def require_positive(name: str, value: object, cure: str) -> None:
    """Raise ValueError where the value is no number above 0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    require(number and value > 0, name, value, "a number above 0", cure)  # type: ignore[operator]


def require(condition: bool, name: str, value: object, rule: str, cure: str) -> None:
    """Raise ValueError in the one form that every setting uses: name, value, rule, cure."""
    if not condition:
        raise ValueError(f"{name}={value} must be {rule}; {cure}")
