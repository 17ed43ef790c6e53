"""Every analysis of routing traces, in one tuple: a run of ours and a trace of another engine get the same rows."""

from collections.abc import Callable, Iterator, Sequence

from moeprof.analysis.routing.drift import drift_rows
from moeprof.analysis.routing.fairseq import fairseq_rows
from moeprof.analysis.routing.locality import locality_rows
from moeprof.analysis.routing.metrics import routing_rows
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.routing_trace import RoutingTrace, joined

Analysis = Callable[[RoutingTrace], list[MetricRow]]

ANALYSES: tuple[Analysis, ...] = (routing_rows, fairseq_rows, locality_rows, drift_rows)
"""Loads, drops and sparsity come first, because only they differ between variants with the same routing."""


def analysis_rows(traces: Sequence[RoutingTrace], analyses: Sequence[Analysis] = ANALYSES) -> Iterator[MetricRow]:
    """The rows of some analyses for each phase and variant; ranks of one phase run their steps together."""
    for ranks in by_variant(traces).values():
        whole = joined(ranks[0].header, [trace.table for trace in ranks])
        for analysis in analyses:
            yield from analysis(whole)


def by_variant(traces: Sequence[RoutingTrace]) -> dict[tuple[str, str], list[RoutingTrace]]:
    """The traces of all ranks, in their order, by phase and variant."""
    found: dict[tuple[str, str], list[RoutingTrace]] = {}
    for trace in sorted(traces, key=lambda trace: trace.header.rank):
        found.setdefault((trace.header.phase, trace.header.variant), []).append(trace)
    return found
