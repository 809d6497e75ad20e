"""Mean and 95 % confidence interval over seeds, with Student's t."""

import math
import statistics
from collections.abc import Sequence

_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_T_FROM_11 = (2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)
"""97.5 % quantiles of t with 1 to 20 degrees of freedom; beyond, the series below is right to 0.001."""


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t with ``freedom`` degrees of freedom (at least 1)."""
    table = _T + _T_FROM_11
    if freedom <= len(table):
        return table[freedom - 1]
    z = 1.959964  # the first terms of the expansion of t around the normal quantile
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """(mean, half the width of its 95 % interval); no width for a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    return mean, t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
