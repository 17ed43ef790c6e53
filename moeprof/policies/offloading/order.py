"""In which order a layer loads and computes its experts: a flow shop of one loader and one computer over K slots, as InfMoE runs it.

Each expert is a job: it is loaded, then computed. Loader and computer take the jobs in the same order, one at a time. A job takes a slot
when its load starts, and gives it back when its computation ends. A job with load time 0 is resident. Times may have any unit. The rule
is Johnson's (Naval Research Logistics Quarterly 1, 1954), which is optimal without a limit of slots. Shape suffix: J jobs.
"""

from typing import Literal, NamedTuple

import numpy as np

from moeprof.records.arrays import Floats, Ints

LoadOrder = Literal["index", "johnson", "exact"]

MAX_EXACT = 7
"""The most loads whose orders are all compared."""


class JobTimes(NamedTuple):
    """When each job, by its index, is loaded and computed, (J,)."""

    load_start_J: Floats
    load_end_J: Floats
    compute_start_J: Floats
    compute_end_J: Floats


def ordered(load_J: Floats, compute_J: Floats, slots: int, order: LoadOrder = "johnson") -> Ints:
    """The jobs in the order in which they are loaded and computed, (J,).

    Resident jobs come first, the shortest first: no load waits longer for a slot. The others come by index; by Johnson's rule, which
    for loads of equal length means that the longest computations come first; or in the order with the smallest makespan, if at most
    MAX_EXACT jobs must be loaded, and by Johnson's rule otherwise.
    """
    resident_R, pending_P = np.flatnonzero(load_J == 0), np.flatnonzero(load_J)
    first_R = resident_R[np.argsort(compute_J[resident_R], kind="stable")]
    if order != "index":
        pending_P = pending_P[johnson(load_J[pending_P], compute_J[pending_P])]
    jobs_J = np.concatenate([first_R, pending_P])
    if order == "exact" and 1 < len(pending_P) <= MAX_EXACT:
        from moeprof.policies.offloading.order_loops import fastest

        return fastest(jobs_J, len(first_R), load_J, compute_J, slots)
    return jobs_J


def johnson(load_J: Floats, compute_J: Floats) -> Ints:
    """Johnson's order, (J,): jobs with load <= computation, shorter loads first; then the others, longer computations first.

    Among equal loads longer computations come first, and then lower indices. Loads [3, 1, 2] and computations [2, 4, 5]: [1, 2, 0].
    """
    hides_J = load_J <= compute_J
    return np.lexsort((-compute_J, np.where(hides_J, load_J, 0), ~hides_J))


def makespan(load_J: Floats, compute_J: Floats, order_J: Ints, slots: int) -> float:
    """When the last computation ends; ValueError without a slot."""
    return float(job_times(load_J, compute_J, order_J, slots).compute_end_J.max(initial=0))


def job_times(load_J: Floats, compute_J: Floats, order_J: Ints, slots: int) -> JobTimes:
    """The timeline of an order, in which everything starts as early as it can, from 0; ValueError without a slot."""
    if slots < 1:
        raise ValueError(f"loads need at least one slot, not {slots}")
    times = JobTimes(*np.zeros((4, len(load_J))))
    loader = computer = 0.0
    for place, job in enumerate(order_J):
        if place >= slots:
            loader = max(loader, times.compute_end_J[order_J[place - slots]])
        times.load_start_J[job], times.load_end_J[job] = loader, loader + load_J[job]
        loader = times.load_end_J[job]
        times.compute_start_J[job] = max(loader, computer)
        times.compute_end_J[job] = computer = times.compute_start_J[job] + compute_J[job]
    return times
