"""The analyses of routing traces over a run: all of them for the baseline, loads and drops for the other variants."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.routing.analyses import ANALYSES
from moeprof.records.metrics.registry import Samples
from moeprof.records.run.run import Run
from moeprof.records.traces.routing_trace import RoutingTrace, TraceHeader, joined


def trace_rows(run: Run) -> Iterator[Samples]:
    """All analyses of the baseline's traces; another variant's router decides the same, so only its loads and drops are derived."""
    baseline = next(iter(run.record.routed_labels), "")
    for (_, variant), traces in traces_by_variant(run).items():
        whole = over_ranks(traces)
        for analysis in ANALYSES if variant == baseline else ANALYSES[:1]:
            yield from ((row, []) for row in analysis(whole))


def traces_by_variant(run: Run) -> dict[tuple[str, str], list[RoutingTrace]]:
    """The traces of all ranks, in their order, by phase and variant in the order of the run."""
    found: dict[tuple[str, str], list[RoutingTrace]] = {
        (phase, variant): [] for phase in run.record.ran.phases for variant in run.record.routed_labels
    }
    for trace in sorted(run.traces, key=lambda trace: trace.header.rank):
        found.setdefault((trace.header.phase, trace.header.variant), []).append(trace)
    return {where: traces for where, traces in found.items() if traces}


def over_ranks(traces: Sequence[RoutingTrace]) -> RoutingTrace:
    """One trace of the decisions of all ranks; steps of one number happened together."""
    return joined(traces[0].header, [trace.table for trace in traces])


def baseline_header(run: Run, phase: str) -> TraceHeader | None:
    """The header of the baseline's trace; None if the phase has none."""
    baseline = next(iter(run.record.routed_labels), "")
    traces = traces_by_variant(run).get((phase, baseline), [])
    return traces[0].header if traces else None
