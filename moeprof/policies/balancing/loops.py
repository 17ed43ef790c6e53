"""The loops of the balancers, compiled; imported by the functions that use them, because importing numba takes a third of a second.

Loads are compared to DIGITS digits, rounded as numpy rounds an array. Shape suffixes: N items, K packs, M = N / K items of each pack,
E experts, D devices, P slots.
"""

import numpy as np

from moeprof.policies.balancing.balancer import DIGITS
from moeprof.records.arrays import Flags, Floats, Ints
from moeprof.records.compiled import compiled

UNIT = 10.0**DIGITS


@compiled
def rounded(load: float) -> float:
    """The load to DIGITS digits."""
    return float(np.rint(load * UNIT) / UNIT)


@compiled
def fill_packs(order_N: Ints, weights_N: Floats, num_packs: int, affinity_NN: Floats) -> Ints:
    """The items of every pack, (K, M): item by item in this order to the pack with the least load and affinity among those with room.

    `affinity_NN` is empty if items have none.
    """
    room, attached = len(weights_N) // num_packs, len(affinity_NN) > 0
    members_KM = np.empty((num_packs, room), np.int64)
    filled_K, load_K, rounded_K = np.zeros(num_packs, np.int64), np.zeros(num_packs), np.zeros(num_packs)
    attached_KN = np.zeros((num_packs, len(affinity_NN)))
    for item in order_N:
        pack, least = -1, np.inf
        for other in range(num_packs):
            if filled_K[other] < room:
                cost = rounded(load_K[other] + attached_KN[other, item]) if attached else rounded_K[other]
                if pack < 0 or cost < least:
                    pack, least = other, cost
        members_KM[pack, filled_K[pack]] = item
        filled_K[pack] += 1
        load_K[pack] += weights_N[item]
        rounded_K[pack] = rounded(load_K[pack])
        if attached:
            for other in range(len(weights_N)):
                attached_KN[pack, other] += affinity_NN[item, other]
    return members_KM


@compiled
def copied(weights_E: Floats, num_slots: int, most: int) -> Ints:
    """The expert in every slot, (P,): each once, then again and again the one whose copies have the largest load; `most` copies of each."""
    slots_P, copies_E, carried_E = np.arange(num_slots), np.ones(len(weights_E)), np.empty(len(weights_E))
    for expert in range(len(weights_E)):
        carried_E[expert] = rounded(weights_E[expert])
    for slot in range(len(weights_E), num_slots):
        busiest, largest = 0, -1.0
        for expert in range(len(weights_E)):
            if carried_E[expert] > largest and copies_E[expert] < most:
                busiest, largest = expert, carried_E[expert]
        slots_P[slot] = busiest
        copies_E[busiest] += 1
        carried_E[busiest] = rounded(weights_E[busiest] / copies_E[busiest])
    return slots_P


@compiled
def apart(weights_E: Floats, num_devices: int, num_slots: int, tries: int, enough: float) -> Flags:
    """The best of some placements, (D, E), or the first if its largest load is `enough`: no device holds an expert twice.

    The first has as many copies of each expert as EPLB makes, at most one per device; each further one has at most one copy fewer.
    """
    best_DE, least, most = np.zeros((num_devices, len(weights_E)), np.bool_), np.inf, num_devices
    for number in range(tries):
        if most * len(weights_E) < num_devices * num_slots or (number == 1 and least <= enough):
            break
        slots_P = copied(weights_E, num_devices * num_slots, most)
        copies_E = np.bincount(slots_P)
        each_E = weights_E / copies_E
        order_P = np.argsort(-rounded_all(each_E)[slots_P], kind="mergesort")  # a stable one
        holds_DE, busiest = placed_apart(slots_P[order_P], each_E, num_devices, num_slots)
        if rounded(busiest) < least:
            best_DE, least = holds_DE, rounded(busiest)
        most = copies_E.max() - 1
    return best_DE


@compiled
def rounded_all(loads_E: Floats) -> Floats:
    """Each load to DIGITS digits."""
    return np.rint(loads_E * UNIT) / UNIT


@compiled
def placed_apart(order_P: Ints, each_E: Floats, num_devices: int, num_slots: int) -> tuple[Flags, float]:
    """Which device holds which expert, (D, E), and the largest load of a device: copies in this order, each to the least loaded device
    with room and without the expert."""
    holds_DE = np.zeros((num_devices, len(each_E)), np.bool_)
    load_D, filled_D = np.zeros(num_devices), np.zeros(num_devices, np.int64)
    rounded_D = np.zeros(num_devices)  # infinite for a full device
    for expert in order_P:
        device, least = -1, np.inf
        for other in range(num_devices):
            if rounded_D[other] < least and not holds_DE[other, expert]:
                device, least = other, rounded_D[other]
        if device >= 0:
            holds_DE[device, expert] = True
            load_D[device] += each_E[expert]
        else:
            device = int(np.argmax(rounded_D < np.inf))
            make_room(holds_DE, load_D, each_E, expert, device)
        filled_D[device] += 1
        rounded_D[device] = rounded(load_D[device]) if filled_D[device] < num_slots else np.inf
    return holds_DE, load_D.max()


@compiled
def make_room(holds_DE: Flags, load_D: Floats, each_E: Floats, expert: int, last: int) -> None:
    """Adds `expert` if all devices with room hold it already: a full device takes it, and gives one of its experts to `last`.

    Such a pair of device and expert always exists, because a full device without `expert` holds more other experts than `last`
    does. The pair is chosen that minimizes the larger load of the two devices.
    """
    best_device, best_other, least = -1, -1, np.inf
    for device in range(len(load_D)):
        if not holds_DE[device, expert]:
            for other in range(len(each_E)):
                if holds_DE[device, other] and not holds_DE[last, other]:
                    after = load_D[device] - each_E[other] + each_E[expert]
                    load = rounded(max(after, load_D[last] + each_E[other]))
                    if best_device < 0 or load < least:
                        best_device, best_other, least = device, other, load
    holds_DE[best_device, expert], holds_DE[best_device, best_other] = True, False
    holds_DE[last, best_other] = True
    load_D[best_device] = load_D[best_device] - each_E[best_other] + each_E[expert]
    load_D[last] += each_E[best_other]
