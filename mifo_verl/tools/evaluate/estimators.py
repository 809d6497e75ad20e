"""Unbiased estimates for one question from n sampled responses: pass@k and maj@k, exact.

Both are means over all C(n, k) subsets of k of the n responses, counted with integers and not drawn.
"""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import comb

from mifo_verl.errors import require

CORRECT = "correct"
"""The vote of a response that the reward calls correct."""


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The share of subsets of k responses with a correct one: 1 - C(n-c, k) / C(n, k).

    Source: Chen et al. 2021 (arXiv 2107.03374), equation 1. Exact up to the last rounding to a float. Raises ValueError
    if not 1 <= k <= n or not 0 <= c <= n.
    """
    _require_sizes(num_samples, k)
    require(0 <= num_correct <= num_samples, "num_correct", num_correct, f"in [0, {num_samples}]", "count again")
    return float(1 - Fraction(comb(num_samples - num_correct, k), comb(num_samples, k)))


def majority_at_k(votes: Sequence[str | None], k: int) -> float:
    """The chance that the most frequent answer of k responses, drawn without replacement, is the correct one.

    ``votes`` holds one answer a response: ``CORRECT``, the wrong answer's text, or None, which is no vote. A tie is
    drawn by lot: t answers on top count 1/t each. A subset without any vote is wrong. Exact up to the last rounding.
    maj@k is the self-consistency of Wang et al. 2023 (arXiv 2203.11171). Raises ValueError if not 1 <= k <= n.
    """
    _require_sizes(len(votes), k)
    counts = Counter(votes)
    num_correct, num_silent = counts.pop(CORRECT, 0), counts.pop(None, 0)
    wrong = list(counts.values())
    won = sum(
        (_won_with(top, num_correct, num_silent, wrong, k) for top in range(1, min(num_correct, k) + 1)), Fraction(0)
    )
    return float(won / comb(len(votes), k))


def _won_with(top: int, num_correct: int, num_silent: int, wrong: Sequence[int], k: int) -> Fraction:
    """Subsets of k with ``top`` correct responses and no answer above them, each by its share of the lot."""
    rest = k - top
    # ways[tied][size]: subsets of the other responses of that size, in which ``tied`` wrong answers have ``top`` votes
    ways: list[list[int]] = [[comb(num_silent, size) for size in range(rest + 1)]]
    for count in wrong:
        grown = [[0] * (rest + 1) for _ in range(len(ways) + 1)]
        for tied, row in enumerate(ways):
            for size, number in enumerate(row):
                for votes in range(min(count, top, rest - size) + 1 if number else 0):
                    grown[tied + (votes == top)][size + votes] += number * comb(count, votes)
        ways = grown if any(grown[-1]) else grown[:-1]
    return comb(num_correct, top) * sum((Fraction(row[rest], tied + 1) for tied, row in enumerate(ways)), Fraction(0))


def _require_sizes(num_samples: int, k: int) -> None:
    require(
        1 <= k <= num_samples, "k", k, f"in [1, {num_samples}], the responses a question", "sample more, or lower k"
    )
