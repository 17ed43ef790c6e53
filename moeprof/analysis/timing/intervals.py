"""How sure a median is, without assuming anything about the distribution of the rounds."""

from collections.abc import Sequence
from typing import Any

CONFIDENCE = 0.95


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95% interval of the median by order statistics (scipy's quantile test); None for fewer than 6 values."""
    from scipy.stats import quantile_test

    interval: Any = quantile_test(values, q=0, p=0.5).confidence_interval(CONFIDENCE)
    low, high = float(interval.low), float(interval.high)
    return (low, high) if low == low and high == high else None  # NaN where the values are too few
