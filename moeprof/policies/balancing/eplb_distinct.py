"""EPLB without a copy beside a copy: on one device the second does nothing but fill a slot that another expert could use.

What copies cannot crowd onto one device may crowd others out of the light ones, so the most copies that an expert may have is
lowered step by step, and the best of these placements is taken. No rule can always reach EPLB's largest load: shares of 0.5, 0.3
and 0.2 on two devices with two slots give 0.5 with both copies of the first on one device, and 0.55 at best without.

Shape suffixes: E experts, P slots, D devices, S slots of a device, M pairs of a device and an expert on it.
"""

import numpy as np

from moeprof.policies.balancing.balancer import DIGITS, Balancer, Cluster, History, Slots
from moeprof.policies.balancing.packing import heaviest_first
from moeprof.policies.balancing.replication import carried, replicated
from moeprof.records.arrays import Flags, Floats

TRIES = 8
"""Of the most copies that an expert may have."""


def eplb_distinct(history: History, cluster: Cluster) -> Slots:
    """(D, S), ids rising on each device, from mean shares (E,); E <= D x S, S <= E, at most D copies of an expert."""
    weights_E = history.weights_E
    slots_P = replicated(weights_E, cluster.total_slots, most=cluster.num_devices)
    most = int(np.bincount(slots_P).max())
    fewest = max(most - TRIES + 1, -(-cluster.total_slots // history.num_experts))
    tries = [packed_apart(weights_E, cluster, limit) for limit in range(most, fewest - 1, -1)]
    holds_DE = min(tries, key=lambda tried: round(largest(weights_E, tried), DIGITS))
    return np.nonzero(holds_DE)[1].reshape(cluster.num_devices, cluster.num_slots)


def largest(weights_E: Floats, holds_DE: Flags) -> float:
    """The load of the busiest device, where copies carry equal parts."""
    return float((holds_DE @ (weights_E / holds_DE.sum(axis=0))).max())


def packed_apart(weights_E: Floats, cluster: Cluster, most: int) -> Flags:
    """Where each expert stands, (D, E): the heaviest copies first, each on the least loaded device with room and none yet."""
    slots_P = replicated(weights_E, cluster.total_slots, most)
    weights_P = carried(weights_E, slots_P)
    each_E = weights_P[: len(weights_E)]
    holds_DE = np.zeros((cluster.num_devices, len(weights_E)), bool)
    load_D, filled_D = np.zeros(cluster.num_devices), np.zeros(cluster.num_devices, np.int64)
    for expert in slots_P[heaviest_first(weights_P)].tolist():
        room_D = filled_D < cluster.num_slots
        free_D = room_D & ~holds_DE[:, expert]
        if free_D.any():
            device = int(np.argmin(np.where(free_D, np.round(load_D, DIGITS), np.inf)))
            holds_DE[device, expert] = True
            load_D[device] += each_E[expert]
        else:
            device = int(np.argmax(room_D))
            make_room(holds_DE, load_D, each_E, expert, device)
        filled_D[device] += 1
    return holds_DE


def make_room(holds_DE: Flags, load_D: Floats, each_E: Floats, expert: int, last: int) -> None:
    """Where every device with room holds `expert` already: a full one takes it, and hands an expert of its own to `last`.

    There always is one: a full device without `expert` has more others than a device with room beside it. Of all such pairs
    the one after which the more loaded of the two devices carries least.
    """
    device_M, other_M = np.nonzero(holds_DE & ~holds_DE[:, [expert]] & ~holds_DE[last])
    after_M = load_D[device_M] - each_E[other_M] + each_E[expert]
    best = int(np.argmin(np.round(np.maximum(after_M, load_D[last] + each_E[other_M]), DIGITS)))
    device, other = int(device_M[best]), int(other_M[best])
    holds_DE[device, [expert, other]] = True, False
    holds_DE[last, other] = True
    load_D[device] = after_M[best]
    load_D[last] += each_E[other]


EPLB_DISTINCT = Balancer("eplb-distinct", eplb_distinct, replicates=True, repeats=False)
