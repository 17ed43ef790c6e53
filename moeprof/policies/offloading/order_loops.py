"""The search for the fastest order of loads, compiled; imported by the function that uses it, because importing numba takes time.

Shape suffix: J jobs.
"""

import numpy as np

from moeprof.records.arrays import Flags, Floats, Ints
from moeprof.records.compiled import compiled


@compiled
def fastest(jobs_J: Ints, fixed: int, load_J: Floats, compute_J: Floats, slots: int) -> Ints:
    """The order with the smallest makespan of all that begin with the first `fixed` of `jobs_J`, (J,); `jobs_J` itself on a tie.

    A depth-first search that gives up an order as soon as the loads or the computations that are left must end too late.
    """
    number = len(jobs_J)
    order_J, best_J, tried_J = jobs_J.copy(), jobs_J.copy(), np.full(number, -1)
    loader_J, computer_J, used_J = np.zeros(number + 1), np.zeros(number + 1), np.zeros(len(load_J), np.bool_)
    for place in range(number):
        loader_J[place + 1], computer_J[place + 1] = after(place, jobs_J[place], loader_J, computer_J, load_J, compute_J, slots)
    least, place = computer_J[number], fixed
    while place >= fixed:
        if tried_J[place] >= 0:
            used_J[order_J[place]] = False
        tried_J[place] = next_unused(tried_J[place] + 1, fixed, jobs_J, used_J)
        if tried_J[place] < 0:
            place -= 1
            continue
        job = jobs_J[tried_J[place]]
        order_J[place], used_J[job] = job, True
        loader_J[place + 1], computer_J[place + 1] = after(place, job, loader_J, computer_J, load_J, compute_J, slots)
        if bound(loader_J[place + 1], computer_J[place + 1], fixed, jobs_J, used_J, load_J, compute_J) >= least:
            continue
        if place == number - 1:
            least, best_J = computer_J[number], order_J.copy()
        else:
            place += 1
            tried_J[place] = -1
    return best_J


@compiled
def after(
    place: int, job: int, loader_J: Floats, computer_J: Floats, load_J: Floats, compute_J: Floats, slots: int
) -> tuple[float, float]:
    """When loader and computer have done this job, which is at this place of the order."""
    free = computer_J[place + 1 - slots] if place >= slots else 0.0
    loaded = max(loader_J[place], free) + load_J[job]
    return loaded, max(loaded, computer_J[place]) + compute_J[job]


@compiled
def next_unused(start: int, fixed: int, jobs_J: Ints, used_J: Flags) -> int:
    """The next place of `jobs_J`, after the fixed ones, whose job is not in the order yet, or -1."""
    for place in range(max(start, fixed), len(jobs_J)):
        if not used_J[jobs_J[place]]:
            return place
    return -1


@compiled
def bound(loader: float, computer: float, fixed: int, jobs_J: Ints, used_J: Flags, load_J: Floats, compute_J: Floats) -> float:
    """The earliest end of the jobs that are not in the order yet: either all computations, or all loads and the shortest computation."""
    shortest, loads, computations = np.inf, 0.0, 0.0
    for place in range(fixed, len(jobs_J)):
        job = jobs_J[place]
        if not used_J[job]:
            loads, computations, shortest = loads + load_J[job], computations + compute_J[job], min(shortest, compute_J[job])
    return computer if shortest == np.inf else max(computer + computations, loader + loads + shortest)
