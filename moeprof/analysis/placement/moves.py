"""Experts that devices fetch when one placement follows another, and the time that this takes on their links.

An expert comes from the first device of the same node that held it, or else from the first one of all. A device sends and receives at the
same time, within its node and between nodes at the same time, all layers together, and the slowest device decides, as in
`virtual_parallel`.

Shape suffixes: E experts, D devices, S slots of a device; 4 stands for received and sent within a node, received and sent between nodes.
"""

import numpy as np

from moeprof.analysis.placement.virtual_parallel import DeviceLinks
from moeprof.policies.balancing.balancer import Slots
from moeprof.records.arrays import Floats, Ints
from moeprof.records.compiled import compiled
from moeprof.records.units import NS_PER_S


@compiled
def fetched(before_DS: Ints, after_DS: Ints, num_experts: int, num_nodes: int) -> Ints:
    """Experts that each device receives and sends, (4, D); one that a device holds already is not fetched; -1 before is an empty slot."""
    num_devices = len(after_DS)
    each = num_devices // num_nodes
    held_DE, first_E = np.zeros((num_devices, num_experts), np.bool_), np.full(num_experts, -1)
    first_VE = np.full((num_nodes, num_experts), -1)
    for device in range(num_devices - 1, -1, -1):
        for expert in before_DS[device]:
            if expert >= 0:
                held_DE[device, expert] = True
                first_E[expert] = first_VE[device // each, expert] = device
    moved_4D = np.zeros((4, num_devices), np.int64)
    for device in range(num_devices):
        for expert in after_DS[device]:
            if held_DE[device, expert]:
                continue
            held_DE[device, expert] = True
            near = first_VE[device // each, expert] >= 0
            source = first_VE[device // each, expert] if near else first_E[expert]
            moved_4D[0 if near else 2, device] += 1
            moved_4D[1 if near else 3, source] += 1
    return moved_4D


def num_fetched(moved_4D: Ints) -> int:
    """The number of experts that any device received."""
    return int(moved_4D[0].sum() + moved_4D[2].sum())


def move_ns(bytes_4D: Floats, links: DeviceLinks) -> float:
    """The time until the slowest device has sent and received these bytes."""
    near_D, far_D = bytes_4D[:2].max(axis=0), bytes_4D[2:].max(axis=0)
    return float(np.maximum(near_D / links.near, far_D / links.far).max() * NS_PER_S)


def home_slots(num_experts: int, num_devices: int) -> Slots:
    """Where experts are before anything is placed, (D, S): E / D neighbours on each device; -1 in a slot that has no expert.

    Five experts on two devices: [[0, 1, 2], [3, 4, -1]].
    """
    home_E = np.arange(num_experts) * num_devices // num_experts
    slots_DS = np.full((num_devices, -(-num_experts // num_devices)), -1)
    slots_DS[home_E, np.arange(num_experts) - np.searchsorted(home_E, home_E)] = np.arange(num_experts)
    return slots_DS
