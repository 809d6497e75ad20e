"""The policy's own correct rollouts of an interval: a bounded sample, and each update's turn of it. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mifo_verl.types import SftExample


@dataclass(frozen=True)
class OwnRollout:
    """One that is kept for the SFT phase."""

    order: int
    """Drawn by its name alone: the sample is those of the smallest numbers, whatever came first."""
    example: SftExample
    """Its prompt and response; ``teacher_log_probs`` are its own policy's."""


def sample(
    kept: Sequence[OwnRollout],
    found: Iterable[int],
    size: int,
    read: Callable[[list[int]], Iterable[SftExample | None]],
) -> list[OwnRollout]:
    """The ``size`` of the smallest orders of those kept and those found now, in this order.

    Every set of them is equally likely. Only those that stay are ``read``; None is one that cannot be trained on.
    """
    orders = [one.order for one in kept]
    taken = sorted(set(sorted([*orders, *found])[:size]) - set(orders))
    new = [OwnRollout(order, example) for order, example in zip(taken, read(taken), strict=True) if example is not None]
    return sorted([*kept, *new], key=lambda one: one.order)[:size]


def turn(rows: Sequence[Any], first: int, number: int) -> list[Any]:
    """``number`` rows from place ``first`` on, again from the start behind the last, and none twice."""
    return [rows[(first + place) % len(rows)] for place in range(min(number, len(rows)))]
