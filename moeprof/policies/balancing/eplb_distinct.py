"""EPLB with at most one replica of an expert per device: a second one would waste a slot that another expert could use.

Replicas that must be on different devices may take slots on lightly loaded ones from other experts. So the maximum number of
replicas per expert is lowered step by step, and the best of these placements is taken. No rule can always reach EPLB's largest
load: shares of 0.5, 0.3 and 0.2 on two devices with two slots give 0.5 with both replicas of the first expert on one device, and
at best 0.55 otherwise.

Shape suffixes: E experts, D devices, S slots of a device.
"""

import numpy as np

from moeprof.policies.balancing.balancer import Balancer, Cluster, History, Slots

TRIES = 8
"""Number of values tried for the maximum number of replicas per expert."""


def eplb_distinct(history: History, cluster: Cluster) -> Slots:
    """(D, S), ids rising on each device, from mean shares (E,); E <= D x S, S <= E, at most D replicas of an expert."""
    return placed_apart(history, cluster, 0.0)


def placed_apart(history: History, cluster: Cluster, enough: float) -> Slots:
    """The best of some placements, (D, S), or the first if its largest load is `enough`: heaviest replicas first, each on the least
    loaded device with room for it."""
    from moeprof.policies.balancing.loops import apart

    holds_ED = apart(history.weights_E, cluster.num_devices, cluster.num_slots, TRIES, enough)
    return np.nonzero(holds_ED.T)[1].reshape(cluster.num_devices, cluster.num_slots)


EPLB_DISTINCT = Balancer("eplb-distinct", eplb_distinct, replicates=True, repeats=False)
