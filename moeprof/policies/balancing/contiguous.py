"""E / D consecutive experts on every device, as fairseq places them: what every other placement is held against."""

import numpy as np

from moeprof.policies.balancing.balancer import Balancer, Cluster, History, Slots


def contiguous(history: History, cluster: Cluster) -> Slots:
    """(D, S) of an (E,) history that is not looked at; E = D x S."""
    return np.arange(history.num_experts).reshape(cluster.num_devices, cluster.num_slots)


CONTIGUOUS = Balancer("contiguous", contiguous)
