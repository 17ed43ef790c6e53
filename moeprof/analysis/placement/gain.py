"""The gain of a placement: by what fraction it lowers the mean load of the busiest device, with a confidence interval.

The interval comes from resampling steps in blocks of neighbours, because a step resembles the one before it; every layer and both
placements use the same resamples, because layers share their tokens (circular block bootstrap; Politis and Romano 1992).

It is wide enough for two things that would make a chance difference look like a gain. There are few blocks: it is stretched as Student's t
is beside the normal distribution (Hesterberg 2015, expanded percentiles). And a verdict is about the best of several placements, on the
steps that compare them: their intervals hold all at once (Bonferroni), so that of the best one does too.

Shape suffixes: R resamples, B steps of all layers, L layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import cbrt, ceil, sqrt
from typing import Literal

import numpy as np

from moeprof.analysis.routing.load_matrix import Counts
from moeprof.records.arrays import Floats

RESAMPLES, CONFIDENCE = 1000, 0.95

WORTH = 0.05
"""The smallest gain that is worth moving weights for."""

FEWEST = 10
"""The fewest test steps that allow a verdict."""

Recommendation = Literal["recommended", "not recommended", "too little evidence"]


@dataclass(frozen=True)
class Gain:
    """The fraction by which `avg_max_load` falls, mean over layers, with the ends of its interval."""

    value: float
    low: float
    high: float
    steps: int

    @property
    def verdict(self) -> Recommendation:
        """A recommendation if the whole interval is on one side of WORTH, otherwise too little evidence."""
        if self.steps >= FEWEST and self.low > WORTH:
            return "recommended"
        return "not recommended" if self.steps >= FEWEST and self.high < WORTH else "too little evidence"

    @property
    def steps_needed(self) -> int | None:
        """The number of test steps that would put an interval of this spread on one side of WORTH; None if no number would."""
        reach, distance = (self.high - self.low) / 2, abs(self.value - WORTH)
        if self.steps < FEWEST or not reach:
            return FEWEST
        return None if distance < reach / 100 else max(FEWEST, ceil(self.steps * (reach / distance) ** 2))


def gain(
    steps: Sequence[Counts], before: Sequence[Floats], after: Sequence[Floats], *, compared: int = 1, seed: int = 0
) -> Gain:
    """The gain from the busiest device's shares in the steps of each layer, before and after; `steps` holds the steps' numbers.

    The intervals of `compared` gains hold at once with CONFIDENCE. The resamples depend on `seed` only, so that the same inputs give the
    same interval.
    """
    known_B = np.unique(np.concatenate(steps))
    before_BL, after_BL, present_BL = (np.zeros((len(known_B), len(steps))) for _ in range(3))
    for layer, (own, *values) in enumerate(zip(steps, before, after, strict=True)):
        rows = np.searchsorted(known_B, own)
        present_BL[rows, layer] = 1
        before_BL[rows, layer], after_BL[rows, layer] = values
    once_RB = np.ones((1, len(known_B)))
    seen, drawn_R = (fall(times_RB, before_BL, after_BL, present_BL) for times_RB in (once_RB, draws(len(known_B), seed)))
    value, tail = float(seen[0]), (1 - CONFIDENCE) / 2 / compared
    low, high = (value + stretch(len(known_B), tail) * (np.quantile(drawn_R, [tail, 1 - tail]) - value)).tolist()
    return Gain(value, low, min(high, 1.0), len(known_B))


def stretch(num_steps: int, tail: float) -> float:
    """By what factor an interval from resampled blocks is too narrow: sqrt(k / (k - 1)) t / z for k blocks; 1 for a single block."""
    from scipy.special import ndtri, stdtrit

    blocks = num_steps / block_length(num_steps)
    return float(sqrt(blocks / (blocks - 1)) * stdtrit(blocks - 1, tail) / ndtri(tail)) if blocks > 1 else 1.0


def block_length(num_steps: int) -> int:
    """The steps of a block: about the cube root of their number."""
    return max(1, round(cbrt(num_steps)))


def fall(times_RB: Floats, before_BL: Floats, after_BL: Floats, present_BL: Floats) -> Floats:
    """The gain of each resample (R,), in which step b counts `times_RB[:, b]` times; a layer without any of its steps is left out."""
    present_RL = times_RB @ present_BL
    weight_RL = np.where(present_RL > 0, 1 / np.maximum(present_RL, 1), 0)
    mean_before_R, mean_after_R = (((times_RB @ values_BL) * weight_RL).sum(axis=1) for values_BL in (before_BL, after_BL))
    return np.asarray(1 - mean_after_R / mean_before_R)


@lru_cache(maxsize=1)
def draws(num_steps: int, seed: int) -> Floats:
    """How often each step is drawn, (R, B): in blocks of `block_length` steps, cut to B draws in all."""
    length = block_length(num_steps)
    starts = np.random.default_rng(seed).integers(num_steps, size=(RESAMPLES, ceil(num_steps / length), 1))
    chosen = ((starts + np.arange(length)) % num_steps).reshape(RESAMPLES, -1)[:, :num_steps]
    cells = chosen + num_steps * np.arange(RESAMPLES)[:, None]
    return np.bincount(cells.ravel(), minlength=RESAMPLES * num_steps).reshape(RESAMPLES, num_steps).astype(np.float64)
