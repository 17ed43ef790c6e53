"""EPLB with at most one replica of an expert per device: a second one would waste a slot that another expert could use.

Replicas that must be on different devices may take slots on lightly loaded ones from other experts. So the maximum number of
replicas per expert is lowered step by step, and the best of these placements is taken. No rule can always reach EPLB's largest
load: shares of 0.5, 0.3 and 0.2 on two devices with two slots give 0.5 with both replicas of the first expert on one device, and
at best 0.55 otherwise.

Shape suffixes: E experts, P slots, D devices, S slots of a device, M pairs of a device and an expert on it.
"""

import numpy as np

from moeprof.policies.balancing.balancer import DIGITS, Balancer, Cluster, History, Slots
from moeprof.policies.balancing.packing import heaviest_first
from moeprof.policies.balancing.replication import carried, replicated
from moeprof.records.arrays import Flags, Floats

TRIES = 8
"""Number of values tried for the maximum number of replicas per expert."""


def eplb_distinct(history: History, cluster: Cluster) -> Slots:
    """(D, S), ids rising on each device, from mean shares (E,); E <= D x S, S <= E, at most D replicas of an expert."""
    weights_E = history.weights_E
    slots_P = replicated(weights_E, cluster.total_slots, most=cluster.num_devices)
    most = int(np.bincount(slots_P).max())
    fewest = max(most - TRIES + 1, -(-cluster.total_slots // history.num_experts))
    tries = [packed_apart(weights_E, cluster, limit) for limit in range(most, fewest - 1, -1)]
    holds_DE = min(tries, key=lambda holds_DE: round(busiest_load(weights_E, holds_DE), DIGITS))
    return np.nonzero(holds_DE)[1].reshape(cluster.num_devices, cluster.num_slots)


def busiest_load(weights_E: Floats, holds_DE: Flags) -> float:
    """The load of the busiest device, if the replicas of an expert get equal parts of its load."""
    return float((holds_DE @ (weights_E / holds_DE.sum(axis=0))).max())


def packed_apart(weights_E: Floats, cluster: Cluster, most: int) -> Flags:
    """Which device holds which expert, (D, E): heaviest replicas first, each on the least loaded device with room for it."""
    from moeprof.policies.balancing.loops import placed_apart

    slots_P = replicated(weights_E, cluster.total_slots, most)
    weights_P = carried(weights_E, slots_P)
    order_P = slots_P[heaviest_first(weights_P)]
    return placed_apart(order_P, weights_P[: len(weights_E)], cluster.num_devices, cluster.num_slots)


EPLB_DISTINCT = Balancer("eplb-distinct", eplb_distinct, replicates=True, repeats=False)
