"""The loops of incremental rebalancing, compiled; imported by the functions that use them, because importing numba takes time.

Shape suffixes: E experts, D devices, S slots of a device, V nodes.
"""

import numpy as np

from moeprof.policies.balancing.balancer import DIGITS
from moeprof.records.arrays import Flags, Floats, Ints
from moeprof.records.compiled import compiled

TIE = 10.0**-DIGITS
"""Loads that differ by at most this are equal, so that choices do not depend on the order of additions."""


@compiled
def holders(slots_DS: Ints, num_experts: int) -> Flags:
    """Which device holds which expert, (D, E); -1 is an empty slot."""
    holds_DE = np.zeros((len(slots_DS), num_experts), np.bool_)
    for device in range(slots_DS.shape[0]):
        for slot in range(slots_DS.shape[1]):
            if slots_DS[device, slot] >= 0:
                holds_DE[device, slots_DS[device, slot]] = True
    return holds_DE


@compiled
def shared_experts(before_DS: Ints, after_DS: Ints) -> Ints:
    """Distinct experts that device i held before and device j holds after, (D, D)."""
    num_devices, num_experts = len(before_DS), max(before_DS.max(), after_DS.max()) + 1
    before_DE, after_DE = holders(before_DS, num_experts), holders(after_DS, num_experts)
    shared_DD = np.zeros((num_devices, num_devices), np.int64)
    for old in range(num_devices):
        for new in range(num_devices):
            for expert in range(num_experts):
                shared_DD[old, new] += before_DE[old, expert] and after_DE[new, expert]
    return shared_DD


@compiled
def exchanged(before_DS: Ints, weights_E: Floats, most: int, least: float, hysteresis: float) -> Ints:
    """The placement after all exchanges that lower the busiest device's load enough, (D, S)."""
    slots_DS, times_DE = before_DS.copy(), np.zeros((len(before_DS), len(weights_E)), np.int64)
    for device in range(len(slots_DS)):
        for expert in slots_DS[device]:
            times_DE[device, expert] += 1
    received_D = np.zeros(len(slots_DS), np.int64)
    while True:
        copies_E, each_E, load_D = np.zeros(len(weights_E), np.int64), np.empty(len(weights_E)), np.zeros(len(slots_DS))
        for device in range(len(slots_DS)):
            for expert in slots_DS[device]:
                copies_E[expert] += 1
        for expert in range(len(weights_E)):
            each_E[expert] = weights_E[expert] / copies_E[expert]
        for device in range(len(slots_DS)):
            for expert in slots_DS[device]:
                load_D[device] += each_E[expert]
        busiest = 0
        for device in range(len(load_D)):
            busiest = device if load_D[device] > load_D[busiest] + TIE else busiest
        own, other, place, load = best_swap(slots_DS, each_E, load_D, times_DE, received_D, busiest, most)
        kind, lowest = 1, load
        if slots_DS.size > len(weights_E):
            heaviest, over, at, load = best_copy(slots_DS, weights_E, copies_E, load_D, times_DE, received_D, busiest, most)
            if load < lowest - TIE:
                kind, lowest = 2, load
        if not lowest < load_D[busiest] - max(least, hysteresis * load_D[busiest]):
            return slots_DS
        if kind == 1:
            put(
                slots_DS,
                times_DE,
                received_D,
                other,
                place,
                put(slots_DS, times_DE, received_D, busiest, own, slots_DS[other, place]),
            )
        else:
            put(slots_DS, times_DE, received_D, over, at, heaviest)


@compiled
def put(slots_DS: Ints, times_DE: Ints, received_D: Ints, device: int, place: int, expert: int) -> int:
    """Puts an expert into a slot; the one that was in it."""
    gone = slots_DS[device, place]
    slots_DS[device, place] = expert
    times_DE[device, gone] -= 1
    times_DE[device, expert] += 1
    received_D[device] += 1
    return int(gone)


@compiled
def best_swap(
    slots_DS: Ints, each_E: Floats, load_D: Floats, times_DE: Ints, received_D: Ints, busiest: int, most: int
) -> tuple[int, int, int, float]:
    """A slot of the busiest device, another device and its slot, whose experts change places, and the larger load after that."""
    found, least = (-1, -1, -1), np.inf
    if received_D[busiest] >= most:
        return -1, -1, -1, least
    for own in range(slots_DS.shape[1]):
        leaves = slots_DS[busiest, own]
        for device in range(len(load_D)):
            if device == busiest or received_D[device] >= most or times_DE[device, leaves]:
                continue
            for place in range(slots_DS.shape[1]):
                comes = slots_DS[device, place]
                fall = each_E[leaves] - each_E[comes]
                load = max(load_D[busiest] - fall, load_D[device] + fall)
                if load < least - TIE and not times_DE[busiest, comes]:
                    found, least = (own, device, place), load
    return found[0], found[1], found[2], least


@compiled
def best_copy(
    slots_DS: Ints,
    weights_E: Floats,
    copies_E: Ints,
    load_D: Floats,
    times_DE: Ints,
    received_D: Ints,
    busiest: int,
    most: int,
) -> tuple[int, int, int, float]:
    """The busiest device's heaviest expert, a device and its slot in which a copy of it replaces one, and the largest load after that."""
    heaviest = slots_DS[busiest, 0]
    for expert in slots_DS[busiest]:
        if weights_E[expert] / copies_E[expert] > weights_E[heaviest] / copies_E[heaviest] + TIE:
            heaviest = expert
    more = weights_E[heaviest] / (copies_E[heaviest] + 1)
    relief = weights_E[heaviest] / copies_E[heaviest] - more
    found, least = (-1, -1), np.inf
    for device in range(len(load_D)):
        if times_DE[device, heaviest] or received_D[device] >= most:
            continue
        for place in range(slots_DS.shape[1]):
            gone = slots_DS[device, place]
            if copies_E[gone] < 2:
                continue
            part = weights_E[gone] / copies_E[gone]
            rise, load = weights_E[gone] / (copies_E[gone] - 1) - part, 0.0
            for other in range(len(load_D)):
                changed = load_D[other] - relief * times_DE[other, heaviest] + rise * times_DE[other, gone]
                load = max(load, changed + (more - part - rise if other == device else 0.0))
            if load < least - TIE:
                found, least = (device, place), load
    return heaviest, found[0], found[1], least
