"""EPLB (DeepSeek, 2025): replicas of hot experts, then packing with equally many slots per device; global, or node by node.

Shape suffixes: E experts, G groups of experts, N nodes, D devices, S slots of a device.
"""

import numpy as np

from moeprof.policies.balancing.balancer import Balancer, Cluster, History, Slots
from moeprof.policies.balancing.packing import packed
from moeprof.policies.balancing.replication import carried, replicated
from moeprof.records.arrays import Floats


def eplb(history: History, cluster: Cluster) -> Slots:
    """(D, S) in order of arrival, from mean shares (E,); D x S >= E, and two replicas of an expert may share a device."""
    return replicated_and_packed(history.weights_E, cluster.num_devices, cluster.num_slots)


def hierarchical(history: History, cluster: Cluster) -> Slots:
    """(D, S) in order of arrival: groups (E,) -> (G,) are packed onto nodes, then each node replicates its own experts.

    The experts of a group stay on one node, so that a token whose experts are in few groups is sent to few nodes.
    """
    groups = cluster.num_groups or history.num_experts
    expert_GM = np.arange(history.num_experts).reshape(groups, -1)
    groups_of_nodes = packed(history.weights_E[expert_GM].sum(axis=1), cluster.num_nodes)
    experts_of_nodes = expert_GM[groups_of_nodes].reshape(cluster.num_nodes, -1)
    devices = cluster.num_devices // cluster.num_nodes
    return np.vstack(
        [experts[replicated_and_packed(history.weights_E[experts], devices, cluster.num_slots)] for experts in experts_of_nodes]
    )


def replicated_and_packed(weights_E: Floats, num_devices: int, num_slots: int) -> Slots:
    """(D, S) for the devices of one node, or for all devices."""
    slots_P = replicated(weights_E, num_devices * num_slots)
    return slots_P[packed(carried(weights_E, slots_P), num_devices)]


EPLB = Balancer("eplb", eplb, replicates=True)
EPLB_HIERARCHICAL = Balancer("eplb-hierarchical", hierarchical, replicates=True, by_node=True)
