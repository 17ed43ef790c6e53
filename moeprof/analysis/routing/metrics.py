"""How evenly the experts of a layer are used, and what capacity costs: the metrics of the paper's characterization."""

import math

from moeprof.analysis.routing.layer_rows import measured
from moeprof.analysis.routing.load_matrix import Counts, LoadMatrix
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.routing_trace import RoutingTrace


def routing_rows(trace: RoutingTrace) -> list[MetricRow]:
    """Sparsity, balance and drops of every layer and domain; domain "" and layer "" are over all of them.

    Over layers: the mean, but the sum of `dead_experts`, the worst `hottest_share` and the most `steps`.
    """
    return measured(trace, routing_metrics)


def routing_metrics(matrix: LoadMatrix) -> dict[str, float]:
    """The metrics of one load matrix, as the registry defines them."""
    return drop_metrics(matrix) | sparsity_metrics(matrix) | balance_metrics(matrix.counts_E) | hottest_metrics(matrix)


def drop_metrics(matrix: LoadMatrix) -> dict[str, float]:
    """Steps, tokens and choices over capacity; `overflow_expert1/2` as fairseq's Top2Gate logs them."""
    tokens = matrix.num_tokens
    dropped_K = matrix.dropped_KB.sum(axis=1)
    metrics = {
        "steps": matrix.num_steps,
        "step_tokens": tokens / matrix.num_steps,
        "dropped_fraction": int(dropped_K.sum()) / (matrix.top_k * tokens),
        "dropped_tokens": int(matrix.dropped_tokens_B.sum()) / tokens,
    }
    overflow = {f"overflow_expert{slot + 1}": 100 * int(dropped) / tokens for slot, dropped in enumerate(dropped_K[:2])}
    return metrics | overflow


def sparsity_metrics(matrix: LoadMatrix) -> dict[str, float]:
    """Active and inactive experts of a step, mean over steps, beside the most that its tokens can reach."""
    active = int(matrix.active_B.sum()) / matrix.num_steps
    return {
        "active_experts": active,
        "active_bound": int(matrix.active_bound_B.sum()) / matrix.num_steps,
        "inactive_fraction": 1 - active / matrix.num_experts,
        "dead_experts": int(matrix.dead_E.sum()),
    }


def balance_metrics(counts_E: Counts) -> dict[str, float]:
    """Imbalance of total loads, (E,); {} if there are no choices.

    The variance is E sum(x^2) - sum(x)^2 over E^2, in whole numbers: the same on every machine.
    """
    counts = [int(count) for count in counts_E]
    total = sum(counts)
    if not total:
        return {}
    variance = len(counts) * sum(count * count for count in counts) - total * total
    return {"load_max_over_mean": max(counts) * len(counts) / total, "load_cv": math.sqrt(variance) / total}


def hottest_metrics(matrix: LoadMatrix) -> dict[str, float]:
    """The largest share of a step that one expert took in any step."""
    return {"hottest_share": float(matrix.max_share_B.max())}
