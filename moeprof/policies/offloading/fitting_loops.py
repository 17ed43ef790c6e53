"""Two pools under HOBBIT's priority, compiled; imported by the function that uses it, because importing numba takes time.

Shape suffixes: N requests, S steps and one, P pools (high, low), U units (experts of all layers), W weights.
"""

import numpy as np

from moeprof.policies.offloading.rule import HIGH, LOW, SKIP
from moeprof.records.arrays import Flags, Floats, Ints
from moeprof.records.compiled import compiled

LAST, ALL, IN_HIGH = range(3)
"""Of each unit in its sequence: the number of tokens at its last use, its uses, those that ask for high precision."""


@compiled
def misses(
    units_N: Ints,
    tokens_N: Ints,
    sequences_N: Ints,
    kinds_N: Ints,
    starts_S: Ints,
    slots_P: Ints,
    weights_W: Floats,
    num_layers: int,
    num_experts: int,
) -> Ints:
    """Loads in high and in low precision, and skipped requests, (3,)."""
    counts, num_units = np.zeros(3, np.int64), num_layers * num_experts
    uses_3U, held_P = np.zeros((3, num_units), np.int64), np.zeros(2, np.int64)
    resident_PU, place_PU, step_PU = (
        np.zeros((2, num_units), np.int64),
        np.full((2, num_units), -1),
        np.full((2, num_units), -1),
    )
    for step in range(len(starts_S) - 1):
        begin = starts_S[step]
        if step > 0 and sequences_N[begin] != sequences_N[begin - 1]:
            uses_3U[:] = 0
        for request in range(begin, starts_S[step + 1]):
            unit, kind = units_N[request], kinds_N[request]
            pool = HIGH if place_PU[HIGH, unit] >= 0 or kind == HIGH else LOW
            if place_PU[pool, unit] < 0:
                counts[kind] += 1
                if kind == SKIP:
                    continue
                place_PU[pool, unit], resident_PU[pool, held_P[pool]] = held_P[pool], unit
                held_P[pool] += 1
            step_PU[pool, unit] = step
            uses_3U[LAST, unit] = tokens_N[request] + 1
            uses_3U[ALL, unit] += 1
            uses_3U[IN_HIGH, unit] += kind == HIGH
        layer, tokens = units_N[begin] // num_experts, tokens_N[begin] + 1
        for pool in (HIGH, LOW):
            while held_P[pool] > slots_P[pool]:
                residents_U, busy_U = resident_PU[pool, : held_P[pool]], step_PU[pool] == step
                victim = first_to_leave(residents_U, busy_U, uses_3U, weights_W, layer, tokens, num_layers, num_experts)
                held_P[pool] -= 1
                moved, gap = resident_PU[pool, held_P[pool]], place_PU[pool, victim]
                resident_PU[pool, gap], place_PU[pool, moved] = moved, gap
                place_PU[pool, victim] = -1
    return counts


@compiled
def first_to_leave(
    residents_U: Ints,
    busy_U: Flags,
    uses_3U: Ints,
    weights_W: Floats,
    layer: int,
    tokens: int,
    num_layers: int,
    num_experts: int,
) -> int:
    """The resident unit with the lowest priority, and of equal ones the lowest; units that the step uses come after all others."""
    victim, lowest = -1, np.inf
    for unit in residents_U:
        weighted = (
            weights_W[0] * uses_3U[LAST, unit] + weights_W[1] * uses_3U[ALL, unit] + weights_W[2] * uses_3U[IN_HIGH, unit]
        )
        distance = (unit // num_experts - layer + num_layers) % num_layers
        priority = weighted / tokens + weights_W[3] * (1 - distance / num_layers)
        sooner = priority < lowest or (priority == lowest and unit < victim)
        if victim < 0 or busy_U[unit] < busy_U[victim] or (sooner and busy_U[unit] == busy_U[victim]):
            victim, lowest = unit, priority
    return int(victim)
