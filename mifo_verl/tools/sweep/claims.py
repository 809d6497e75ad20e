"""What can be claimed of a difference, in words."""

from mifo_verl.tools.sweep.differences import Difference
from mifo_verl.tools.sweep.numbers import ACCURACY

_EQUAL_COMPUTE = 1.1
"""The largest ratio of mean FLOPs that counts as equal: a budget's last step is a whole one."""


def is_share(number: str) -> bool:
    """Whether a number is an accuracy, of which a difference is told in points."""
    return "accuracy" in number or number == "gain"


def claim(one: Difference) -> str:
    """What can be claimed of a difference, and what cannot; of an exploratory one nothing can."""
    scale, unit = (100.0, " points") if is_share(one.number) else (1.0, "")
    value = one.paired
    what = "" if one.number == ACCURACY else f" in {one.number}"
    if value.low is None or value.high is None:
        return f"{one.first} - {one.second}{what}: {scale * value.mean:+.3g}{unit} for one seed: no claim."
    ends = f"[{scale * value.low:+.3g}, {scale * value.high:+.3g}]"
    told = f"{one.first} - {one.second}{what}: {scale * value.mean:+.3g}{unit} {ends}, {value.num_seeds} seeds"
    if not one.is_primary:
        return f"{told}: exploratory, no claim."
    if value.is_degenerate:
        return f"{told}: the same difference for every seed, which no interval can be made of: no claim."
    assert one.corrected.half_width is not None
    least = f"A difference below {scale * one.corrected.half_width:.3g}{unit} could not have been claimed."
    at = _at_compute(one.compute_ratio)
    if not value.excludes_zero():
        most = scale * max(-value.low, value.high)
        return f"{told}: no claim{at}; the interval allows up to {most:.2g}{unit} in size. {least}"
    word = ("higher" if value.mean > 0 else "lower") + at
    if not one.corrected.excludes_zero():
        return f"{told}: {word}, read alone; among the {one.num_tests} tests of the plan no claim (Bonferroni). {least}"
    return f"{told}: {word}. {least}"


def _at_compute(ratio: float | None) -> str:
    """Nothing at equal compute."""
    if ratio is None:
        return " at a compute that the records do not tell"
    if ratio > 0 and max(ratio, 1 / ratio) <= _EQUAL_COMPUTE:
        return ""
    return f" at {ratio:.3g} times the compute"
