"""Time, injected: tests bring their own clock."""

import time
from collections.abc import Callable

import torch

Clock = Callable[[], int]
"""Nanoseconds from an arbitrary start."""

wall_clock: Clock = time.perf_counter_ns


def synchronized(device: str) -> Clock:
    """A clock that first waits until `device` has finished what it was given."""
    if device == "cpu":
        return wall_clock

    def clock() -> int:
        torch.cuda.synchronize()
        return wall_clock()

    return clock
