"""Which experts get replicas: repeatedly the one whose replicas have the largest load (EPLB's `replicate_experts`).

Shape suffixes: E experts, P slots.
"""

import numpy as np

from moeprof.records.arrays import Floats, Ints


def replicated(weights_E: Floats, num_slots: int, most: int | None = None) -> Ints:
    """The expert in every slot, (P,): every expert once by id, then the further replicas in the order in which they were made.

    Replicas share the load of an expert equally; none gets more than `most`, the first included; ties go to the lowest id.
    Weights [6, 3, 1] and five slots:
        slot 3: loads per replica are 6, 3, 1, so expert 0 gets it
        slot 4: loads per replica are 3, 3, 1, so expert 0 gets it again (a tie)
        slots_P = [0, 1, 2, 0, 0]
    """
    from moeprof.policies.balancing.loops import copied

    return copied(weights_E, num_slots, num_slots if most is None else most)


def carried(weights_E: Floats, slots_P: Ints) -> Floats:
    """The load of every slot, (P,): an equal part of the load of its expert."""
    return np.asarray(weights_E / np.bincount(slots_P, minlength=len(weights_E)))[slots_P]
