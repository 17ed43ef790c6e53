"""The analyses of routing traces over a run: all of them for the baseline, loads and drops for the other variants."""

from collections.abc import Iterator

from moeprof.analysis.routing.analyses import ANALYSES, analysis_rows, by_variant
from moeprof.records.metrics.registry import Samples
from moeprof.records.run.run import Run
from moeprof.records.traces.routing_trace import RoutingTrace, TraceHeader


def trace_rows(run: Run) -> Iterator[Samples]:
    """All analyses of the baseline's traces; another variant's router decides the same, so only its loads and drops are derived."""
    baseline = next(iter(run.record.routed_labels), "")
    for (_, variant), traces in traces_by_variant(run).items():
        analyses = ANALYSES if variant == baseline else ANALYSES[:1]
        yield from ((row, []) for row in analysis_rows(traces, analyses))


def traces_by_variant(run: Run) -> dict[tuple[str, str], list[RoutingTrace]]:
    """The traces of all ranks, in their order, by phase and variant in the order of the run."""
    found = by_variant(run.traces)
    order = [(phase, variant) for phase in run.record.ran.phases for variant in run.record.routed_labels]
    return {where: found[where] for where in dict.fromkeys([*order, *found]) if where in found}


def baseline_header(run: Run, phase: str) -> TraceHeader | None:
    """The header of the baseline's trace; None if the phase has none."""
    baseline = next(iter(run.record.routed_labels), "")
    traces = traces_by_variant(run).get((phase, baseline), [])
    return traces[0].header if traces else None
