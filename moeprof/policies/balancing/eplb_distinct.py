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
    """Adds `expert` if all devices with room hold it already: a full device takes it, and gives one of its experts to `last`.

    Such a pair of device and expert always exists, because a full device without `expert` holds more other experts than `last`
    does. The pair is chosen that minimizes the larger load of the two devices.
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
