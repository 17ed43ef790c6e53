"""Anti-correlation (paper 6.3): the greedy loop, with the correlation between experts added to the load of a device.

The device's load for expert a is the sum over its experts m of Abar[m] + 0.5 S[a, m], S being Pearson's correlation. Shares are
about 1 / E and S reaches 1, so that taken literally S dominates. The rescaled balancer multiplies Abar by E, whose mean is then 1.
"""

import numpy as np

from moeprof.policies.balancing.balancer import Balancer, Cluster, History, Slots
from moeprof.policies.balancing.packing import packed
from moeprof.records.arrays import Floats

WEIGHT = 0.5
"""Weight of the correlation in the paper's formula."""


def anti_correlation(history: History, cluster: Cluster) -> Slots:
    """(D, S), ids rising on each device, from mean shares (E,) and correlations (E, E); E = D x S."""
    return spread(history.weights_E, history, cluster)


def rescaled(history: History, cluster: Cluster) -> Slots:
    """The same, with shares multiplied by E so that both terms have the same scale."""
    return spread(history.weights_E * history.num_experts, history, cluster)


def spread(weights_E: Floats, history: History, cluster: Cluster) -> Slots:
    """(D, S), packed by these weights and the correlations."""
    return np.sort(packed(weights_E, cluster.num_devices, WEIGHT * history.correlation_EE), axis=1)


ANTI_CORRELATION = Balancer("anti-correlation", anti_correlation)
ANTI_CORRELATION_RESCALED = Balancer("anti-correlation-rescaled", rescaled)
