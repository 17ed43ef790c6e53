"""Temporal locality: which experts a step shares with the step before, and after how long an expert comes back.

The paper shows locality as vertical lines in figure 6; these are the numbers behind such lines. Steps are taken as batches,
whatever sequences they hold. Shape suffixes: E experts, B steps, T = B - 1 transitions from one step to the next,
U times that an expert comes back.
"""

import numpy as np

from moeprof.analysis.routing.layer_rows import measured
from moeprof.analysis.routing.load_matrix import Counts, LoadMatrix
from moeprof.records.arrays import Floats
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.routing_trace import RoutingTrace


def locality_rows(trace: RoutingTrace) -> list[MetricRow]:
    """Locality of every layer and domain, and over all of them; a domain with a single step has none."""
    return measured(trace, locality_metrics)


def locality_metrics(matrix: LoadMatrix) -> dict[str, float]:
    """The metrics that can be computed: none from one step, no reuse distance if no expert is used again."""
    metrics = {}
    distance_U, column_U = reuses(matrix)
    if matrix.num_steps > 1:
        active_B = matrix.active_B
        shared_T = shared(distance_U, column_U, matrix.num_steps)
        metrics["active_jaccard"] = float(jaccard(shared_T, active_B).mean())
        metrics["active_overlap"] = float((shared_T / active_B[1:]).mean())
        metrics["active_overlap_by_chance"] = int(active_B[:-1].sum()) / (len(shared_T) * matrix.num_experts)
    if (median := median_distance(np.bincount(distance_U, minlength=1))) is not None:
        metrics["reuse_distance"] = median
    return metrics


def reuses(matrix: LoadMatrix) -> tuple[Counts, Counts]:
    """The steps since the expert was last active, and the column, of every activation but each expert's first, (U,) each."""
    order = np.argsort(matrix.expert_N.astype(np.min_scalar_type(matrix.num_experts)), kind="stable")
    expert_N, column_N = matrix.expert_N[order], matrix.column_N[order]
    again = expert_N[1:] == expert_N[:-1]
    return np.diff(column_N)[again], column_N[1:][again]


def reuse_histogram(matrix: LoadMatrix) -> Counts:
    """How often an expert came back after d steps, at index d, (longest + 1,); 1 is the very next step, 0 never occurs."""
    return np.bincount(reuses(matrix)[0], minlength=1)


def shared(distance_U: Counts, column_U: Counts, num_steps: int) -> Counts:
    """Experts active in a step and in the one before, (T,)."""
    return np.bincount(column_U[distance_U == 1], minlength=num_steps)[1:]


def jaccard(shared_T: Counts, active_B: Counts) -> Floats:
    """Experts in both of two consecutive steps over experts in either, (T,); no step is without an active expert."""
    return shared_T / (active_B[1:] + active_B[:-1] - shared_T)


def median_distance(histogram: Counts) -> float | None:
    """The lower median of the distances in a histogram; None if it is empty."""
    total = int(histogram.sum())
    return float(np.searchsorted(np.cumsum(histogram), (total + 1) // 2)) if total else None
