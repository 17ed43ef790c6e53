"""From the last placement to the next one by few moves: the busiest device exchanges an expert with another one, again and again.

Exchange by exchange the largest load falls, as in local search for identical machines (Finn and Horowitz, 1979): of all exchanges of an
expert of the busiest device, that one is made after which the larger load of the two devices is smallest. If experts have copies, a further
copy of the busiest device's heaviest expert may instead replace a copy elsewhere of an expert that keeps others. A device receives at most
so many experts, and an exchange must lower the larger load by a least amount, so that noise in the loads moves nothing (hysteresis).

Shape suffixes: E experts, D devices, S slots of a device.
"""

import numpy as np

from moeprof.policies.balancing.balancer import Slots
from moeprof.records.arrays import Floats

HYSTERESIS = 0.05
"""The least fraction of the busiest device's load by which an exchange must lower it."""


def rebalanced(slots_DS: Slots, weights_E: Floats, most: int, least: float = 0.0) -> Slots:
    """(D, S): the placement after the exchanges, an expert that stays in its slot. Copies share the load (E,) of their expert equally.

    A device receives at most `most` experts. An exchange lowers the busiest device's load by HYSTERESIS of it, and by more than `least`.
    Weights [4, 3, 2, 1] on devices [[0, 1], [2, 3]], loads 7 and 3, `most` 1:
        experts 0 and 2 change places: loads 5 and 5; experts 1 and 3 would give the same, and come later
        slots_DS = [[2, 1], [0, 3]]
    """
    from moeprof.policies.balancing.incremental_loops import exchanged

    return exchanged(slots_DS.astype(np.int64), np.asarray(weights_E, np.float64), most, least, HYSTERESIS)


def fewest_moves(before_DS: Slots, after_DS: Slots, num_nodes: int = 1) -> Slots:
    """The placement `after_DS` with its devices renamed, node by node, so that they keep as many experts as possible (an assignment).

    With one node any device may take any name; devices and experts of a node stay on it otherwise.
    """
    from scipy.optimize import linear_sum_assignment

    from moeprof.policies.balancing.incremental_loops import shared_experts

    each = len(after_DS) // num_nodes
    kept_DD = shared_experts(before_DS, after_DS)
    renamed_DS = np.empty_like(after_DS)
    for first in range(0, len(after_DS), each):
        node = slice(first, first + each)
        old, new = linear_sum_assignment(kept_DD[node, node], maximize=True)
        renamed_DS[node][old] = after_DS[node][new]
    return renamed_DS
