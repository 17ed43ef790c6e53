"""Types of numpy arrays that several packages use in annotations."""

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def first_places(values_N: npt.NDArray[np.integer[Any]], number: int) -> Ints:
    """Where each of the values 0 to number - 1 occurs first, (number,); the number of values if it does not occur."""
    first = np.full(number, len(values_N), np.int64)
    begins_N = np.ones(len(values_N), bool)  # a run of equal values; runs are few
    begins_N[1:] = values_N[1:] != values_N[:-1]
    starts = np.flatnonzero(begins_N)[::-1]
    first[values_N[starts]] = starts  # of several, the one that is written last stays
    return first
