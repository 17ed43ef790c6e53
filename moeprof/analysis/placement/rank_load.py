"""How evenly ranks are loaded with tokens, memory and waiting: per layer first, and only then over layers.

Shape suffixes: B steps, E experts, N ranks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from moeprof.analysis.placement.deployed_rows import from_step
from moeprof.analysis.placement.device_load import device_counts
from moeprof.analysis.routing.capacity import first_judged_steps
from moeprof.analysis.routing.layer_rows import measured
from moeprof.analysis.routing.load_matrix import Counts, LoadMatrix, rank_of_rows
from moeprof.analysis.routing.trace_rows import traces_by_variant
from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.placement import Placement
from moeprof.records.run.run import Run
from moeprof.records.traces.routing_trace import RoutingTrace, joined


def judged_load_rows(run: Run) -> Iterator[Samples]:
    """The rows of every variant on several ranks, over the steps that variants are compared on."""
    if run.record.ran.parallel.ranks < 2:
        return
    for (phase, variant), traces in traces_by_variant(run).items():
        starts = first_judged_steps(run, phase)
        judged = [from_step(trace, starts) for trace in traces]
        yield from ((row, []) for row in rank_load_rows(judged, run.placement(phase, variant)))


def rank_load_rows(traces: Sequence[RoutingTrace], placement: Placement | None = None) -> list[MetricRow]:
    """`rank_tokens` of every rank, `max_load`, `avg_max_load` and `rank_load_max_over_mean`, of every layer and domain.

    `traces` are those of one phase and variant, one of each rank; the ranks run a step together. Without a placement the experts
    are contiguous.
    """
    header = traces[0].header
    placement = placement or Placement.contiguous(header.layers, header.num_experts, len(traces))
    everyone, rank_R = joined(header, [trace.table for trace in traces]), rank_of_rows(traces)
    rows = measured(everyone, partial(load_metrics, placement=placement), rank_R=rank_R)
    for rank in range(len(traces)):
        own = measured(everyone, partial(token_metrics, placement=placement, rank=rank), rank_R=rank_R)
        rows += [replace(row, rank=str(rank)) for row in own]
    return rows


def loads_by_rank(matrix: LoadMatrix, placement: Placement) -> Counts:
    """Choices that reach every rank's experts in every step, (N, B), without those dropped."""
    kept = replace(matrix, count_WN=matrix.count_WN - matrix.dropped_WN)
    return device_counts(kept, np.array(placement.layers[matrix.layer]))


def load_metrics(matrix: LoadMatrix, placement: Placement) -> dict[str, float]:
    """The busiest rank of every step: its share, and its ratio to the mean rank; {} if no choice reached a rank."""
    loads_NB = loads_by_rank(matrix, placement)
    total_B = loads_NB.sum(axis=0)
    share_B: npt.NDArray[np.float64] = loads_NB.max(axis=0)[total_B > 0] / total_B[total_B > 0]
    if not len(share_B):
        return {}
    mean = float(share_B.mean())
    return {"max_load": float(share_B.max()), "avg_max_load": mean, "rank_load_max_over_mean": mean * len(loads_NB)}


def token_metrics(matrix: LoadMatrix, placement: Placement, rank: int) -> dict[str, float]:
    """Choices that reach one rank in a step, mean over steps."""
    return {"rank_tokens": float(loads_by_rank(matrix, placement)[rank].mean())}
