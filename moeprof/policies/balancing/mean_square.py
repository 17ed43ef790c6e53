"""Least mean square load of devices over the steps of the history, by local search; with further slots it chooses the copies, too.

The largest load of a step is large where a device's mean load is large or where experts that are busy in the same steps share a
device. The mean square of device loads is the sum of both, mean^2 + variance, in one unit and without a weight to choose. It also
counts that a copy cannot serve half a choice, so that in steps of few tokens copies are made only where they help.
The search starts from `greedy`, or with copies from `eplb-distinct`, and changes the placement only where the mean square falls.
The search takes O((D S)^2) operations, and for each slot of an expert with c copies O(D S + c E).
"""

import numpy as np

from moeprof.policies.balancing.balancer import Balancer, Cluster, History, Slots
from moeprof.policies.balancing.eplb_distinct import placed_apart
from moeprof.policies.balancing.greedy import greedy

EVEN = 1.05
"""The largest imbalance at which one packing is a good enough start; `eplb-distinct` compares several."""


def mean_square(history: History, cluster: Cluster) -> Slots:
    """(D, S), ids rising on each device, from means, deviations and correlations of shares; E <= D x S, S <= E."""
    from moeprof.policies.balancing.local_search import Loads, improve, second_moments

    slots_DS = np.array(first_placement(history, cluster))
    moments_EE = second_moments(history.weights_E, history.spreads_E, history.correlation_EE)
    improve(Loads(history.weights_E, moments_EE, history.choices), slots_DS)
    return np.sort(slots_DS, axis=1)


def first_placement(history: History, cluster: Cluster) -> Slots:
    """(D, S): by mean loads alone."""
    if cluster.total_slots == history.num_experts:
        return greedy(history, cluster)
    return placed_apart(history, cluster, EVEN / cluster.num_devices)


MEAN_SQUARE = Balancer("mean-square", mean_square)
MEAN_SQUARE_COPIES = Balancer("mean-square-copies", mean_square, replicates=True, repeats=False)
