"""Bootstrap intervals of figures that are functions of sums over rows.

Every figure of a report (a mean, a share, corpus BLEU) depends on its rows through a few sums. A
resample is then a vector of how often each row was drawn, and all of its sums are one product.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
_SEED = 0
_AT_A_TIME = 64  # resamples whose draw counts are in memory together


def resampled_sums(statistics: np.ndarray) -> np.ndarray:
    """The sums of every statistic over R = 1000 resamples of the rows, drawn with replacement.

    Args:
        statistics: float64 [N, K], one row for each row of the data.

    Returns:
        float64 [R, K]; the same for the same input.
    """
    rows = len(statistics)
    random = np.random.default_rng(_SEED)
    sums = np.zeros((RESAMPLES, statistics.shape[1]))
    for first in range(0, RESAMPLES if rows else 0, _AT_A_TIME):
        count = min(_AT_A_TIME, RESAMPLES - first)
        draws = np.stack(
            [np.bincount(random.integers(0, rows, rows), minlength=rows) for _ in range(count)]
        )
        sums[first : first + count] = draws @ statistics
    return sums


def interval(
    sums: np.ndarray, figure: Callable[[np.ndarray], float | None]
) -> tuple[float, float] | None:
    """The percentile interval of a figure (Efron and Tibshirani 1993, chapter 13).

    Args:
        sums: float64 [R, K], from `resampled_sums`.
        figure: the sums [K] of one resample -> the figure; None where it is not defined.

    Returns:
        Ends of the central 95 %, None where no resample defines the figure.
    """
    values = [value for one in sums if (value := figure(one)) is not None]
    if not values:
        return None
    tail = (1 - LEVEL) / 2
    if not np.isfinite(values).all():  # between infinities there is no interpolation
        values.sort()
        last = len(values) - 1
        return values[math.floor(tail * last)], values[math.ceil((1 - tail) * last)]
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
