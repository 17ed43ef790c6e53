"""The weights of HOBBIT's priority that load least: every mix on a grid is tried on a recorded beginning of the work.

A miss costs what it loads: 1 in high precision, and the ratio of the bytes in low precision.
"""

from dataclasses import astuple, dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from moeprof.policies.offloading.priority import PriorityWeights
from moeprof.policies.offloading.requests import ExpertRequests

GRID = 10
"""Steps of a weight from 0 to 1: 286 mixes."""


@dataclass(frozen=True)
class TwoPools:
    """A cache of units in two precisions; experts of all layers share both pools."""

    high_slots: int
    low_slots: int
    num_layers: int
    num_experts: int
    """Of each layer."""
    low_cost: float = 0.25
    """Bytes of an expert in low precision per byte in high precision."""


class PoolMisses(NamedTuple):
    """What became of requests; the others found their expert."""

    high: int
    """Loads in high precision."""
    low: int
    skipped: int

    def penalty(self, low_cost: float) -> float:
        """What the loads cost, in loads of high precision."""
        return self.high + low_cost * self.low


class FittedWeights(NamedTuple):
    """The best mix, and what each mix costs, single weights first."""

    weights: PriorityWeights
    penalty: float
    tried: tuple[tuple[PriorityWeights, float], ...]


def fit_weights(requests: ExpertRequests, pools: TwoPools, grid: int = GRID) -> FittedWeights:
    """The mix with the least penalty on these requests, from empty pools; of equal ones a single weight, then the first of the grid."""
    tried = tuple((weights, pool_misses(requests, weights, pools).penalty(pools.low_cost)) for weights in mixes(grid))
    weights, penalty = min(tried, key=lambda one: one[1])
    return FittedWeights(weights, penalty, tried)


def mixes(grid: int) -> list[PriorityWeights]:
    """All weights that are multiples of 1 / grid with sum 1: single weights first, those that weigh the last use most before others."""
    parts = [mix for mix in product(range(grid, -1, -1), repeat=4) if sum(mix) == grid]
    return [PriorityWeights(*(part / grid for part in mix)) for mix in sorted(parts, key=lambda mix: max(mix) < grid)]


def pool_misses(requests: ExpertRequests, weights: PriorityWeights, pools: TwoPools) -> PoolMisses:
    """What becomes of the requests, from empty pools.

    A resident expert is used as it is, but one in low precision does not serve a request for high precision. All units that a step uses
    are admitted first; then each pool evicts down to its slots, units that the step uses last.
    """
    from moeprof.policies.offloading.fitting_loops import misses

    units_N = requests.layers_N * pools.num_experts + requests.experts_N
    counts = misses(
        units_N,
        requests.tokens_N,
        requests.sequences_N,
        requests.kinds_N,
        requests.starts(),
        np.array([pools.high_slots, pools.low_slots]),
        np.array(astuple(weights)),
        pools.num_layers,
        pools.num_experts,
    )
    return PoolMisses(*map(int, counts))
