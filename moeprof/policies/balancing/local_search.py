"""The search of `mean-square`: swaps of experts, and copies given from one expert to another, while the mean square load falls.

With w[e] = 1 / copies of expert e, a device d serves L[d] = sum over its experts of w[e] a[e] of a step with shares a. With the moments
M[e, f] = mean over steps of a[e] a[f], the sum over devices of the mean of L[d]^2 is

    F = sum over d of sum over e, f on d of w[e] w[f] M[e, f]  +  sum over e of uneven(e)

A change needs no pass over steps or devices, because the sums pull[d, f] = sum over e on d of w[e] M[e, f] are kept. Compiled;
imported by the function that uses it. Shape suffixes: E experts, D devices, S slots of a device.
"""

from typing import NamedTuple

import numpy as np

from moeprof.records.arrays import Flags, Floats, Ints
from moeprof.records.compiled import compiled

TOLERANCE = 1e-9
"""The least part of F that a change must save, so that changes do not depend on the order of additions."""


class Loads(NamedTuple):
    """What is known of the steps of a layer."""

    means_E: Floats
    moments_EE: Floats
    """M[e, f]."""
    choices: float
    """Choices of a step; infinite if loads split evenly."""


class Draft(NamedTuple):
    """A placement that is being changed, and what follows from it."""

    slots_DS: Ints
    holds_DE: Flags
    copies_E: Ints
    weight_E: Floats
    """w[e] = 1 / copies."""
    further_E: Floats
    """1 / (copies + 1)."""
    uneven_E: Floats
    """What one more copy adds to `uneven`."""
    pull_DE: Floats


@compiled
def second_moments(means_E: Floats, spreads_E: Floats, correlation_EE: Floats) -> Floats:
    """M, (E, E), from means, standard deviations and correlations."""
    moments_EE, num_experts = np.empty_like(correlation_EE), len(means_E)
    for expert in range(num_experts):
        for other in range(num_experts):
            spread = spreads_E[expert] * spreads_E[other] * correlation_EE[expert, other]
            moments_EE[expert, other] = means_E[expert] * means_E[other] + spread
    return moments_EE


@compiled
def improve(loads: Loads, slots_DS: Ints) -> None:
    """Lowers F in place: swaps, other copies, swaps. No device gets an expert twice, and every expert keeps a copy.

    To do so again and again would lower it further, but hardly lowers the load of steps that were not seen.
    """
    draft = started(loads, slots_DS)
    least = 0.0
    for device in range(len(slots_DS)):
        for expert in slots_DS[device]:
            least += TOLERANCE * draft.weight_E[expert] * draft.pull_DE[device, expert]
    swap_all(loads, draft, least)
    if slots_DS.size > len(loads.means_E):
        recopy_all(loads, draft, least)
    swap_all(loads, draft, least)


@compiled
def started(loads: Loads, slots_DS: Ints) -> Draft:
    """The sums of a placement."""
    num_devices, num_experts = len(slots_DS), len(loads.means_E)
    copies_E, holds_DE = np.zeros(num_experts, np.int64), np.zeros((num_devices, num_experts), np.bool_)
    for device in range(num_devices):
        for expert in slots_DS[device]:
            copies_E[expert] += 1
            holds_DE[device, expert] = True
    pull_DE, weight_E, uneven_E = np.zeros((num_devices, num_experts)), 1 / copies_E, np.empty(num_experts)
    for device in range(num_devices):
        for expert in slots_DS[device]:
            add(pull_DE[device], weight_E[expert], loads.moments_EE[expert])
    for expert in range(num_experts):
        uneven_E[expert] = uneven(loads, expert, copies_E[expert] + 1) - uneven(loads, expert, copies_E[expert])
    return Draft(slots_DS, holds_DE, copies_E, weight_E, 1 / (copies_E + 1), uneven_E, pull_DE)


@compiled
def add(pull_E: Floats, weight: float, moments_E: Floats) -> None:
    """Adds what a part of an expert pulls; in a loop, because an expression of arrays takes a new array each time."""
    for expert in range(len(pull_E)):
        pull_E[expert] += weight * moments_E[expert]


@compiled
def uneven(loads: Loads, expert: int, copies: int) -> float:
    """Variance of the shares of c copies, in all, because choices are whole: each serves n / c of n choices, rounded up or down.

    For one copy that is (r / c) (1 - r / c) choices^2 with r = n mod c. It is n (c - 1) / c^2 as long as steps have 0 or 1
    choices, and for large n its mean over r, (c^2 - 1) / 6 c^2. The smaller one is taken, which is too small for an expert
    with one choice in most steps.
    """
    few = loads.means_E[expert] * (copies - 1) / copies / loads.choices
    return float(min(few, (copies**2 - 1) / (6 * copies) / loads.choices**2))


@compiled
def swap_all(loads: Loads, draft: Draft, least: float) -> None:
    """Swaps the expert of each slot in turn with the one of a later device that saves most."""
    num_devices, num_slots = draft.slots_DS.shape
    leaves_DS, arrives_E = np.empty(draft.slots_DS.shape), np.empty(len(loads.means_E))
    for device in range(num_devices):
        leaving(loads, draft, device, leaves_DS[device])
    for device in range(num_devices - 1):
        for slot in range(num_slots):
            arriving(loads, draft, device, slot, arrives_E)
            there, place = best_swap(draft, device, slot, leaves_DS, arrives_E, least)
            if there >= 0:
                swap(loads, draft, device, slot, there, place)
                leaving(loads, draft, device, leaves_DS[device])
                leaving(loads, draft, there, leaves_DS[there])


@compiled
def leaving(loads: Loads, draft: Draft, device: int, leaves_S: Floats) -> None:
    """Writes half of the change of F if an expert leaves a device, for each of its slots, with its own square where it arrives."""
    for slot, expert in enumerate(draft.slots_DS[device]):
        weight = draft.weight_E[expert]
        leaves_S[slot] = weight * (weight * loads.moments_EE[expert, expert] - draft.pull_DE[device, expert])


@compiled
def arriving(loads: Loads, draft: Draft, device: int, slot: int, arrives_E: Floats) -> None:
    """Writes half of the change of F if another expert comes into a slot, for each one; infinite if the device holds it."""
    expert = draft.slots_DS[device, slot]
    twice, moments_E, pull_E = 2 * draft.weight_E[expert], loads.moments_EE[expert], draft.pull_DE[device]
    for other in range(len(arrives_E)):
        arrives_E[other] = draft.weight_E[other] * (pull_E[other] - twice * moments_E[other])
    for held in draft.slots_DS[device]:
        arrives_E[held] = np.inf


@compiled
def best_swap(draft: Draft, device: int, slot: int, leaves_DS: Floats, arrives_E: Floats, least: float) -> tuple[int, int]:
    """The later device and the slot whose expert is worth most in exchange for that of `slot`; (-1, -1) if none saves `least`."""
    expert, best, to, at = draft.slots_DS[device, slot], -least, -1, -1
    for there in range(device + 1, len(leaves_DS)):
        moved = leaves_DS[device, slot] + draft.weight_E[expert] * draft.pull_DE[there, expert]
        lowest = best - moved
        for place in range(leaves_DS.shape[1]):
            change = leaves_DS[there, place] + arrives_E[draft.slots_DS[there, place]]
            if change < lowest and not draft.holds_DE[there, expert]:
                lowest, to, at = change - least, there, place
                best = moved + lowest
    return to, at


@compiled
def swap(loads: Loads, draft: Draft, device: int, slot: int, there: int, place: int) -> None:
    """Exchanges the experts of two slots."""
    expert, other = draft.slots_DS[device, slot], draft.slots_DS[there, place]
    draft.slots_DS[device, slot], draft.slots_DS[there, place] = other, expert
    draft.holds_DE[device, expert], draft.holds_DE[device, other] = False, True
    draft.holds_DE[there, expert], draft.holds_DE[there, other] = True, False
    exchange(
        draft.pull_DE[device], draft.weight_E[other], loads.moments_EE[other], draft.weight_E[expert], loads.moments_EE[expert]
    )
    exchange(
        draft.pull_DE[there], draft.weight_E[expert], loads.moments_EE[expert], draft.weight_E[other], loads.moments_EE[other]
    )


@compiled
def exchange(pull_E: Floats, comes: float, coming_E: Floats, goes: float, going_E: Floats) -> None:
    """Adds what an expert that comes pulls, and subtracts what the one that goes did."""
    for expert in range(len(pull_E)):
        pull_E[expert] = pull_E[expert] + comes * coming_E[expert] - goes * going_E[expert]


@compiled
def recopy_all(loads: Loads, draft: Draft, least: float) -> None:
    """Gives each slot of a copied expert in turn to the expert whose further copy saves most."""
    costs_E, squares_E = np.empty(len(loads.means_E)), np.diag(loads.moments_EE).copy()
    for device in range(len(draft.slots_DS)):
        for slot in range(draft.slots_DS.shape[1]):
            expert = draft.slots_DS[device, slot]
            if draft.copies_E[expert] > 1:
                copy_costs(loads, draft, device, slot, squares_E, costs_E)
                best = int(np.argmin(costs_E))
                if costs_E[best] < costs_E[expert] - least:
                    hold(loads, draft, device, expert, False)
                    hold(loads, draft, device, best, True)
                    draft.slots_DS[device, slot] = best


@compiled
def copy_costs(loads: Loads, draft: Draft, device: int, free: int, squares_E: Floats, costs_E: Floats) -> None:
    """Writes the change of F if an emptied slot gets a copy of each expert; infinite if another slot of the device holds it.

    The other copies of the expert that had the slot then carry more, and pull more; the draft stays as it is.
    """
    gone = draft.slots_DS[device, free]
    moments_E, fewer = loads.moments_EE[gone], draft.copies_E[gone] - 1
    costs_E[:] = 0
    for there in range(len(draft.slots_DS)):
        more = 1 / fewer - draft.weight_E[gone] if draft.holds_DE[there, gone] else 0.0
        if there == device:
            more = -draft.weight_E[gone]
        for slot, expert in enumerate(draft.slots_DS[there]):
            if there != device or slot != free:
                costs_E[expert] += draft.pull_DE[there, expert] + more * moments_E[expert]
    others, freed, pull_E = costs_E[gone], draft.weight_E[gone], draft.pull_DE[device]
    for expert in range(len(costs_E)):
        weight = draft.weight_E[expert]
        pulls = 2 * (pull_E[expert] - freed * moments_E[expert] - weight * costs_E[expert]) + weight * squares_E[expert]
        costs_E[expert] = draft.further_E[expert] * pulls + draft.uneven_E[expert]
    weight, uneven_more = 1 / fewer, uneven(loads, gone, fewer + 1) - uneven(loads, gone, fewer)
    pulls = 2 * (pull_E[gone] - freed * moments_E[gone] - weight * others) + weight * squares_E[gone]
    costs_E[gone] = freed * pulls + uneven_more
    for slot, expert in enumerate(draft.slots_DS[device]):
        if slot != free:
            costs_E[expert] = np.inf


@compiled
def hold(loads: Loads, draft: Draft, device: int, expert: int, more: bool) -> None:
    """Gives a device a copy of an expert or takes it away; the other copies then carry less or more."""
    before, moments_E = draft.weight_E[expert], loads.moments_EE[expert]
    copies = draft.copies_E[expert] + (1 if more else -1)
    after = 1 / copies
    for there in range(len(draft.holds_DE)):
        if draft.holds_DE[there, expert]:
            add(draft.pull_DE[there], after - before, moments_E)
    add(draft.pull_DE[device], after if more else -after, moments_E)
    draft.holds_DE[device, expert] = more
    draft.copies_E[expert], draft.weight_E[expert], draft.further_E[expert] = copies, after, 1 / (copies + 1)
    draft.uneven_E[expert] = uneven(loads, expert, copies + 1) - uneven(loads, expert, copies)
