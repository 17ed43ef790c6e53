"""Greedy (paper 6.2): experts by falling mean share, each to the least loaded device with room."""

import numpy as np

from moeprof.policies.balancing.balancer import Balancer, Cluster, History, Slots
from moeprof.policies.balancing.packing import packed


def greedy(history: History, cluster: Cluster) -> Slots:
    """(D, S), ids rising on each device, from mean shares (E,); E = D x S."""
    return np.sort(packed(history.weights_E, cluster.num_devices), axis=1)


GREEDY = Balancer("greedy", greedy)
