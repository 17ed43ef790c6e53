"""The balance of first and second choices as fairseq's Top2Gate logs it, for comparison with its training logs.

Per step over E experts, then the mean over steps, as fairseq averages over updates. Padding, which fairseq counts, is left
out. `overflow_expert1/2` are among the routing metrics; `entropy_gating` needs the whole softmax and is recorded with it.
"""

import numpy as np

from moeprof.analysis.routing.layer_rows import measured
from moeprof.analysis.routing.load_matrix import LoadMatrix
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.routing_trace import RoutingTrace


def fairseq_rows(trace: RoutingTrace) -> list[MetricRow]:
    """The rows of first choices, and of second choices if the router makes them."""
    rows = measured(trace, lambda matrix: choice_metrics(matrix, "expert1"), slot=0)
    if trace.header.top_k >= 2:
        rows += measured(trace, lambda matrix: choice_metrics(matrix, "expert2"), slot=1)
    return rows


def choice_metrics(matrix: LoadMatrix, name: str) -> dict[str, float]:
    """Metrics of a matrix of one choice: unused experts, and the percentage that the top and bottom fifth of them take."""
    fifth = -(-matrix.num_experts // 5)
    order_N = np.lexsort((matrix.count_N, matrix.column_N))
    below_N = np.arange(len(order_N)) - matrix.starts_B[matrix.column_N]  # active experts with less, in the same step
    above_N = matrix.active_B[matrix.column_N] - 1 - below_N
    percent_N = 100 * matrix.shares_N[order_N]
    top, bottom = above_N < fifth, below_N + matrix.inactive_B[matrix.column_N] < fifth
    return {
        f"unused_{name}_count": int(matrix.inactive_B.sum()) / matrix.num_steps,
        f"{name}_balance_top": float(percent_N[top].sum()) / matrix.num_steps,
        f"{name}_balance_bottom": float(percent_N[bottom].sum()) / matrix.num_steps,
    }
