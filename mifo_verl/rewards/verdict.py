"""What a reward says of one response: score and correctness apart, and how it came to them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_MOST_CHARS = 1000


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check. A check that could not be carried through is wrong, with the reason in ``error``."""

    score: float
    correct: bool
    extracted: str | None = None
    """What was read as the answer, at most 1,000 characters; None where nothing was."""
    seconds: float = 0.0
    """Wall seconds that the check took, without waiting for a free worker."""
    error: str | None = None
    """Why there is no real verdict: ``cpu limit``, ``wall clock``, ``crashed``, or the exception's name."""

    def as_reward(self) -> dict[str, float]:
        """What verl's reward workers take: ``score``, and ``acc``, the correctness, 1 or 0."""
        return {"score": self.score, "acc": int(self.correct)}


def binary(correct: bool, extracted: str | None, seconds: float = 0.0, error: str | None = None) -> Verdict:
    """The verdict of a reward that is 1 where the answer is correct and 0 where it is not."""
    return Verdict(float(correct), correct, shortened(extracted), seconds, error)


def reward_function(verdict: Callable[[str, str, bool], Verdict]) -> Callable[..., dict[str, float]]:
    """A rule ``(text, answer, require_think)`` as verl's reward workers call it."""

    def compute_score(
        data_source: str,
        solution_str: str,
        ground_truth: str,
        extra_info: dict[str, Any] | None = None,
        require_think: bool = False,
        **_: Any,
    ) -> dict[str, float]:
        """``score`` 1.0 or 0.0, and ``acc``, the correctness, 1 or 0: apart, so that no one reads one off the other."""
        return verdict(solution_str, str(ground_truth), require_think).as_reward()

    return compute_score


def shortened(text: str | None) -> str | None:
    """The first 1,000 characters."""
    return text if text is None else text[:_MOST_CHARS]
