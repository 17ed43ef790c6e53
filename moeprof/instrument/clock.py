"""Clocks, which are injected everywhere, so that tests use a clock of their own."""

import time
from collections.abc import Callable

import torch

Clock = Callable[[], int]
"""Nanoseconds from an arbitrary start."""

wall_clock: Clock = time.perf_counter_ns


def synchronized(device: str) -> Clock:
    """A clock that first waits until `device` has finished its work."""
    if device == "cpu":
        return wall_clock

    def clock() -> int:
        torch.cuda.synchronize()
        return wall_clock()

    return clock
