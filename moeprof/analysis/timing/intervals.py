"""How sure a median is, without assuming anything about the distribution of the rounds."""

from collections.abc import Sequence
from functools import cache
from typing import Any

CONFIDENCE = 0.95


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95% interval of the median by order statistics (scipy's quantile test); None for fewer than 6 values."""
    ends = places(len(values))
    if ends is None:
        return None
    ordered = sorted(values)
    return float(ordered[ends[0]]), float(ordered[ends[1]])


@cache
def places(num_values: int) -> tuple[int, int] | None:
    """Where the ends of the interval stand, from 0, among as many values in order: they depend on nothing else."""
    from scipy.stats import quantile_test

    interval: Any = quantile_test(range(num_values), q=0, p=0.5).confidence_interval(CONFIDENCE)
    return (int(interval.low), int(interval.high)) if interval.low == interval.low else None  # NaN where the values are too few
