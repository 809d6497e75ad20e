"""The overlap of two sets of coordinates, and the overlap that chance gives sets of their sizes."""

from collections.abc import Sequence


def jaccard(first: int, second: int, both: int) -> float | None:
    """|A and B| / |A or B| from the sizes of A, B and their intersection; None where both are empty."""
    union = first + second - both
    return both / union if union else None


def chance_jaccard(sizes: Sequence[int], first: Sequence[int], second: Sequence[int]) -> float | None:
    """What independent draws give, with as many coordinates in A and in B as ``first`` and ``second`` of each part.

    With one part this is the chance for two masks of these shares; with a part a layer, for masks that are also spread
    over the layers as these are. The expected intersection of a part of n coordinates is first * second / n.
    """
    both = sum(a * b / n for n, a, b in zip(sizes, first, second, strict=True) if n)
    union = sum(first) + sum(second) - both
    return both / union if union else None
