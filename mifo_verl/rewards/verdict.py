"""What a reward says of one response: score and correctness apart, and how it came to them."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
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
    method: str = "letters"
    """How answers were compared: ``value`` by mathematics, ``letters`` where letters are what counts, ``none`` without
    an answer, and ``text``, the fallback: an answer could not be read, so its letters had to do."""

    def as_reward(self) -> dict[str, Any]:
        """What verl's reward workers take: ``score``; ``acc``, the correctness, 1 or 0; and the ``method``."""
        return {"score": self.score, "acc": int(self.correct), "method": self.method}


def binary(
    correct: bool, extracted: str | None, seconds: float = 0.0, error: str | None = None, method: str = "letters"
) -> Verdict:
    """The verdict of a reward that is 1 if the answer is correct and 0 if it is not."""
    return Verdict(float(correct), correct, shortened(extracted), seconds, error, method)


def reward_function(
    verdict: Callable[..., Verdict],
    answer_of: Callable[[Any], str] | None = None,
    is_readable: Callable[[str], bool] | None = None,
) -> Callable[..., dict[str, Any]]:
    """A rule ``(text, answer, require_think=, ...)`` as verl's reward workers call it.

    Of ``reward_kwargs`` the rule gets those that it takes, and as answer the ground truth or ``answer_of(extra_info)``.
    ``is_readable`` says of an answer whether the rule can read it; the checks find it as an attribute.
    """
    taken = set(signature(verdict).parameters)

    def compute_score(
        data_source: str,
        solution_str: str,
        ground_truth: str,
        extra_info: dict[str, Any] | None = None,
        require_think: bool = False,
        **others: Any,
    ) -> dict[str, Any]:
        """``score``, and ``acc``, the correctness, 1 or 0: apart, so that none is read off the other; ``method``."""
        given = {name: value for name, value in others.items() if name in taken}
        answer = answer_of(extra_info) if answer_of else str(ground_truth)
        return verdict(solution_str, answer, require_think, **given).as_reward()

    compute_score.is_readable = is_readable  # type: ignore[attr-defined]
    return compute_score


def shortened(text: str | None) -> str | None:
    """The first 1,000 characters."""
    return text if text is None else text[:_MOST_CHARS]
