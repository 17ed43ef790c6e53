"""Work that needs no load, divided so that some of it lies between loads."""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")


def in_groups(order: Sequence[T], num_loads: int) -> deque[Sequence[T]]:
    """Consecutive groups of about equal size, as many as there are loads, and no empty one; with no load one."""
    count = max(min(num_loads, len(order)), 1)
    bounds = [len(order) * index // count for index in range(count + 1)]
    return deque(order[first:last] for first, last in pairwise(bounds) if first < last)
