"""E / D consecutive experts on every device, as in fairseq: the baseline of all placements."""

import numpy as np

from moeprof.policies.balancing.balancer import Balancer, Cluster, History, Slots


def contiguous(history: History, cluster: Cluster) -> Slots:
    """(D, S) for E = D x S experts; the loads in the history have no influence."""
    return np.arange(history.num_experts).reshape(cluster.num_devices, cluster.num_slots)


CONTIGUOUS = Balancer("contiguous", contiguous, fixed=True)
