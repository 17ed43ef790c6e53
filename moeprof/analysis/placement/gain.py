"""How sure it is that a placement lowers the mean load of the busiest device, and whether it is worth it.

Steps are drawn anew in blocks of neighbours, the same ones for every layer and both placements, because a step resembles the one
before it, and layers share their tokens (circular block bootstrap; Politis and Romano 1992).

Shape suffixes: R resamples, B steps of all layers, L layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np

from moeprof.analysis.routing.load_matrix import Counts
from moeprof.records.arrays import Floats

RESAMPLES, CONFIDENCE = 1000, 0.95

WORTH = 0.05
"""A placement that lowers the load by less is not worth a move of weights."""

FEWEST = 10
"""Test steps below which nothing is said."""

Recommendation = Literal["recommended", "not recommended", "too little evidence"]


@dataclass(frozen=True)
class Gain:
    """By what fraction `avg_max_load` falls, mean over layers, with the ends of its interval."""

    value: float
    low: float
    high: float
    steps: int

    @property
    def verdict(self) -> Recommendation:
        """Whether the interval lies on one side of WORTH."""
        if self.steps >= FEWEST and self.low > WORTH:
            return "recommended"
        return "not recommended" if self.steps >= FEWEST and self.high < WORTH else "too little evidence"

    @property
    def steps_needed(self) -> int | None:
        """Test steps after which an interval of this spread would lie on one side; None where no number of steps would do."""
        reach, distance = (self.high - self.low) / 2, abs(self.value - WORTH)
        if self.steps < FEWEST or not reach:
            return FEWEST
        return None if distance < reach / 100 else max(FEWEST, ceil(self.steps * (reach / distance) ** 2))


def gain(steps: Sequence[Counts], before: Sequence[Floats], after: Sequence[Floats], *, seed: int = 0) -> Gain:
    """Of the busiest device's shares in each layer's steps, the numbers of which stand in `steps`; the same on every call."""
    known_B = np.unique(np.concatenate(steps))
    before_BL, after_BL, present_BL = (np.zeros((len(known_B), len(steps))) for _ in range(3))
    for layer, (own, *values) in enumerate(zip(steps, before, after, strict=True)):
        rows = np.searchsorted(known_B, own)
        present_BL[rows, layer] = 1
        before_BL[rows, layer], after_BL[rows, layer] = values
    once_RB = np.ones((1, len(known_B)))
    seen, drawn_R = (fall(times_RB, before_BL, after_BL, present_BL) for times_RB in (once_RB, draws(len(known_B), seed)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn_R, [tail, 1 - tail])
    return Gain(float(seen[0]), float(low), float(high), len(known_B))


def fall(times_RB: Floats, before_BL: Floats, after_BL: Floats, present_BL: Floats) -> Floats:
    """The gain (R,) where every step counts so many times; a layer that has none of a draw's steps is left out of it."""
    present_RL = times_RB @ present_BL
    weight_RL = np.where(present_RL > 0, 1 / np.maximum(present_RL, 1), 0)
    mean_before_R, mean_after_R = (((times_RB @ values_BL) * weight_RL).sum(axis=1) for values_BL in (before_BL, after_BL))
    return np.asarray(1 - mean_after_R / mean_before_R)


def draws(num_steps: int, seed: int) -> Floats:
    """How often each step is drawn, (R, B): blocks of about the cube root of all steps, cut to as many steps as there are."""
    length = max(1, round(num_steps ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(num_steps, size=(RESAMPLES, ceil(num_steps / length), 1))
    chosen = ((starts + np.arange(length)) % num_steps).reshape(RESAMPLES, -1)[:, :num_steps]
    cells = chosen + num_steps * np.arange(RESAMPLES)[:, None]
    return np.bincount(cells.ravel(), minlength=RESAMPLES * num_steps).reshape(RESAMPLES, num_steps).astype(np.float64)
