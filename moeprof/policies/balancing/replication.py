"""Which experts get the slots beyond one each: again and again the one whose copies carry most (EPLB's `replicate_experts`).

Shape suffixes: E experts, P slots.
"""

import numpy as np

from moeprof.policies.balancing.balancer import DIGITS
from moeprof.records.arrays import Floats, Ints


def replicated(weights_E: Floats, num_slots: int, most: int | None = None) -> Ints:
    """The expert in every slot, (P,): every expert once by id, then the copies in the order in which they were made.

    A copy takes an equal part of the load; nobody gets more than `most` copies, the first included; ties go to the lowest id.
    """
    num_experts = len(weights_E)
    slots_P = np.arange(num_slots)
    copies_E = np.ones(num_experts)
    for slot in range(num_experts, num_slots):
        carried_E = np.round(weights_E / copies_E, DIGITS)
        expert = int(np.argmax(carried_E if most is None else np.where(copies_E < most, carried_E, -1.0)))
        slots_P[slot] = expert
        copies_E[expert] += 1
    return slots_P


def carried(weights_E: Floats, slots_P: Ints) -> Floats:
    """The load of every slot, (P,): an equal part of its expert's."""
    return np.asarray(weights_E / np.bincount(slots_P, minlength=len(weights_E)))[slots_P]
