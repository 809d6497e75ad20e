"""Errors in one form, ``setting=value must be rule; cure``, and the checks of values that write them.

Standard library only.
"""

from difflib import get_close_matches
from fractions import Fraction
from math import inf
from typing import TypeGuard

from mifo_verl.types import Share

RENAMED = {"freeze": "constraint", "prompt_selector": "gate", "sparsify": "constraint"}
"""Groups and nodes of mifo by the names of earlier versions."""


def nearest(word: str, choices: list[str], cutoff: float = 0.6) -> str:
    """' (did you mean X?)' for the choice that looks most like ``word``, or '' if none does."""
    plain = {choice.casefold(): choice for choice in choices}
    match = get_close_matches(word.casefold(), list(plain), n=1, cutoff=cutoff)
    return f" (did you mean {plain[match[0]]}?)" if match else ""


def require(condition: bool, name: str, value: object, rule: str, cure: str) -> None:
    """Raise ValueError in the one form that every setting uses: name, value, rule, cure."""
    if not condition:
        raise ValueError(f"{name}={value} must be {rule}; {cure}")


def require_whole(name: str, value: object, cure: str, at_least: int = 0) -> None:
    """Raise ValueError if the value is no whole number of at least ``at_least``."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    require(whole and value >= at_least, name, value, f"a whole number of at least {at_least}", cure)  # type: ignore[operator]


def require_count(name: str, value: object, cure: str) -> None:
    """Raise ValueError if the value is no whole number of at least 1."""
    require_whole(name, value, cure, at_least=1)


def is_number(value: object) -> TypeGuard[float]:
    """Whether the value is an int or a float; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def require_positive(name: str, value: object, cure: str) -> None:
    """Raise ValueError if the value is no number above 0."""
    require(is_number(value) and value > 0, name, value, "a number above 0", cure)


def require_number(name: str, value: object, at_least: float, cure: str) -> None:
    """Raise ValueError if the value is no finite number of at least ``at_least``."""
    rule = f"a finite number of at least {at_least:g}"
    require(is_number(value) and at_least <= value < inf, name, value, rule, cure)


def require_choice(name: str, value: object, choices: tuple[str, ...], cure: str = "choose one of them") -> None:
    """Raise ValueError, with the choice that looks alike, if the value is none of ``choices``."""
    require(value in choices, name, value, f"one of {', '.join(choices)}{nearest(str(value), list(choices))}", cure)


def exact_share(name: str, value: Share) -> Fraction:
    """The share as the exact rational that the user typed (0.1 is 1/10, not the nearest float).

    Raises ValueError, naming the setting, if it is no number in [0, 1].
    """
    try:
        share = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name}={value} must be a share in [0, 1]; write it as 0.125 or '1/8'") from None
    if not 0 <= share <= 1:
        raise ValueError(f"{name}={value} must be a share in [0, 1]; write it as 0.125 or '1/8'")
    return share
