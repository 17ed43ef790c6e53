"""Loads of experts whose best placement is known, and what a placement makes of them."""

import numpy as np
import numpy.typing as npt

from moeprof.policies.balancing.balancer import Cluster, History
from moeprof.policies.balancing.registry import placed
from moeprof.records.arrays import Floats, Ints

PLAIN = ["contiguous", "round-robin", "greedy", "anti-correlation", "anti-correlation-rescaled", "mean-square"]
"""They make no copies."""
COPYING = ["eplb", "eplb-hierarchical", "eplb-distinct", "mean-square-copies"]


def zipf(num_experts: int, exponent: float = 1.2) -> Floats:
    """Weights in order of heat."""
    return np.arange(1, num_experts + 1, dtype=np.float64) ** -exponent


def history_of(shares_EB: Floats) -> History:
    """Means, and numpy's own correlation with 0 for what it cannot say."""
    with np.errstate(invalid="ignore"):
        return History(shares_EB.mean(axis=1), np.nan_to_num(np.corrcoef(shares_EB)), shares_EB.std(axis=1))


def correlated_groups(seed: int, num_steps: int = 400) -> Floats:
    """Shares (E, B) of paper 6.6: 16 groups of 8 of 128 experts, ids mixed, of which two take nearly all of a step's 256 choices."""
    generator = np.random.default_rng(seed)
    group_E = generator.permutation(128) // 8
    columns = []
    for _ in range(num_steps):
        hot = generator.choice(16, 2, replace=False)
        weights_E = np.where(np.isin(group_E, hot), 100.0, 1.0) * generator.gamma(20, 1 / 20, 128)
        columns.append(generator.multinomial(256, weights_E / weights_E.sum()) / 256)
    return np.array(columns).T


def device_shares(shares_EB: Floats, slots_DS: Ints) -> Floats:
    """Share of every device in every step, (D, B), one expert after another; copies take equal parts."""
    copies_E = np.bincount(slots_DS.ravel(), minlength=len(shares_EB))
    return np.array([sum(shares_EB[expert] / copies_E[expert] for expert in row) for row in slots_DS.tolist()])


def largest_share(weights: npt.ArrayLike, name: str, cluster: Cluster) -> float:
    """Of the busiest device, where a balancer knows exactly what comes."""
    weights_E = np.asarray(weights, np.float64)
    slots_DS = placed(name, History.of_totals(weights_E), cluster)
    return float(device_shares((weights_E / weights_E.sum())[:, None], slots_DS).max())
