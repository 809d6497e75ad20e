"""Hints: all rollouts of a question begin with the same first steps of its demonstration (UFT, arXiv 2505.16984).

A segment is one of ``segments`` parts of the demonstration's steps, or a step where it has fewer. The three schedules
are those of UFT's code: ``uft``, ``stage`` and ``r3``.
"""

import random as random_numbers
from dataclasses import dataclass

from mifo_verl.errors import exact_share, require, require_count
from mifo_verl.method.prefix import PREFIXES, Prefix, Session, cosine
from mifo_verl.types import Share


class Hint(Prefix):
    """All sessions begin with the same first k of up to ``segments`` segments of the demonstration."""

    segments: int

    def __post_init__(self) -> None:
        require_count("segments", self.segments, "UFT has 5")

    def number(self, step: int, segments: int, seed: int) -> int:
        """k after ``step`` finished steps, from 0 to ``segments``."""
        raise NotImplementedError

    def __call__(self, session: Session, num_correct: int) -> int:
        num_steps = len(session.step_ends)
        segments = min(self.segments, num_steps)
        k = self.number(session.progress.step, segments, session.seed)
        return session.step_ends[round(k / segments * num_steps) - 1] if k else 0


@PREFIXES.register("annealed")
@dataclass(frozen=True)
class Annealed(Hint):
    """k ~ Binomial(segments, p), p falling from ``high`` to ``low`` by a cosine (UFT, 2505.16984 and code).

    Behind ``steps`` steps nothing is given.
    """

    high: Share = 0.95
    low: Share = 0.05
    steps: int = 300
    segments: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = exact_share("low", self.low), exact_share("high", self.high)
        require(low <= high, "low", self.low, f"at most high={self.high}", "swap them")
        require_count("steps", self.steps, "UFT gives hints in 300 of 500 steps")

    def p_at(self, step: int) -> float:
        """The chance of each segment after ``step`` finished steps."""
        low, high = float(exact_share("low", self.low)), float(exact_share("high", self.high))
        return 0.0 if step > self.steps else cosine(high, low, step / self.steps)

    def number(self, step: int, segments: int, seed: int) -> int:
        p, draw = self.p_at(step), random_numbers.Random(seed)
        return sum(draw.random() < p for _ in range(segments))

    def describe(self) -> str:
        return f"all rollouts begin with the same steps of the demonstration, {self.high} to {self.low} of them"


@PREFIXES.register("stepwise")
@dataclass(frozen=True)
class Stepwise(Hint):
    """All segments at first, then one less after every ``steps`` / (segments + 1) steps (``stage`` in UFT's code)."""

    steps: int = 300
    segments: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("steps", self.steps, "UFT gives hints in 300 of 500 steps")

    def number(self, step: int, segments: int, seed: int) -> int:
        return max(0, segments - step * (segments + 1) // self.steps)

    def describe(self) -> str:
        return f"all rollouts begin with the demonstration, one step of {self.segments} less from stage to stage"


@PREFIXES.register("uniform")
@dataclass(frozen=True)
class Uniform(Hint):
    """k uniform on 0 .. segments, over the whole run: R3's curriculum in UFT's code (``r3``, arXiv 2402.05808)."""

    segments: int = 5

    def number(self, step: int, segments: int, seed: int) -> int:
        return random_numbers.Random(seed).randrange(segments + 1)

    def describe(self) -> str:
        return f"all rollouts begin with the same 0 to {self.segments} of {self.segments} steps of the demonstration"
