"""Every analysis of routing traces, in one tuple: a run of ours and a trace of another engine get the same rows."""

from collections.abc import Callable, Iterator, Sequence

from moeprof.analysis.routing.drift import drift_rows
from moeprof.analysis.routing.fairseq import fairseq_rows
from moeprof.analysis.routing.locality import locality_rows
from moeprof.analysis.routing.metrics import routing_rows
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.routing_trace import RoutingTrace, joined

ANALYSES: tuple[Callable[[RoutingTrace], list[MetricRow]], ...] = (routing_rows, fairseq_rows, locality_rows, drift_rows)
"""Loads, drops and sparsity come first, because only they differ between variants with the same routing."""


def analysis_rows(traces: Sequence[RoutingTrace]) -> Iterator[MetricRow]:
    """The rows of all analyses for each phase and variant of imported traces; ranks of one phase run their steps together."""
    parts: dict[tuple[str, str], list[RoutingTrace]] = {}
    for trace in sorted(traces, key=lambda trace: trace.header.rank):
        parts.setdefault((trace.header.phase, trace.header.variant), []).append(trace)
    for ranks in parts.values():
        whole = joined(ranks[0].header, [trace.table for trace in ranks])
        for analysis in ANALYSES:
            yield from analysis(whole)
