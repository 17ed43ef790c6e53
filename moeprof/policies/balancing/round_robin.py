"""Expert e on device e mod D, as cards are dealt: a baseline that separates neighbours and knows no loads."""

import numpy as np

from moeprof.policies.balancing.balancer import Balancer, Cluster, History, Slots


def round_robin(history: History, cluster: Cluster) -> Slots:
    """(D, S) for E = D x S experts: device d holds d, d + D, d + 2 D and so on; the loads in the history have no influence."""
    return np.arange(history.num_experts).reshape(cluster.num_slots, cluster.num_devices).T


ROUND_ROBIN = Balancer("round-robin", round_robin, fixed=True)
