"""The loops of the balancers, compiled; imported by the functions that use them, because importing numba takes a third of a second.

Loads are compared to DIGITS digits, rounded as numpy rounds an array. Shape suffixes: N items, K packs, M = N / K items of each pack,
E experts, D devices, P slots.
"""

import numpy as np

from moeprof.policies.balancing.balancer import DIGITS
from moeprof.records.arrays import Flags, Floats, Ints
from moeprof.records.compiled import compiled

UNIT = 10.0**DIGITS
FULL_BITS = 62
FULL = 1 << FULL_BITS


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
    num_experts = len(weights_E)
    slots_P, carried_E, copies_E = np.arange(num_slots), rounded_all(weights_E), np.ones(num_experts, np.int64)
    hottest_E = np.argsort(-carried_E, kind="mergesort")  # a stable one
    seen = 1  # experts that may be copied next: all that have copies, and the hottest that has none
    for slot in range(num_experts, num_slots):
        busiest, largest = 0, -1.0
        for expert in hottest_E[:seen]:
            ahead = carried_E[expert] > largest or (carried_E[expert] == largest and expert < busiest)
            if ahead and copies_E[expert] < most:
                busiest, largest = expert, carried_E[expert]
        slots_P[slot] = busiest
        seen = min(seen + (copies_E[busiest] == 1), num_experts)
        copies_E[busiest] += 1
        carried_E[busiest] = rounded(weights_E[busiest] / copies_E[busiest])
    return slots_P


@compiled
def apart(weights_E: Floats, num_devices: int, num_slots: int, tries: int, enough: float) -> Flags:
    """The best of some placements, (E, D), or the first if its largest load is `enough`: no device holds an expert twice.

    The first has as many copies of each expert as EPLB makes, at most one per device; each further one has at most one copy fewer.
    """
    best_ED, least, most = np.zeros((len(weights_E), num_devices), np.bool_), np.inf, num_devices
    for number in range(tries):
        if most * len(weights_E) < num_devices * num_slots or (number == 1 and least <= enough):
            break
        slots_P = copied(weights_E, num_devices * num_slots, most)
        copies_E = np.bincount(slots_P)
        each_E = weights_E / copies_E
        order_P = np.argsort(-rounded_all(each_E)[slots_P], kind="mergesort")  # a stable one
        holds_ED, busiest = placed_apart(slots_P[order_P], each_E, num_devices, num_slots)
        if rounded(busiest) < least:
            best_ED, least = holds_ED, rounded(busiest)
        most = copies_E.max() - 1
    return best_ED


@compiled
def rounded_all(loads_E: Floats) -> Floats:
    """Each load to DIGITS digits."""
    return np.rint(loads_E * UNIT) / UNIT


@compiled
def placed_apart(order_P: Ints, each_E: Floats, num_devices: int, num_slots: int) -> tuple[Flags, float]:
    """Which device holds which expert, (E, D), and the largest load of a device: copies in this order, each to the least loaded device
    with room and without the expert."""
    holds_ED = np.zeros((len(each_E), num_devices), np.bool_)
    load_D, filled_D = np.zeros(num_devices), np.zeros(num_devices, np.int64)
    rank_D = np.arange(num_devices)  # rounded load and id in one whole number, whose least is found several devices at a time
    for expert in order_P:
        least, held_D = FULL, holds_ED[expert]
        for other in range(num_devices):
            least = min(least, rank_D[other] | (np.int64(held_D[other]) << FULL_BITS))
        if least < FULL:
            device = least % num_devices
            held_D[device] = True
            load_D[device] += each_E[expert]
        else:
            device = int(np.argmax(rank_D < FULL))
            make_room(holds_ED.T, load_D, each_E, expert, device)
        filled_D[device] += 1
        room = filled_D[device] < num_slots
        rank_D[device] = int(np.rint(load_D[device] * UNIT)) * num_devices + device if room else FULL
    return holds_ED, load_D.max()


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
